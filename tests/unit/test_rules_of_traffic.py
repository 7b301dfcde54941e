"""What validation says of the kinds of networking.istio.io other than VirtualService, each rule with a neighbour that
is accepted."""

import pytest
from rules import check, said, table

from lateen.api import kinds
from lateen.api.config import decode
from lateen.api.networking import ServiceEntry
from lateen.api.objects import Resource
from lateen.mesh.registry import automatic


def dr(**policy):
    return {"host": "reviews", "trafficPolicy": policy}


def lb(**balancer):
    return dr(loadBalancer=balancer)


def hashed(**more):
    return lb(consistentHash={"useSourceIp": True, **more})


def tls(**settings):
    return dr(tls=settings)


def port(**settings):
    return dr(portLevelSettings=[{"port": {"number": 80}, **settings}])


POOL = {"tcp": {"maxConnections": 1}}


@table(
    ("a policy says something", {"host": "a", "trafficPolicy": {}}, "no traffic policy must have at least one field"),
    ("so does one of a port", port(), "no port traffic policy must have at least one field"),
    ("a port's policy is taken", port(connectionPool=POOL), None),
    ("a port is named", dr(portLevelSettings=[{"connectionPool": POOL}]), "no must have valid port"),
    ("port 0 is no port", dr(portLevelSettings=[{"port": {}, "connectionPool": POOL}]), "warn of no port"),
    ("a pool says something", dr(connectionPool={}), "no connection pool must have at least one field"),
    (
        "a count fits into 32 bits",
        dr(connectionPool={"tcp": {"maxConnections": 2**32}}),
        "no is larger than 4294967295",
    ),
    ("a count is not negative", dr(connectionPool={"http": {"maxRetries": -1}}), "no maxRetries must be non-negative"),
    ("connections may be idle for ever", dr(connectionPool={"tcp": {"idleTimeout": "0s"}}), None),
    ("requests may not", dr(connectionPool={"http": {"idleTimeout": "0s"}}), "no duration must be greater than 1ms"),
    (
        "HTTP/2 for all, or the client's choice",
        dr(connectionPool={"http": {"h2UpgradePolicy": "UPGRADE", "useClientProtocol": True}}),
        "no use client protocol must not be true when H2UpgradePolicy is UPGRADE",
    ),
    ("a share of hosts", dr(outlierDetection={"maxEjectionPercent": 101}), "no percentage 101 is not in range 0..100"),
    ("the old counter", dr(outlierDetection={"consecutiveErrors": 1}), "warn consecutive errors is deprecated"),
    (
        "errors of our own side are counted apart",
        dr(outlierDetection={"consecutiveLocalOriginFailures": 1}),
        "no split external local origin errors is set to false",
    ),
    ("a tunnel leads somewhere", dr(tunnel={"targetHost": "", "targetPort": 1}), "no tunnel target host must be valid"),
    ("to an address, too", dr(tunnel={"targetHost": "10.0.0.1", "targetPort": 1}), None),
    ("to a port", dr(tunnel={"targetHost": "a.test", "targetPort": 0}), "no tunnel target port is invalid"),
    ("a budget is a share", dr(retryBudget={"percent": 101}), "no percentage 101"),
)
def test_settings_of_a_traffic_policy(spec, says):
    check("DestinationRule", spec, says)


