"""Gateways that end TLS, pass it through or forward connections, and rules for connections inside the mesh."""

from datetime import timedelta

import judge
import meshes as mesh
import pytest
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from lateen.api import kinds
from lateen.api import objects as o
from lateen.control.world import World
from lateen.kit import certs, times
from lateen.wire import names

CA = certs.authority("clients", times.now())


def pair(*hosts):
    return certs.issue(CA, list(hosts), times.now(), timedelta(days=1))


def gateway(*servers):
    return f"""
kind: Gateway
metadata: {{name: gw}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
{chr(10).join(f"  - {s}" for s in servers)}
"""


ROUTES = """---
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [a.example.com, b.example.com]
  gateways: [gw]
  http: [{route: [{destination: {host: productpage}}]}]
  tls:
  - match: [{sniHosts: [b.example.com], port: 443}]
    route: [{destination: {host: reviews, port: {number: 9080}}}]
---
kind: VirtualService
metadata: {name: db}
spec:
  hosts: ["*"]
  gateways: [gw]
  tcp:
  - match: [{port: 31400}]
    route:
    - {destination: {host: reviews, port: {number: 9080}}, weight: 20}
    - {destination: {host: ratings, port: {number: 9080}}, weight: 80}
"""
HTTPS = "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.example.com], tls: {mode: %s, %s}}"
SIMPLE = HTTPS % ("SIMPLE", "credentialName: web")
MUTUAL = HTTPS % ("MUTUAL", "credentialName: web, subjectAltNames: [client.example.com], minProtocolVersion: TLSV1_3")
FILES = HTTPS % ("SIMPLE", "serverCertificate: /etc/istio/proxy/cert.pem, privateKey: /etc/istio/proxy/key.pem")
MESH = HTTPS % ("ISTIO_MUTUAL", "minProtocolVersion: TLSV1_2")
PASSTHROUGH = "{port: {number: 443, name: tls, protocol: TLS}, hosts: [b.example.com], tls: {mode: PASSTHROUGH}}"
TCP = "{port: {number: 31400, name: tcp, protocol: TCP}, hosts: ['*']}"
PLAIN = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*'], tls: {httpsRedirect: true}}"


def view(*servers, credentials=True):
    found = mesh.objects(gateway(*servers) + ROUTES)
    if credentials:
        mine = pair("a.example.com")
        made = o.Credential("istio-system", "web", mine.certificate, mine.key, CA.certificate)
        found = found.put(kinds.SECRET, ("istio-system", "web"), made)
    return mesh.view(found, "ingress", "istio-system")


def listeners(found):
    return judge.messages(found)[names.LDS]


@pytest.mark.parametrize("servers", [(SIMPLE, PLAIN), (MUTUAL, PASSTHROUGH, TCP), (MESH,), (PASSTHROUGH,), (TCP,)])
def test_envoy_accepts_every_kind_of_server(servers, tmp_path):
    found = view(*servers)
    assert listeners(found)
    judge.validate(found, tmp_path)


def context(found, name):
    out = tls_pb2.DownstreamTlsContext()
    listeners(found)[name].filter_chains[0].transport_socket.typed_config.Unpack(out)
    return out


def test_a_secret_is_sent_only_to_its_gateway_as_a_resource_of_its_own():
    found = view(SIMPLE)
    assert list(judge.messages(found)[names.SDS]) == ["kubernetes://web"]
    key = judge.messages(found)[names.SDS]["kubernetes://web"].tls_certificate.private_key.inline_string
    assert "PRIVATE KEY" in key
    assert b"PRIVATE KEY" not in listeners(found)["0.0.0.0_443"].SerializeToString()
    assert "PRIVATE KEY" not in repr(found.gateway)


def test_client_certificates_are_required_for_mutual_tls_only():
    assert context(view(MUTUAL), "0.0.0.0_443").require_client_certificate.value
    assert not context(view(SIMPLE), "0.0.0.0_443").require_client_certificate.value


def test_a_server_without_its_secret_does_not_block_the_others():
    found = view(SIMPLE, PASSTHROUGH, credentials=False)
    chains = listeners(found)["0.0.0.0_443"].filter_chains
    assert [list(c.filter_chain_match.server_names) for c in chains] == [["b.example.com"]]


def answers(found):
    """Route configuration -> its hosts, with the status of a direct response (0: they are routed)."""
    out = {}
    for name, host in judge.messages(found)[names.VHDS].items():
        out.setdefault(name.rpartition("/")[0], {})[host.name] = {r.direct_response.status for r in host.routes}
    return out


