"""gRPC clients without a proxy get their configuration in gRPC's own dialect of xDS."""

import judge
import meshes as mesh
import pytest
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from lateen.mesh.views import Views
from lateen.wire import names
from lateen.xds import proxyless

SLOW = """
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    timeout: 2.5s
    route: [{destination: {host: reviews}}]
  - route: [{destination: {host: reviews}}]
"""


def routes(documents):
    view = mesh.view(mesh.objects(documents, protocol="grpc"))
    (listeners,) = proxyless.generate(view.outbound)[names.LDS]
    listener = judge.message("LDS", listeners.resources["reviews.default.svc.cluster.local:9080"])
    manager = hcm.HttpConnectionManager()
    listener.api_listener.api_listener.Unpack(manager)
    return manager.route_config.virtual_hosts[0].routes


def test_a_routes_timeout_is_the_longest_duration_of_a_stream_which_grpc_reads():
    slow, rest = routes(SLOW)
    assert slow.route.max_stream_duration.max_stream_duration.ToTimedelta().total_seconds() == 2.5
    assert rest.route.max_stream_duration.HasField("max_stream_duration")
    assert rest.route.max_stream_duration.max_stream_duration.ToTimedelta().total_seconds() == 0


def test_fields_that_grpc_does_not_support_are_left_out():
    for route in routes(SLOW):
        assert not route.route.HasField("timeout")
        assert not route.route.HasField("max_grpc_timeout")
        assert not route.route.HasField("retry_policy")


SPLIT = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews}]
  rules:
  - backendRefs:
    - {name: reviews, port: 9080, filters: [MIRROR]}
    - {name: ratings, port: 9080, filters: [REWRITE]}
    - {name: nowhere, port: 9080}
    - {name: ratings, port: 9080}
"""
MIRROR = "{type: RequestMirror, requestMirror: {backendRef: {name: productpage, port: 9080}}}"
REWRITE = "{type: URLRewrite, urlRewrite: {hostname: a.test}}"


def test_each_route_has_its_share_of_what_those_before_it_have_left():
    """Each of them draws a number of its own."""
    found = routes(SPLIT.replace("MIRROR", MIRROR).replace("REWRITE", REWRITE))
    shares = [r.match.runtime_fraction.default_value.numerator / 1e6 for r in found[:-1]]
    assert shares == pytest.approx([1 / 4, 1 / 3, 1 / 2], abs=1e-5)
    assert not found[-1].match.HasField("runtime_fraction")


def view_of(documents, **more):
    return mesh.view(mesh.objects(documents, protocol="grpc", **more)).outbound


def clients_tls(view, name="outbound|9080||reviews.default.svc.cluster.local"):
    (clusters,) = proxyless.generate(view)[names.CDS]
    found = judge.message("CDS", clusters.resources[name])
    if not found.HasField("transport_socket"):
        return None
    context = tls_pb2.UpstreamTlsContext()
    assert found.transport_socket.name == "envoy.transport_sockets.tls"  # gRPC refuses another name
    assert found.transport_socket.typed_config.Unpack(context)
    return context.common_tls_context


RULE = """
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy: {tls: {mode: MODE}}
  subsets: [{name: v1, labels: {version: v1}}]
"""


def test_clients_use_the_agents_certificate_and_expect_the_servers_identities():
    common = clients_tls(view_of(""))
    assert common.tls_certificate_provider_instance.instance_name == "default"
    expected = common.combined_validation_context.default_validation_context
    assert expected.ca_certificate_provider_instance.instance_name == "default"
    assert [m.exact for m in expected.match_subject_alt_names] == ["spiffe://cluster.local/ns/default/sa/sa-reviews"]


def test_rules_decide_about_mutual_tls_of_clients_and_its_subsets():
    for subset in ("", "v1"):
        name = f"outbound|9080|{subset}|reviews.default.svc.cluster.local"
        assert clients_tls(view_of(RULE.replace("MODE", "ISTIO_MUTUAL"), meshed=False), name) is not None
        assert clients_tls(view_of(RULE.replace("MODE", "DISABLE")), name) is None


def test_clients_send_plain_text_to_servers_without_proxies():
    assert clients_tls(view_of("", meshed=False)) is None


def server(documents="", meshed=False, address="0.0.0.0:9080"):
    """The only chain of the listener of a gRPC server of ratings."""
    views = Views(mesh.Mesh(mesh.objects(documents, meshed=meshed, protocol="grpc")))
    pod = views.mesh.objects.pods["default", "ratings-v1"]
    found = proxyless.with_servers(proxyless.generate(views.outbound("default")), *views.served(pod))
    known = {n: r for resources in found[names.LDS] for n, r in resources.resources.items()}
    listener = judge.message("LDS", known[f"xds.istio.io/grpc/lds/inbound/{address}"])
    at = listener.address.socket_address
    assert address == (f"[{at.address}]:{at.port_value}" if ":" in at.address else f"{at.address}:{at.port_value}")
    (chain,) = listener.filter_chains
    return chain


def servers_tls(chain):
    context = tls_pb2.DownstreamTlsContext()
    return context if chain.transport_socket.typed_config.Unpack(context) else None


MODE = """
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: MODE}}
"""


@pytest.mark.parametrize(
    ("mode", "labelled", "secure"),
    [
        ("STRICT", False, True),
        ("STRICT", True, True),
        ("PERMISSIVE", False, False),
        ("PERMISSIVE", True, True),
        ("DISABLE", True, False),
    ],
)
def test_a_server_takes_mutual_tls_or_plain_text(mode, labelled, secure):
    found = servers_tls(server(MODE.replace("MODE", mode), labelled))
    assert (found is not None) == secure
    if found is not None:
        assert found.require_client_certificate.value
        expected = found.common_tls_context.combined_validation_context.default_validation_context
        assert expected.ca_certificate_provider_instance.instance_name == "default"
        assert not expected.match_subject_alt_names  # which gRPC's servers refuse


@pytest.mark.parametrize("address", ["0.0.0.0:9080", "[::]:9080", "127.0.0.1:9080", "10.244.0.6:9080"])
def test_a_server_may_listen_at_any_address_of_its_pod(address):
    assert server(address=address).filters


def checks(documents, mode="STRICT"):
    """The rules that a server checks, by order."""
    manager = hcm.HttpConnectionManager()
    server(documents + "---" + MODE.replace("MODE", mode)).filters[0].typed_config.Unpack(manager)
    *found, router = manager.http_filters
    assert router.name == "envoy.filters.http.router"
    assert len({f.name for f in manager.http_filters}) == len(manager.http_filters)  # else gRPC refuses all
    out = []
    for one in found:
        made = http_rbac.RBAC()
        one.typed_config.Unpack(made)
        out.append(made.rules)
    return out


POLICY = """
kind: AuthorizationPolicy
metadata: {name: p}
spec:
  action: ACTION
  rules: [RULE]