@table(
    ("a key is taken", hashed(), None),
    ("without a key nothing is hashed", lb(consistentHash={}), "warn requests are spread at random"),
    ("one key", hashed(httpHeaderName="a"), "no give only one key"),
    ("a cookie has a name", lb(consistentHash={"httpCookie": {"name": ""}}), "no name required for HttpCookie"),
    (
        "an attribute is written once",
        lb(consistentHash={"httpCookie": {"name": "a", "attributes": [{"name": "b"}, {"name": "b"}]}}),
        "no duplicate cookie attribute name: b",
    ),
    ("a table has a size", hashed(maglev={}), "no tableSize must be set for maglev"),
    ("a prime number", hashed(maglev={"tableSize": 65537}), None),
    ("and no other", hashed(maglev={"tableSize": 65536}), "no must be a prime number"),
    ("below a limit", hashed(maglev={"tableSize": 5000011}), "no must be less than 5000011"),
    ("the old ring", hashed(minimumRingSize=1), "warn consistent hash MinimumRingSize is deprecated"),
    ("one size", hashed(minimumRingSize=1, maglev={"tableSize": 65537}), "no only one of MinimumRingSize or"),
    ("one table", hashed(ringHash={"minimumRingSize": 1}, maglev={"tableSize": 65537}), "no ringHash and maglev"),
    ("a ring has a limit", hashed(ringHash={"minimumRingSize": 2**24}), "no Envoy's rings have at most"),
    ("one way to choose", lb(simple="RANDOM", consistentHash={"useSourceIp": True}), "no simple and consistentHash"),
    ("warming up takes time", lb(warmup={}), "no duration"),
    ("it does not stand still", lb(warmup={"duration": "1s", "aggression": 0}), "no should be greater than 0"),
    ("it may begin fast", lb(warmup={"duration": "1s", "aggression": 0.5}), None),
    ("one spelling of it", lb(warmup={"duration": "1s"}, warmupDurationSecs="1s"), "no only one of warmupDurationSecs"),
    (
        "one way to prefer what is near",
        lb(localityLbSetting={}, zoneAwareLbSetting={}),
        "no only one of localityLbSetting and zoneAwareLbSetting",
    ),
    (
        "zones are weighed by themselves",
        lb(zoneAwareLbSetting={"failoverPriority": ["topology.kubernetes.io/zone"]}),
        "no must not use topology label",
    ),
    (
        "from one region to another",
        lb(zoneAwareLbSetting={"failover": [{"from": "a", "to": "a"}]}),
        "no zone aware lb failover settings must specify different regions",
    ),
    ("it begins with a share", lb(warmup={"duration": "1s", "minimumPercent": 101}), "no percentage 101"),
)
def test_how_endpoints_are_chosen(spec, says):
    check("DestinationRule", spec, says)


def local(**setting):
    return dr(loadBalancer={"localityLbSetting": setting}, outlierDetection={"consecutive5xxErrors": 1})


def spread(source, **to):
    return {"from": source, "to": to}


ELSEWHERE = {"to": {"b/*": 100}}


@table(
    ("shares add up to 100", local(distribute=[{"from": "a/*", "to": {"b/*": 80, "a/*": 20}}]), None),
    ("exactly", local(distribute=[{"from": "a/*", "to": {"b/*": 80}}]), "no total locality weight 80 != 100"),
    ("none is 0", local(distribute=[{"from": "a/*", "to": {"b/*": 100, "c/*": 0}}]), "no must be in range [1, 100]"),
    ("a place is complete", local(distribute=[{"from": "a//c", **ELSEWHERE}]), "no must not contain empty region"),
    ("a wildcard is the end", local(distribute=[{"from": "*/b", **ELSEWHERE}]), "no must be in the end"),
    (
        "a place is told once",
        local(distribute=[{"from": "a/*", **ELSEWHERE}, {"from": "a/b", **ELSEWHERE}]),
        "no locality a/b overlap with previous specified ones",
    ),
    ("the rest comes last", local(distribute=[{"from": "a/b", **ELSEWHERE}, {"from": "*", **ELSEWHERE}]), None),
    (
        "shares, or another region",
        local(distribute=[{"from": "a", **ELSEWHERE}], failover=[{"from": "a", "to": "b"}]),
        "no can not simultaneously specify 'distribute' and 'failover'",
    ),
    (
        "labels say less than shares",
        local(distribute=[{"from": "a", **ELSEWHERE}], failoverPriority=["version"]),
        "warn no effect beside distribute",
    ),
    (
        "a label that is the region says it twice",
        local(failover=[{"from": "a", "to": "b"}], failoverPriority=["topology.kubernetes.io/region"]),
        "no can not simultaneously set 'failover' and topology label",
    ),
    ("other labels may", local(failover=[{"from": "a", "to": "b"}], failoverPriority=["version"]), None),
    ("another region", local(failover=[{"from": "a", "to": "a"}]), "no must specify different regions"),
    ("a region is no zone", local(failover=[{"from": "a/b", "to": "c"}]), "no failover only specify region"),
    ("nor a wildcard", local(failover=[{"from": "*", "to": "c"}]), "no should not contain '*' wildcard"),
    (
        "who is ejected is known by outlier detection",
        lb(localityLbSetting={"failoverPriority": ["version"]}),
        "warn outlier detection policy must be provided for failover",
    ),
)
def test_localities(spec, says):
    check("DestinationRule", spec, says)