ANY = "{port: {number: 443, name: any, protocol: HTTPS}, hosts: %s, tls: {mode: %s, credentialName: web}}"
OTHERS = MUTUAL.replace("client.example.com", "other.example.com").replace(
    "[a.example.com]", "['default/*.example.com']"
)


@pytest.mark.parametrize("credentials", [True, False])
def test_a_server_that_asks_for_no_certificate_is_no_way_around_one_that_does(credentials):
    """TLS chooses the server by the name that a client announces, but the request's Host may be another's."""
    found = view(MUTUAL, ANY % ("['*']", "SIMPLE"))
    if not credentials:  # the server is left out, and its connections go to the other one
        secret = MUTUAL.replace("credentialName: web", "credentialName: nowhere")
        found = view(secret, ANY % ("['*']", "SIMPLE"))
    of = {chain: hosts for chain, hosts in answers(found).items() if ".any." in chain}
    ((_, hosts),) = of.items()
    found = {x: [s for h, s in hosts.items() if f"{x}.example.com" in h] for x in "ab"}
    assert found["a"]
    assert all(s == {421} for s in found["a"])
    assert found["b"]
    assert all(s == {0} for s in found["b"])


@pytest.mark.parametrize(
    ("servers", "elsewhere"),
    [
        ((SIMPLE, ANY % ("['*']", "SIMPLE")), False),
        ((MUTUAL, ANY % ("[b.example.com]", "SIMPLE")), False),
        ((OTHERS, ANY % ("['*', a.example.com]", "SIMPLE")), True),
        ((MUTUAL, OTHERS), True),
        ((MUTUAL, MUTUAL.replace("[a.example.com]", "['*.example.com']").replace("https", "any")), False),
    ],
)
def test_hosts_are_refused_only_where_another_server_demands_more(servers, elsewhere):
    statuses = {s for hosts in answers(view(*servers)).values() for found in hosts.values() for s in found}
    assert (421 in statuses) is elsewhere


def test_passthrough_is_by_name_and_plain_connections_by_weight(tmp_path):
    found = listeners(view(SIMPLE, PASSTHROUGH, TCP))
    chains = found["0.0.0.0_443"].filter_chains
    assert [list(c.filter_chain_match.server_names) for c in chains] == [["a.example.com"], ["b.example.com"]]
    assert b"outbound|9080||reviews" in chains[1].SerializeToString()
    weighted = found["0.0.0.0_31400"].filter_chains[0].SerializeToString()
    assert b"reviews" in weighted
    assert b"ratings" in weighted


@pytest.mark.parametrize(
    ("protocol", "before", "names", "first"),
    [
        ("tls", 0, [["r.example.com"], []], "productpage"),
        ("https-x", 0, [["r.example.com"], []], "productpage"),
        ("tcp", 0, [[]], "ratings"),
        ("auto-x", 1, [[]], "ratings"),
    ],
)
def test_rules_for_connections_inside_the_mesh(protocol, before, names, first, tmp_path):
    """Routes by name are for ports of TLS, the others for all that are neither of TLS nor of HTTP."""
    rules = """
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  tls: [{match: [{sniHosts: [r.example.com]}], route: [{destination: {host: productpage}}]}]
  tcp: [{route: [{destination: {host: ratings}}]}]
"""
    found = mesh.view(mesh.objects(rules, protocol=protocol))
    judge.validate(found, tmp_path)
    listener = next(m for n, m in listeners(found).items() if n == "10.96.0.2_9080")
    found = [*listener.filter_chains, listener.default_filter_chain]
    chains = [c for c in found if c.filters][before:]  # after the one for what looks like HTTP
    assert [list(c.filter_chain_match.server_names) for c in chains] == names
    assert f"outbound|9080||{first}".encode() in chains[0].SerializeToString()


