"""Envoy's command operators in formats and headers: what is accepted here, Envoy accepts; what it would refuse, is
refused where it is written, since Envoy would refuse a whole listener or all routes for it."""

import json

import judge
import meshes as mesh
import pytest

from lateen.api import operators, validate
from lateen.api.mesh.reading import mesh_config
from lateen.mesh import configuration

GOOD = (
    "%REQ(:METHOD)% %REQ(A_b.c~!)% %REQ(a?b)% %REQ(a?)% %RESP(A?B):10% %REQ(x):0% %TRAILER(a)% %REQUEST_HEADER(a?:b)%",
    "%START_TIME% %START_TIME(%E4n)% %START_TIME(%Y-%m-%d)% %EMIT_TIME(%s.%3f)% %DOWNSTREAM_PEER_CERT_V_END(%Y)%",
    "%METADATA(ROUTE)% %METADATA(DYNAMIC:Y)% %METADATA(LISTENER_FILTER_CHAIN:a:b:c)% %METADATA(VIRTUAL_HOST:a)%",
    "%FILTER_STATE(a)% %FILTER_STATE(a:)% %FILTER_STATE(a:TYPED)% %UPSTREAM_FILTER_STATE(a:FIELD:b:c):3%",
    "%COMMON_DURATION(DS_RX_BEG:DS_RX_END:ms)% %COMMON_DURATION(:b:ns)% %DYNAMIC_METADATA(a b:c):5% %ENVIRONMENT(a b)%",
    "%PATH% %PATH()% %PATH(WQ):5% %PATH(NQ:ORIG_OR_PATH)% %PATH(:ORIG)% %PATH(WQ:PATH:x)% %QUERY_PARAM(a b):5%",
    "%CEL(request.path):9% %CEL(request.path.matches('^/a[bc]') ? 'a' : request.host)% 100%%",
    "%RESPONSE_CODE_DETAILS(x)%",
)
BAD = (
    *("%REQ()%", "%REQ(a?b?c)%", "%REQ(a b)%", "%RESP(a@b)%", "%REQ(a:b)%", f"%REQ(X):1{'0' * 19}%"),
    *("%STREAM_INFO_REQ()%", "%REQ_WITHOUT_QUERY(A?B?C)%", "%QUERY_PARAM()%", "%ENVIRONMENT()%"),
    *("%TRAILER(\u00e9)%", "%DYNAMIC_METADATA()%"),
    *("%START_TIME(%n)%", "%DOWNSTREAM_PEER_CERT_V_START(%n%)%", "%START_TIME:5%", "%EMIT_TIME:5%", "%PROTOCOL:5%"),
    *("%METADATA()%", "%METADATA(X:Y)%", "%METADATA(ROUTES:Y)%", "%RESPONSE_CODE:5%", "%RESPONSE_CODE_DETAILS:5%"),
    *("%FILTER_STATE()%", "%FILTER_STATE(:PLAIN)%", "%FILTER_STATE(a:WRONG)%", "%UPSTREAM_FILTER_STATE(a:FIELD)%"),
    *("%FILTER_STATE(a:PLAIN:b)%", "%COMMON_DURATION(a:b)%", "%COMMON_DURATION(a:b:c)%", "%COMMON_DURATION(a:b:ns:c)%"),
    *("%COMMON_DURATION(a:b:us):5%", "%PATH(x)%", "%PATH(NQ:X)%", "%HOSTNAME:3%", "%UPSTREAM_PEER_CERT_V_END:3%"),
    *("%CEL(request.path.matches('['))%", "%CEL(lower(request.path))%", "%CEL(response.code >)%", "%CEL()%"),
)  # fmt: skip


def route(text):
    spec = {"hosts": ["reviews"], "http": [{"headers": {"request": {"set": {"x-a": text}}}, "route": [TO]}]}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "v"}, "spec": spec}


TO = {"destination": {"host": "reviews"}}


def envoy(texts, directory):
    """Envoy's judgement of the texts in the access log and in headers."""
    labels = {f"l{i}": t for i, t in enumerate(texts)}
    provider = {"name": "a", "envoyFileAccessLog": {"path": "/dev/stdout", "logFormat": {"labels": labels}}}
    given = {"extensionProviders": [provider], "defaultProviders": {"accessLogging": ["a"]}}
    found = mesh.objects("", configuration.settings(mesh_config(json.dumps(given)), "istio-system"))
    for i, text in enumerate(texts):
        found = mesh.add(found, route(text) | {"metadata": {"name": f"v{i}", "namespace": "default"}}, i)
    judge.validate(mesh.view(found), directory)


@pytest.mark.parametrize("text", BAD)
def test_what_envoy_would_refuse_is_refused_in_formats_and_in_headers(text):
    assert list(operators.problems(text))
    assert validate.problems(route(text))


@pytest.mark.parametrize("text", GOOD)
def test_what_is_accepted_here_envoy_accepts(text, tmp_path):
    assert list(operators.problems(text)) == []
    assert validate.problems(route(text)) == []
    envoy([text], tmp_path)
