"""The Gateway API's kinds: what their CRDs say, and what is refused with a sentence."""

import pytest

from lateen.api import crds, kinds, validate
from lateen.api.config import Defaulted
from lateen.install.manifests import render
from lateen.install.operator import resolve

OFFICIAL = [k for k in kinds.owned() if k.group in kinds.GATEWAY_APIS]
PARENT = {"name": "web"}
BACKEND = {"name": "reviews", "port": 9080}


def obj(kind, spec, api_version="gateway.networking.k8s.io/v1"):
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "default"}, "spec": spec}


def http_route(**rule):
    return obj("HTTPRoute", {"parentRefs": [PARENT], "rules": [{"backendRefs": [BACKEND]} | rule]})


def gateway(*listeners, **more):
    return obj("Gateway", {"gatewayClassName": "istio", "listeners": list(listeners), **more})


def listener(**more):
    return {"name": "http", "port": 80, "protocol": "HTTP"} | more


def at(path, where):
    for part in path.split("."):
        where = where["items"] if part == "[]" else where["properties"][part]
    return where


def spec_of(kind, experimental=False):
    return at("spec", crds.crd(kind, experimental)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


@pytest.mark.parametrize("kind", OFFICIAL, ids=lambda k: k.kind)
def test_its_crd_says_which_release_and_channel_it_is(kind):
    made = crds.crd(kind)
    notes = made["metadata"]["annotations"]
    assert (notes[crds.BUNDLE], notes[crds.CHANNEL]) == ("v1.6.1", "standard")
    assert crds.crd(kind, experimental=True)["metadata"]["annotations"][crds.CHANNEL] == "experimental"
    assert made["spec"]["names"]["categories"] == ["gateway-api"]
    assert issubclass(kind.spec, Defaulted)


def test_a_gateway_waits_for_its_controller():
    status = crds.crd(kinds.KUBERNETES_GATEWAY)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][
        "status"
    ]
    found = {c["type"]: (c["status"], c["reason"]) for c in status["default"]["conditions"]}
    assert found == {"Accepted": ("Unknown", "Pending"), "Programmed": ("Unknown", "Pending")}


