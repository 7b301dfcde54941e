"""What validation says of ServiceEntries, workloads and Sidecars, each rule with a neighbour that is accepted."""

import pytest
from rules import check, said, table

from lateen.api import kinds
from lateen.api.config import decode
from lateen.api.networking import ServiceEntry
from lateen.api.objects import Resource
from lateen.mesh.registry import automatic

FILES = {"serverCertificate": "/c", "privateKey": "/k"}


# --- service entries and workloads -----------------------------------------------------------------------------------


def se(resolution="STATIC", hosts=("a.test",), protocol="HTTP", **more):
    ports = [{"number": 80, "name": "p", "protocol": protocol}]
    return {"hosts": list(hosts), "ports": ports, "resolution": resolution, **more}


def at(*addresses, resolution="STATIC", **more):
    return se(resolution, endpoints=[{"address": a} for a in addresses], **more)


@table(
    ("endpoints may come later", se(), None),
    ("an endpoint has an address", se(endpoints=[{}]), "no address is required"),
    ("or lies behind a network's gateway", se(endpoints=[{"network": "n"}]), 'warn address is unset with network "n"'),
    ("a name must be looked up", at("b.test"), 'no endpoint address "b.test" is not a valid IP address'),
    ("by DNS", at("b.test", resolution="DNS"), None),
    ("which needs one", se("DNS", endpoints=[{"network": "n"}]), 'no endpoint address "" is not a valid FQDN'),
    ("a socket", at("unix:///a"), None),
    ("is not looked up", at("unix:///a", resolution="DNS"), "no is not a valid FQDN or an IP address"),
    ("DNS needs a name", se("DNS", ["*.test"]), "no hosts must be FQDN or contain only prefix wildcards"),
    ("one answer", at("b.test", "c.test", resolution="DNS_ROUND_ROBIN"), "no there must only be 0 or 1 endpoint"),
    ("without resolution there are none", at("10.0.0.1", resolution="NONE"), "no no endpoints should be provided"),
    ("wildcards are told by name", se("NONE", ["*.test"]), None),
    ("but whole labels", se("NONE", ["*a.test"]), "warn partial wildcard"),
    ("everything is no host", se("NONE", ["*"]), "no invalid host *"),
    ("ranges have no DNS", se("DNS", addresses=["10.0.0.0/8"]), "no CIDR addresses are allowed only for NONE/STATIC"),
    (
        "plain connections do not say the host",
        se(hosts=["a.test", "b.test"], protocol="TCP"),
        "no multiple hosts provided",
    ),
    ("requests do", se(hosts=["a.test", "b.test"]), None),
    ("an unknown protocol may not", se(hosts=["a.test", "b.test"], protocol=""), "no multiple hosts provided"),
    (
        "an address has one host",
        se("DNS", ["a.test", "b.test"], protocol="TLS", addresses=["10.0.0.1"]),
        "warn can not have more than one host",
    ),
    ("an address is made", se(protocol="TCP"), None),
    (
        "not for connections that pass through",
        se("NONE", protocol="TCP"),
        "warn addresses are required for ports serving",
    ),
    ("an unset protocol may be TCP", se("NONE", protocol=""), "warn addresses are required for ports serving TCP"),
    (
        "workloads or endpoints",
        at("10.0.0.1", workloadSelector={"labels": {"a": "b"}}),
        "no only one of WorkloadSelector or Endpoints",
    ),
    (
        "workloads have a resolution",
        se("NONE", workloadSelector={"labels": {"a": "b"}}),
        "warn resolution mode is NONE",
    ),
    ("workloads may have names", se("DNS", workloadSelector={"labels": {"a": "b"}}), None),
    ("any name is looked up", se("DYNAMIC_DNS", ["*.test"]), None),
    ("which only wildcards need", se("DYNAMIC_DNS"), "no host must be wildcarded for resolution mode DYNAMIC_DNS"),
    ("parts of a label, too", se("DYNAMIC_DNS", ["*-a.test"]), None),
    ("HTTPS hides the request", se("DYNAMIC_DNS", ["*.test"], "HTTPS"), "no only HTTP, TLS, GRPC, and HTTP2 protocols"),
    ("there is no address then", se("DYNAMIC_DNS", ["*.test"], addresses=["10.0.0.1"]), "no addresses cannot be set"),
    ("only for its own workloads", se(exportTo=["~"]), None),
    ("and nobody else", se(exportTo=["~", "a"]), "no cannot export service entry to no one (~) and someone"),
)
def test_service_entries(spec, says):
    check("ServiceEntry", spec, says)


def test_an_entry_without_addresses_is_warned_about():
    _, warnings = said(
        "ServiceEntry", se(protocol="TCP"), labels={"networking.istio.io/enable-autoallocate-ip": "false"}
    )
    assert "addresses are required" in warnings[0]


def group(**probe):
    return {"template": {}, "probe": probe}


@table(
    ("a template may be empty", {"template": {}}, None),
    ("but is there", {}, "no template is required"),
    ("a template's ports are ports", {"template": {"ports": {"http": 0}}}, "no port number 0"),
    ("a probe asks something", group(periodSeconds=1), "no unknown health check method"),
    ("one thing", group(tcpSocket={"port": 1}, exec={"command": ["a"]}), "no give only one"),
    (
        "a header is Kubernetes'",
        group(httpGet={"port": 1, "httpHeaders": [{"name": "a_b"}]}),
        "no not a valid header name",
    ),
    ("HTTP or HTTPS", group(httpGet={"port": 1, "scheme": "http"}), "no httpGet.scheme must be one of"),
    ("a command", group(exec={"command": []}), "no exec.command is required"),
    ("times are not negative", group(tcpSocket={"port": 1}, periodSeconds=-1), "no periodSeconds must be non-negative"),
)
def test_workload_groups(spec, says):
    check("WorkloadGroup", spec, says)