@table(
    ("a CA in a Secret", tls(mode="SIMPLE", credentialName="a"), None),
    (
        "or in files, not both",
        tls(mode="SIMPLE", credentialName="a", caCertificates="/b"),
        "no If credentialName is set",
    ),
    (
        "a client has a certificate",
        tls(mode="MUTUAL", privateKey="/k"),
        "no client certificate required for mutual tls",
    ),
    ("and a key", tls(mode="MUTUAL", clientCertificate="/c"), "no private key required for mutual tls"),
    ("nothing is verified", tls(mode="SIMPLE", insecureSkipVerify=True), None),
    (
        "so no names are",
        tls(mode="SIMPLE", insecureSkipVerify=True, subjectAltNames=["a"]),
        "no SubjectAltNames when InsecureSkipVerify is set true",
    ),
    (
        "and no CA is",
        tls(mode="MUTUAL", insecureSkipVerify=True, caCertificates="/c", clientCertificate="/c", privateKey="/k"),
        "no cannot specify CaCertificates or SubjectAltNames",
    ),
    ("the mesh has its own certificates", tls(mode="ISTIO_MUTUAL", privateKey="/k"), "warn does not use privateKey"),
    ("a server's name is for any mode", tls(mode="ISTIO_MUTUAL", sni="a.test"), None),
    (
        "a ConfigMap of another namespace",
        tls(mode="SIMPLE", credentialName="configmap://a/b"),
        "no namespace must match",
    ),
    (
        "a ConfigMap is not read yet",
        tls(mode="SIMPLE", credentialName="configmap://shop/b"),
        "warn ca.crt into a Secret",
    ),
)
def test_tls_of_clients(spec, says):
    check("DestinationRule", spec, says)


@table(
    ("subsets have names", {"host": "a", "subsets": [{"name": "v1"}]}, None),
    ("all of them", {"host": "a", "subsets": [{"name": ""}]}, "no subset name cannot be empty"),
    ("made of letters", {"host": "a", "subsets": [{"name": "v 1"}]}, "no subset name is invalid"),
    (
        "everybody's or somebody's",
        {"host": "a", "exportTo": ["*", "b"]},
        "no cannot have both public (*) and non-public",
    ),
    (
        "each once",
        {"host": "a", "exportTo": [".", "shop"]},
        "no duplicate entries in exportTo: . and current namespace",
    ),
    ("a namespace is a label", {"host": "a", "exportTo": ["b.c"]}, "no valid DNS 1123 label is allowed as exportTo"),
    ("not nobody's", {"host": "a", "exportTo": ["~"]}, "no exportTo ~ (none) is not allowed"),
    (
        "a rule of some workloads stays where they are",
        {"host": "a", "exportTo": ["b"], "workloadSelector": {"matchLabels": {"a": "b"}}},
        "no cannot have exportTo beyond current namespace",
    ),
    (
        "and says so once",
        {"host": "a", "exportTo": [".", "b"], "workloadSelector": {"matchLabels": {"a": "b"}}},
        "no cannot have multiple entries in exportTo",
    ),
    (
        "a selector has no wildcards",
        {"host": "a", "workloadSelector": {"matchLabels": {"a": "b*"}}},
        'no wildcard is not supported in selector: "a=b*"',
    ),
    (
        "no labels, all workloads",
        {"host": "a", "workloadSelector": {}},
        "warn workload selector specified without labels",
    ),
)
def test_who_has_a_rule(spec, says):
    check("DestinationRule", spec, says)


# --- gateways --------------------------------------------------------------------------------------------------------


def gw(protocol="HTTPS", number=443, name="p", **server):
    return {
        "servers": [{"port": {"number": number, "protocol": protocol, "name": name}, "hosts": ["a.test"], **server}]
    }


def secure(**settings):
    return gw(tls=settings)


FILES = {"serverCertificate": "/c", "privateKey": "/k"}