def test_defaults_are_written_as_in_the_official_definitions():
    route, gw = spec_of(kinds.HTTP_ROUTE), spec_of(kinds.KUBERNETES_GATEWAY)
    everything = [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert at("rules", route)["default"] == [{"matches": everything}]
    assert at("rules.[].matches", route)["default"] == everything
    assert at("parentRefs.[].kind", route)["default"] == "Gateway"
    assert at("rules.[].backendRefs.[].weight", route)["default"] == 1
    assert at("rules.[].backendRefs.[].group", route)["default"] == ""
    assert "default" not in at("parentRefs.[].sectionName", route)
    assert at("listeners.[].allowedRoutes", gw)["default"] == {"namespaces": {"from": "Same"}}
    assert at("listeners.[].tls.mode", gw)["default"] == "Terminate"


def test_limits_are_in_the_definition():
    route = spec_of(kinds.HTTP_ROUTE)
    assert at("rules", route)["maxItems"] == 16
    assert at("rules.[].backendRefs.[].port", route)["maximum"] == 65535
    assert at("hostnames.[]", route)["pattern"].startswith("^(\\*\\.)?")
    assert at("rules.[].filters.[].requestRedirect.statusCode", route)["enum"] == [301, 302, 303, 307, 308]


def test_only_the_experimental_channel_has_retries():
    for experimental in (False, True):
        rule = at("rules.[]", spec_of(kinds.HTTP_ROUTE, experimental))["properties"]
        assert ("retry" in rule, "sessionPersistence" in rule) == (experimental, experimental)


def test_the_experimental_channel_is_an_option_of_the_installation():
    assert _channel([]) == "standard"
    name = f"components.pilot.k8s.env[name:{crds.EXPERIMENTAL}].value=true"
    assert _channel([name]) == "experimental"


def _channel(settings):
    parts = render(resolve("default", [], settings))
    found = [o for p in parts for o in p.objects if o["metadata"]["name"] == "httproutes.gateway.networking.k8s.io"]
    return found[0]["metadata"]["annotations"][crds.CHANNEL]


def test_reference_grants_are_stored_as_v1beta1_and_served_as_v1():
    versions = crds.crd(kinds.REFERENCE_GRANT)["spec"]["versions"]
    assert {v["name"]: v["storage"] for v in versions} == {"v1beta1": True, "v1": False}


GOOD = [
    http_route(),
    http_route(matches=[{"path": {"type": "Exact", "value": "/a"}, "headers": [{"name": "x", "value": "1"}]}]),
    http_route(timeouts={"request": "10s", "backendRequest": "1s"}),
    obj("HTTPRoute", {"parentRefs": [PARENT | {"port": 80}, PARENT | {"port": 81}]}),
    obj("HTTPRoute", {}, "gateway.networking.k8s.io/v1beta1"),
    gateway(listener()),
    gateway(listener(), listener(name="other", hostname="*.example.com")),
    gateway(listener(name="https", port=443, protocol="HTTPS", tls={"certificateRefs": [{"name": "cert"}]})),
    gateway(listener(name="tls", protocol="TLS", tls={"mode": "Passthrough"})),
    gateway(listener(protocol="example.com/gopher")),
    obj("GatewayClass", {"controllerName": "istio.io/gateway-controller"}),
    obj("GRPCRoute", {"rules": [{"matches": [{"method": {"service": "a.B", "method": "Get"}}]}]}),
    obj("TLSRoute", {"hostnames": ["a.example.com"], "rules": [{"backendRefs": [BACKEND]}]}),
    obj("TCPRoute", {"rules": [{"backendRefs": [BACKEND]}]}),
    obj("ReferenceGrant", {"from": [{"group": "", "kind": "A", "namespace": "b"}], "to": [{"group": "", "kind": "C"}]}),
    obj(
        "BackendTLSPolicy",
        {
            "targetRefs": [{"group": "", "kind": "Service", "name": "a"}],
            "validation": {"wellKnownCACertificates": "System", "hostname": "a.example.com"},
        },
    ),
]


@pytest.mark.parametrize("found", GOOD, ids=lambda o: o["kind"])
def test_what_the_api_allows_is_accepted(found):
    assert validate.findings(found) == []


REDIRECT = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}
REWRITE = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}}}
TLS = {"certificateRefs": [{"name": "cert"}]}