"""


def rules(action, rule):
    strangers, found = checks(POLICY.replace("ACTION", action).replace("RULE", rule))
    assert rbac_pb2.RBAC.Action.Name(strangers.action) == "DENY"
    (only,) = found.policies.values()
    return found.action, only


def test_policies_are_checked_by_servers():
    action, only = rules("ALLOW", "{from: [{source: {principals: [cluster.local/ns/default/sa/a]}}]}")
    assert action == rbac_pb2.RBAC.ALLOW
    assert only.principals[0].authenticated.principal_name.exact == "spiffe://cluster.local/ns/default/sa/a"


def test_clients_of_other_trust_domains_are_denied_over_mutual_tls():
    (strangers,) = checks("")
    known = strangers.policies["other-trust-domains"].principals[0].not_id.or_ids.ids
    assert [k.authenticated.principal_name.prefix for k in known] == ["spiffe://cluster.local/"]
    assert checks("", "DISABLE") == []


CANNOT = (
    "{from: [{source: {requestPrincipals: [a/b]}}]}",
    '{when: [{key: "request.headers[grpc-timeout]", values: ["1"]}]}',
    "{when: [{key: connection.sni, values: [a.test]}]}",
)


@pytest.mark.parametrize("rule", CANNOT)
def test_what_grpc_cannot_check_denies_and_allows_nothing(rule):
    _, denied = rules("DENY", rule)
    assert any(p.any for p in denied.permissions)
    assert "any: true" in str(denied.principals)
    assert "not_" not in str(denied)
    _, allowed = rules("ALLOW", rule)
    assert "not_" in str(allowed)


def test_templates_of_paths_are_regular_expressions_for_grpc():
    _, only = rules("ALLOW", '{to: [{operation: {paths: ["/a.A/{*}/{**}/b"]}}]}')
    assert only.permissions[0].url_path.path.safe_regex.regex == r"/a\.A/[^/]+/.*/b"


def test_regular_expressions_have_no_single_bytes_which_some_languages_lack():
    _, only = rules("ALLOW", r"""{from: [{source: {principals: ["*"]}}], to: [{operation: {paths: ["*"]}}]}""")
    assert r"\C" not in str(only)
    assert only.principals[0].authenticated.principal_name.safe_regex.regex == "(?s:.)+"


def test_a_custom_policy_denies_what_it_matches_because_grpc_asks_nobody():
    custom = POLICY.replace("ACTION", "CUSTOM").replace("RULE", "{}") + "  provider: {name: ask}\n"
    _, found = checks(custom)
    assert found.action == rbac_pb2.RBAC.DENY
    assert len(found.policies) == 1


def test_audits_decide_nothing():
    assert len(checks(POLICY.replace("ACTION", "AUDIT").replace("RULE", "{}"))) == 1


SECURED = """
kind: SecurityPolicy
metadata: {name: s}
spec:
  targetRefs: [{group: "", kind: Service, name: ratings}]
  PART
"""


@pytest.mark.parametrize(
    ("part", "denied"),
    [
        ("apiKeyAuth: {credentialRefs: [{name: keys}], extractFrom: [{headers: [x-key]}]}", True),
        ("authorization: {rules: [{name: near, action: Allow, principal: {clientCIDRs: [10.0.0.0/8]}}]}", True),
        ("cors: {allowOrigins: ['https://a.test']}", False),
    ],
)
def test_a_security_policy_lets_nobody_in_because_grpc_cannot_ask_for_anything(part, denied):
    found = checks(SECURED.replace("PART", part), "DISABLE")
    assert [(r.action, list(r.policies)) for r in found] == (
        [(rbac_pb2.RBAC.DENY, ["ns[default]-policy[SecurityPolicy/s]-no-proxy"])] if denied else []
    )
    if denied:
        (only,) = found[0].policies.values()
        assert only.permissions[0].any
        assert only.principals[0].any