def encoded(**data):
    import base64

    names_ = {"crt": "tls.crt", "key": "tls.key", "ca": "ca.crt", "crl": "ca.crl"}
    return {
        "metadata": {"namespace": "istio-system", "name": "web"},
        "data": {names_[k]: base64.b64encode(v.encode()).decode() for k, v in data.items()},
    }


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ({"crt": "x", "key": "y"}, "certificate is not PEM"),
        ({"crt": CA.certificate, "key": "y"}, "key is not the PEM"),
        ({"crt": CA.certificate, "key": pair("a").key}, "does not belong"),
        ({"ca": "nothing"}, "CA certificates are not"),
        ({"ca": CA.certificate, "crl": "nothing"}, "revocation lists are not"),
    ],
)
def test_an_invalid_secret_does_not_replace_the_last_valid_one(data, word):
    world = World("istio-system", lambda: None)
    key = ("istio-system", "web")
    own = pair("books.example.com")
    world.changed(kinds.SECRET, key, None, encoded(crt=own.certificate, key=own.key))
    good = world.objects.credentials[key]
    world.changed(kinds.SECRET, key, None, encoded(**data))
    assert world.objects.credentials[key] is good
    assert word in world.bad[kinds.SECRET.ref("istio-system", "web")]
    world.changed(kinds.SECRET, key, None, None)
    assert key not in world.objects.credentials
    assert not world.bad


HEADLESS = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: None
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
"""


def test_a_gateway_chooses_an_endpoint_of_a_headless_service():
    found = mesh.objects(HEADLESS, mesh.EVERY_CLUSTER)
    found = found.put(
        kinds.ENDPOINT_SLICE, ("default", "web"), ("web", {"http": (o.Endpoint("10.244.0.3", 9080, "p"),)})
    )
    name = "outbound|9080||web.default.svc.cluster.local"

    def cluster(*proxy):
        made = judge.messages(mesh.view(found, *proxy))
        return made[names.CDS][name], made[names.EDS].get(name)

    at_gateway, endpoints = cluster("ingress", "istio-system")
    assert at_gateway.type == at_gateway.EDS
    assert len(endpoints.endpoints) == 1
    at_sidecar, _ = cluster()
    assert at_sidecar.type == at_sidecar.ORIGINAL_DST


def test_a_gateway_sends_http_1_to_a_port_whose_protocol_nobody_names():
    def version(*proxy):
        made = judge.messages(mesh.view(mesh.objects("", mesh.EVERY_CLUSTER, protocol="web"), *proxy))
        cluster = made[names.CDS]["outbound|9080||reviews.default.svc.cluster.local"]
        options = http_protocol_options_pb2.HttpProtocolOptions()
        next(iter(cluster.typed_extension_protocol_options.values())).Unpack(options)
        return options.WhichOneof("upstream_protocol_options")

    assert version("ingress", "istio-system") == "explicit_http_config"
    assert version() == "use_downstream_protocol_config"


def test_only_what_a_redirecting_server_is_for_is_sent_to_https():
    text = """
kind: Gateway
metadata: {name: to-https}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8000, name: http, protocol: HTTP}, hosts: ['*'], tls: {httpsRedirect: true}}]
---
kind: Gateway
metadata: {name: plain}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8000, name: http, protocol: HTTP}, hosts: ['*']}]
---
kind: VirtualService
metadata: {name: a}
spec: {hosts: [a.test], gateways: [to-https, plain], http: [{directResponse: {status: 200}}]}
---
kind: VirtualService
metadata: {name: b}
spec: {hosts: [b.test], gateways: [plain], http: [{directResponse: {status: 200}}]}
"""
    found = judge.messages(mesh.view(mesh.objects(text), "ingress", "istio-system"))
    hosts = judge.routes(found, "http.8000").virtual_hosts
    assert {names.plain_host(h.name): h.require_tls == h.ALL for h in hosts} == {
        "a.test:8000": True,
        "b.test:8000": False,
        "*:8000": True,
    }


def test_https_that_a_sidecar_terminates_is_http():
    """Or policies about requests would not hold there."""
    text = """
kind: PeerAuthentication
metadata: {name: off}
spec: {mtls: {mode: DISABLE}}
---
kind: Sidecar
metadata: {name: own}
spec:
  workloadSelector: {labels: {app: productpage}}
  ingress:
  - port: {number: 8443, name: web, protocol: PROTOCOL}
    defaultEndpoint: 127.0.0.1:9080
    tls: {mode: SIMPLE, serverCertificate: /c.pem, privateKey: /k.pem}
"""
    last = {}
    for protocol in ("HTTPS", "TLS"):
        found = judge.messages(mesh.view(mesh.objects(text.replace("PROTOCOL", protocol))))
        (chain,) = (
            c
            for c in found[names.LDS]["virtualInbound"].filter_chains
            if c.filter_chain_match.destination_port.value == 8443
        )
        last[protocol] = chain.filters[-1].name.rpartition(".")[2]
    assert last == {"HTTPS": "http_connection_manager", "TLS": "tcp_proxy"}
