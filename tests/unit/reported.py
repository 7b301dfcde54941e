"""What Envoy is told to report: the loggers and tracers of the HTTP filters of a proxy."""

import judge
import meshes as mesh
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.stats.v3 import stats_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from test_goldens import CONFIG

from lateen.mesh.model import Mesh
from lateen.mesh.views import Views
from lateen.wire import names, requests


def hcms(found):
    for listener in found[names.LDS].values():
        for chain in (*listener.filter_chains, listener.default_filter_chain):
            for f in chain.filters:
                if f.name == "envoy.filters.network.http_connection_manager":
                    out = hcm.HttpConnectionManager()
                    f.typed_config.Unpack(out)
                    yield listener.name, out


COUNTS = "%FILTER_STATE(envoy.filters.http.grpc_stats:PLAIN)%"


def lines(manager, messages=False):
    """Of the loggers that tell the agent about requests, or about ``messages`` of gRPC: metric -> label -> format."""
    out = {}
    for log in manager.access_log:
        config = file_pb2.FileAccessLog()
        if log.typed_config.Unpack(config) and config.path == requests.PIPE:
            text = config.log_format.text_format_source.inline_string
            start, values, kinds, *fields, end = text.split(f"%ENVIRONMENT({requests.MARK})%")
            assert (start, end) == ("", "\n")
            named = [requests.KINDS[int(kind)] for kind in kinds]
            of_grpc = not set(named).isdisjoint(requests.MESSAGES)
            assert values == (COUNTS if of_grpc else "%DURATION% %BYTES_RECEIVED% %BYTES_SENT%")
            assert log.HasField("filter") == of_grpc
            for name in named if of_grpc == messages else ():
                assert name not in out
                out[name] = dict(f.split("=", 1) for f in fields)
    return out


def of_metrics(manager):
    log = next(a for a in manager.access_log if a.name == "envoy.access_loggers.stats")
    config = stats_pb2.Config()
    assert log.typed_config.Unpack(config)
    return config


def found_at(text, pod=("default", "productpage-v1"), config=CONFIG, agent=mesh.AGENT):
    objects = mesh.objects(text, config)
    return judge.messages(Views(Mesh(objects)).of(objects.pods[pod], "sidecar", agent))