@pytest.mark.parametrize(
    ("found", "path", "says"),
    [
        (http_route(matches=[{"path": {"value": "a"}}]), "spec.rules[0].matches[0].path.value", "start with '/'"),
        (http_route(matches=[{"path": {"value": "/a//b"}}]), "spec.rules[0].matches[0].path.value", "contain '//'"),
        (http_route(matches=[{"path": {"value": "/a b"}}]), "spec.rules[0].matches[0].path.value", "characters"),
        (
            http_route(matches=[{"path": {"type": "RegularExpression", "value": "("}}]),
            "spec.rules[0].matches[0].path.value",
            "",
        ),
        (http_route(filters=[REDIRECT]), "spec.rules[0].backendRefs", "must not be used together"),
        (http_route(filters=[REDIRECT, REWRITE]), "spec.rules[0].filters", "but not both"),
        (http_route(filters=[{"type": "CORS"}]), "spec.rules[0].filters[0].cors", "must be specified"),
        (
            http_route(filters=[REDIRECT | {"type": "CORS", "cors": {}}]),
            "spec.rules[0].filters[0].requestRedirect",
            "must be nil",
        ),
        (
            http_route(filters=[REWRITE], matches=[{"path": {"type": "Exact", "value": "/a"}}]),
            "spec.rules[0].filters[0]",
            "exactly one PathPrefix match",
        ),
        (
            http_route(timeouts={"request": "1s", "backendRequest": "2s"}),
            "spec.rules[0].timeouts.backendRequest",
            "longer than request timeout",
        ),
        (http_route(timeouts={"request": "1.5s"}), "spec.rules[0].timeouts.request", "whole numbers"),
        (http_route(backendRefs=[{"name": "a"}]), "spec.rules[0].backendRefs[0].port", "Must have port"),
        (http_route(backendRefs=[{"port": 80}]), "spec.rules[0].backendRefs[0].name", "required"),
        (http_route(backendRefs=[BACKEND | {"port": 0}]), "spec.rules[0].backendRefs[0].port", "or equal to 1"),
        (obj("HTTPRoute", {"hostnames": ["A.example.com"]}), "spec.hostnames[0]", "lower-case host name"),
        (obj("HTTPRoute", {"hostnames": ["a.example.com\n"]}), "spec.hostnames[0]", "lower-case host name"),
        (obj("HTTPRoute", {"parentRefs": [PARENT, PARENT]}), "spec.parentRefs[1]", "must be unique"),
        (
            obj("HTTPRoute", {"parentRefs": [PARENT, PARENT | {"sectionName": "a"}]}),
            "spec.parentRefs[1]",
            "must be specified",
        ),
        (gateway(), "spec.listeners", "at least 1"),
        (gateway(listener(tls=TLS)), "spec.listeners[0].tls", "must not be specified for protocols"),
        (gateway(listener(protocol="TLS")), "spec.listeners[0].tls", "must be set for protocol TLS"),
        (
            gateway(listener(protocol="HTTPS", tls={"mode": "Passthrough"})),
            "spec.listeners[0].tls.mode",
            "must be Terminate for protocol HTTPS",
        ),
        (gateway(listener(protocol="TCP", hostname="a.b")), "spec.listeners[0].hostname", "must not be specified"),
        (gateway(listener(), listener(port=81)), "spec.listeners[1].name", "must be unique"),
        (gateway(listener(), listener(name="b")), "spec.listeners[1]", "must be unique for each listener"),
        (gateway(listener(protocol="HTTPS", tls={})), "spec.listeners[0].tls", "certificateRefs or options"),
        (
            gateway(listener(protocol="HTTPS", tls={"options": {"gateway.istio.io/tls-terminate-mode": "HALF"}})),
            "spec.listeners[0].tls.options[gateway.istio.io/tls-terminate-mode]",
            'no "HALF"',
        ),
        (
            gateway(listener(protocol="HTTPS", tls={"options": {"gateway.istio.io/tls-cipher-suites": "ROT13"}})),
            "spec.listeners[0].tls.options[gateway.istio.io/tls-cipher-suites]",
            "ROT13",
        ),
        (
            gateway(listener(), addresses=[{"value": "10.0.0.1"}, {"value": "10.0.0.1"}]),
            "spec.addresses[1].value",
            "must be unique",
        ),
        (
            gateway(listener(), infrastructure={"labels": {"a/b/c": "x"}}),
            "spec.infrastructure.labels[a/b/c]",
            "optional DNS subdomain",
        ),
        (obj("GatewayClass", {"controllerName": "istio"}), "spec.controllerName", "domain/path"),
        (
            obj("GRPCRoute", {"rules": [{"matches": [{"method": {"type": "Exact"}}]}]}),
            "spec.rules[0].matches[0].method",
            "One or both",
        ),
        (
            obj("TLSRoute", {"hostnames": ["10.0.0.1"], "rules": [{"backendRefs": [BACKEND]}]}),
            "spec.hostnames[0]",
            "cannot contain an IP",
        ),
        (obj("TCPRoute", {"rules": []}), "spec.rules", "at least 1"),
        (
            obj(
                "BackendTLSPolicy",
                {"targetRefs": [{"group": "", "kind": "Service", "name": "a"}], "validation": {"hostname": "a"}},
            ),
            "spec.validation",
            "either CACertificateRefs",
        ),
    ],
)
def test_a_mistake_is_named_with_its_path(found, path, says):
    assert [s for p, s in validate.problems(found) if p == path and says in s], validate.problems(found)


def test_a_version_that_is_not_served_is_named():
    assert "it has v1" in kinds.stranger(obj("TLSRoute", {}, "gateway.networking.k8s.io/v1alpha2"))


def test_a_selector_that_is_missing_is_warned_about():
    found = gateway(listener(allowedRoutes={"namespaces": {"from": "Selector"}}))
    assert [p for p, _ in validate.warnings(found)] == ["spec.listeners[0].allowedRoutes.namespaces"]