@table(
    ("a socket", {"address": "unix:///a"}, None),
    ("has no ports", {"address": "unix:///a", "ports": {"http": 80}}, "no must not include ports"),
    ("an abstract one", {"address": "unix://@a"}, None),
    ("a name", {"address": "a.test"}, None),
    ("is a name", {"address": "a b"}, "no is not a valid FQDN or an IP address"),
)
def test_workload_entries(spec, says):
    check("WorkloadEntry", spec, says)


# --- sidecars --------------------------------------------------------------------------------------------------------


def ingress(protocol="HTTP", **more):
    return {"ingress": [{"port": {"number": 80, "protocol": protocol, "name": "p"}, "defaultEndpoint": ":80", **more}]}


def egress(*hosts, **more):
    return {"egress": [{"hosts": list(hosts), **more}]}


@table(
    ("the application's port", ingress(), None),
    ("on this machine", ingress(defaultEndpoint="10.0.0.1:80"), "no defaultEndpoint must be of form 127.0.0.1:<port>"),
    ("with a port", ingress(defaultEndpoint="127.0.0.1"), "no defaultEndpoint must be of form"),
    ("a number", ingress(defaultEndpoint="127.0.0.1:http"), "no port (http) is not a number"),
    ("an IPv6 address in brackets", ingress(defaultEndpoint="[::1]:80"), None),
    ("a socket", ingress(defaultEndpoint="unix:///a"), None),
    ("no second mapping", {"ingress": [{"port": {"number": 80, "targetPort": 8080}}]}, "no targetPort has no impact"),
    ("an address to listen on", ingress(bind="a.test"), "no a.test is not a valid IP"),
    ("TLS is terminated", ingress("HTTPS", tls={"mode": "SIMPLE", **FILES}), None),
    ("on ports of TLS", ingress(tls={"mode": "SIMPLE", **FILES}), "no for non HTTPS/TLS ports"),
    (
        "from files",
        ingress("HTTPS", tls={"mode": "SIMPLE", "credentialName": "a"}),
        "no credentialName is not currently",
    ),
    (
        "mutual TLS of the mesh is always there",
        ingress("TLS", tls={"mode": "ISTIO_MUTUAL"}),
        "no cannot set mode to ISTIO",
    ),
    (
        "a pool of requests is for HTTP",
        ingress("TCP", connectionPool={"http": {"maxRetries": 1}}),
        "warn is not HTTP (TCP)",
    ),
    ("namespace and name", egress("./*", "istio-system/*"), None),
    ("always both", egress("a.test"), "no host must be of form namespace/dnsName"),
    ("twice is once", egress("./a.test", "shop/a.test"), "warn duplicated egress host: shop/a.test"),
    ("a namespace's hosts have the host already", egress("./*", "./a.test"), "warn duplicated egress host"),
    ("everything is everything", egress("*/*", "./a.test"), "warn no other hosts can be added"),
    ("nothing at all", {"egress": [{"hosts": []}]}, "no must contain at least one host"),
    ("a port is an address'", egress("./*", port={"number": 80}, bind="unix:///a"), "no is not a valid IP"),
    ("every port at one address", egress("./*", bind="127.0.0.2"), None),
    ("every port is bound", egress("./*", captureMode="NONE"), None),
    ("an address, not a socket", egress("./*", bind="unix:///a"), "no unix:///a is not a valid IP"),
    (
        "the rest comes last",
        {"egress": [{"hosts": ["./*"]}, {"hosts": ["./*"], "port": {"number": 80}}]},
        "no should be the last listener in the list",
    ),
    (
        "unknown hosts go to a proxy",
        {"outboundTrafficPolicy": {"mode": "ALLOW_ANY", "egressProxy": {"host": "a.test", "port": {"number": 80}}}},
        None,
    ),
    (
        "where they are let out",
        {"outboundTrafficPolicy": {"egressProxy": {"host": "a.test", "port": {"number": 80}}}},
        "no must be set only with ALLOW_ANY",
    ),
    (
        "to a port of it",
        {"outboundTrafficPolicy": {"mode": "ALLOW_ANY", "egressProxy": {"host": "a.test"}}},
        "no egress_proxy port must be non-nil",
    ),
)
def test_sidecars(spec, says):
    check("Sidecar", spec, says)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [("DestinationRule", {"host": "a"}), ("Sidecar", egress("./*")), ("ServiceEntry", se())],
)
def test_annotations_of_istio_itself(kind, spec):
    check(kind, spec, None, annotations={"mine": "a"})
    check(kind, spec, "no has unsupported annotation istio.io/dry-run", annotations={"istio.io/dry-run": "true"})
    check(kind, spec, "no rejecting", annotations={"internal.istio.io/webhook-always-reject": "true"})
    check(kind, spec, "no may not be set by users", annotations={"internal.istio.io/parents": "HTTPRoute/a.b"})


def test_null_in_a_list_is_reported():
    check("DestinationRule", {"host": "a", "subsets": [None]}, "no subset may not be null")
    check("AuthorizationPolicy", {"rules": [None]}, "no `rule` must not be nil")
    check("AuthorizationPolicy", {"rules": [{}]}, None)


def test_a_host_gets_an_address_unless_its_entry_says_no():
    def entry(name, **labels):
        ref = kinds.SERVICE_ENTRY.ref("shop", name)
        spec = decode(ServiceEntry, se("DNS", [f"{name}.test"], "TCP"))
        return Resource(ref, name, "1", "", spec, labels=tuple(labels.items()))

    refused = entry("b", **{"networking.istio.io/enable-autoallocate-ip": "False"})
    assert {host for _, host in automatic([entry("a"), refused])} == {"a.test"}