@table(
    ("a port has a name", gw("HTTP", name=""), "no port name must be set"),
    ("what a proxy of HTTP is asked is HTTP", gw("HTTP_PROXY"), None),
    ("of any letters", gw("HTTP", name="a_b.c"), None),
    (
        "a port is not mapped here",
        {"servers": [{"port": {"number": 1, "protocol": "HTTP", "name": "a", "targetPort": 2}, "hosts": ["*"]}]},
        "no targetPort has no impact on Gateways",
    ),
    ("a protocol is known", gw("KAFKA"), 'no invalid protocol "KAFKA"'),
    ("a socket has no port", gw("HTTP", bind="unix:///a"), "no port number must be 0 for unix domain socket"),
    ("a socket", gw("HTTP", number=0, bind="unix:///a"), None),
    ("a socket is a file", gw("HTTP", number=0, bind="unix:///a/"), "no is not an absolute path to a file"),
    ("a path alone is no socket", gw("HTTP", bind="/a"), "no /a is not a valid IP"),
    ("HTTPS has certificates", gw(), "no server must have TLS settings for HTTPS/TLS protocols"),
    (
        "HTTP has none",
        gw("HTTP", tls={"mode": "SIMPLE", **FILES}),
        "no cannot have TLS settings for plain text HTTP ports",
    ),
    ("but redirects", gw("HTTP", tls={"httpsRedirect": True}), None),
    (
        "HTTPS does not",
        secure(httpsRedirect=True, mode="SIMPLE", **FILES),
        "warn should only be used with http servers",
    ),
    ("TCP has none", gw("TCP", tls={"mode": "SIMPLE", **FILES}), "no for non HTTPS/TLS ports"),
)
def test_ports_of_gateways(spec, says):
    check("Gateway", spec, says)


@table(
    ("files", secure(mode="SIMPLE", **FILES), None),
    ("a Secret", secure(mode="MUTUAL", credentialName="a"), None),
    ("one or the other", secure(mode="SIMPLE", credentialName="a", **FILES), "no only one of credential_name"),
    (
        "one Secret or many",
        secure(mode="SIMPLE", credentialName="a", credentialNames=["b"]),
        "no only one of credential",
    ),
    ("in any mode", secure(mode="PASSTHROUGH", credentialName="a", **FILES), "no only one of credential_name"),
    (
        "nothing is terminated",
        secure(mode="PASSTHROUGH", credentialName="a"),
        "warn PASSTHROUGH mode does not use cert",
    ),
    ("a certificate has a key", secure(mode="SIMPLE", serverCertificate="/c"), "no SIMPLE TLS requires a private key"),
    ("a key has a certificate", secure(mode="SIMPLE", privateKey="/k"), "no SIMPLE TLS requires a server certificate"),
    ("clients have a CA", secure(mode="OPTIONAL_MUTUAL", **FILES), "no MUTUAL TLS requires a client CA bundle"),
    (
        "who has no clients has no list",
        secure(mode="SIMPLE", caCrl="/l", **FILES),
        "no CRL is not supported with SIMPLE",
    ),
    ("two certificates", secure(mode="SIMPLE", credentialNames=["a", "b"]), None),
    ("not three", secure(mode="SIMPLE", tlsCertificates=[FILES] * 3), "warn SIMPLE TLS can support up to 2 server"),
    ("mesh certificates are the mesh's", secure(mode="ISTIO_MUTUAL"), None),
    ("not the user's", secure(mode="ISTIO_MUTUAL", credentialNames=["a"]), "no cannot have associated credentialNames"),
    ("ciphers are known", secure(mode="SIMPLE", cipherSuites=["AES128-SHA"], **FILES), None),
    (
        "or not used",
        secure(mode="SIMPLE", cipherSuites=["B", "A"], **FILES),
        "warn ignoring invalid cipher suites: [A B]",
    ),
    (
        "and written once",
        secure(mode="SIMPLE", cipherSuites=["AES128-SHA"] * 2, **FILES),
        "warn ignoring duplicate cipher suites: [AES128-SHA]",
    ),
)
def test_certificates_of_gateways(spec, says):
    check("Gateway", spec, says)


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
    ("DNS, too", se("DNS", workloadSelector={"labels": {"a": "b"}}), "warn resolution mode is DNS"),
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
    ("a place has a port", egress("./*", bind="127.0.0.1"), "warn no effect without a port"),
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
