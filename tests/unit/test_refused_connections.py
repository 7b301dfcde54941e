"""The lines in access logs of connections that get no further than to the proxy."""

import judge
import meshes as mesh
import pytest
from envoy.extensions.access_loggers.file.v3 import file_pb2

from lateen.api.mesh.providers import LogFormat
from lateen.mesh.observability import Reporting
from lateen.mesh.settings import MeshConfig
from lateen.wire import names

OF_SERVERS, OF_CLIENTS = (f"%{side}_TRANSPORT_FAILURE_REASON%" for side in ("UPSTREAM", "DOWNSTREAM"))


@pytest.mark.parametrize(
    "shape",
    [None, LogFormat(text=f"why: {OF_SERVERS}"), LogFormat(labels={"why": OF_SERVERS, "code": "%RESPONSE_CODE%"})],
)
@pytest.mark.parametrize(("pod", "namespace"), [("ratings-v1", "default"), ("ingress", "istio-system")])
def test_what_they_say_of_tls_is_about_the_client(pod, namespace, shape, tmp_path):
    seen = mesh.view(mesh.objects(mesh.FRONT, MeshConfig(reporting=Reporting("/dev/stdout", shape))), pod, namespace)
    listeners = [found for found in judge.messages(seen)[names.LDS].values() if found.access_log]
    assert listeners
    for listener in listeners:
        (log,) = listener.access_log
        made = file_pb2.FileAccessLog()
        assert log.typed_config.Unpack(made)
        assert OF_CLIENTS in str(made)
        assert OF_SERVERS not in str(made)
        no_chain, no_tls = log.filter.or_filter.filters
        assert no_chain.response_flag_filter.flags == ["NR"]
        assert no_tls.HasField("extension_filter")
    judge.validate(seen, tmp_path)
