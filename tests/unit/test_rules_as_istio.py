"""Which of several rules holds, and what they make of clusters and connections: what Istio's source decides where users
have written more than one thing."""

import judge
import pytest
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from meshes import EVERY_CLUSTER, objects, view

from lateen.wire import names

REVIEWS = "reviews.default.svc.cluster.local"


def clusters(found, name="productpage-v1", namespace="default"):
    return judge.messages(view(found, name, namespace))[names.CDS]


RULE = """
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{host: "{host}", {rest}}}
"""


def rule(name, rest, host="reviews", namespace="default"):
    return RULE.format(name=name, rest=rest, host=host, namespace=namespace)


def timeouts(found, *subsets, name="productpage-v1", namespace="default"):
    made = clusters(found, name, namespace)
    return [made[f"outbound|9080|{s}|{REVIEWS}"].connect_timeout.seconds for s in subsets]


def within(seconds):
    return f"trafficPolicy: {{connectionPool: {{tcp: {{connectTimeout: {seconds}s}}}}}}"


def test_the_older_of_two_destination_rules_has_the_settings_and_both_have_subsets():
    older = rule("old", f"{within(1)}, subsets: [{{name: v1, labels: {{version: v1}}}}]")
    newer = rule("new", f"{within(2)}, subsets: [{{name: v2, labels: {{version: v2}}}}]")
    assert timeouts(objects(f"{older}---{newer}"), "", "v1", "v2") == [1, 1, 1]


def test_a_later_destination_rule_does_not_override_a_subset_of_an_earlier_one():
    older = rule("old", f"subsets: [{{name: v1, labels: {{version: v1}}, {within(3)}}}]")
    newer = rule("new", f"{within(2)}, subsets: [{{name: v1, labels: {{version: v2}}, {within(4)}}}]")
    assert timeouts(objects(f"{older}---{newer}"), "", "v1") == [2, 3]


def test_of_two_subsets_of_one_name_in_a_rule_the_first_has_the_servers_and_the_settings():
    twice = f"{{name: v, labels: {{version: v1}}, {within(1)}}}, {{name: v, labels: {{version: v2}}, {within(2)}}}"
    found = objects(rule("a", f"subsets: [{twice}]"))
    assert timeouts(found, "v") == [1]
    (endpoints,) = (e for e in view(found).outbound.endpoints if e.cluster == f"outbound|9080|v|{REVIEWS}")
    assert [dict(i.labels)["version"] for i in endpoints.endpoints] == ["v1"]


def test_a_rule_for_the_whole_mesh_does_not_hide_a_services_subsets_from_the_gateway_beside_it():
    """The ingress gateway is in istio-system, where rules such as *.local are, too."""
    whole = rule("default", within(7), "*.local", "istio-system")
    own = rule("reviews", f"{within(1)}, subsets: [{{name: v1, labels: {{version: v1}}}}]")
    route = """
kind: Gateway
metadata: {name: web, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews.example.com]
  gateways: [istio-system/web]
  http: [{route: [{destination: {host: reviews, subset: v1}}]}]
"""
    found = objects(f"{whole}---{own}---{route}")
    assert timeouts(found, "v1", name="ingress", namespace="istio-system") == [1]
    assert clusters(found)["outbound|9080||ratings.default.svc.cluster.local"].connect_timeout.seconds == 7


def test_a_rule_that_the_root_namespace_keeps_to_itself_is_for_its_own_gateway():
    own = rule("mine", f"{within(5)}, exportTo: ['.']", REVIEWS, "istio-system")
    found = objects("---".join([own, rule("reviews", within(1))]), EVERY_CLUSTER)
    assert timeouts(found, "") == [1]
    assert timeouts(found, "", name="ingress", namespace="istio-system") == [5]


def pool(rest):
    return f"trafficPolicy: {{connectionPool: {{{rest}}}}}"


LIMITED = pool("tcp: {maxConnections: 3}, http: {h2UpgradePolicy: UPGRADE}")
SIDECAR = """
kind: Sidecar
metadata: {name: reviews}
spec:
  workloadSelector: {labels: {app: reviews}}
  inboundConnectionPool: {tcp: {maxConnections: 9}}
"""


@pytest.mark.parametrize(("rules", "most"), [((LIMITED,), 3), ((LIMITED, SIDECAR), 9)])
def test_a_destination_rules_limits_hold_at_the_server_too_unless_a_sidecar_has_some(rules, most):
    documents = [rule("reviews", rules[0]), *rules[1:]]
    own = clusters(objects("---".join(documents)), "reviews-v1")["inbound|9080||"]
    assert own.circuit_breakers.thresholds[0].max_connections.value == most
    assert spoken(own) == "http_protocol_options"  # the application is spoken to as before


def spoken(cluster):
    """The version of HTTP that a cluster's servers are spoken to in."""
    options = http_protocol_options_pb2.HttpProtocolOptions()
    next(iter(cluster.typed_extension_protocol_options.values())).Unpack(options)
    found = options.WhichOneof("upstream_protocol_options")
    return options.explicit_http_config.WhichOneof("protocol_config") if found == "explicit_http_config" else found


def announced(cluster):
    """The ALPN values of its TLS."""
    context = tls_pb2.UpstreamTlsContext()
    cluster.transport_socket.typed_config.Unpack(context)
    return list(context.common_tls_context.alpn_protocols)


@pytest.mark.parametrize(("tls", "alpn"), [("", ["istio-http/1.1", "istio"]), (", tls: {mode: SIMPLE, sni: a}", [])])
def test_where_the_clients_version_of_http_is_kept_tls_does_not_announce_another(tls, alpn):
    found = rule("reviews", f"trafficPolicy: {{connectionPool: {{http: {{useClientProtocol: true}}}}{tls}}}")
    made = clusters(objects(found))[f"outbound|9080||{REVIEWS}"]
    assert spoken(made) == "use_downstream_protocol_config"
    assert announced(made) == alpn


@pytest.mark.parametrize(
    ("policy", "version"), [("UPGRADE", "http2_protocol_options"), ("DEFAULT", "use_downstream_protocol_config")]
)
def test_a_rule_upgrades_requests_to_a_port_of_unknown_protocol(policy, version):
    found = rule("reviews", pool(f"http: {{h2UpgradePolicy: {policy}}}"))
    assert spoken(clusters(objects(found, protocol="web"))[f"outbound|9080||{REVIEWS}"]) == version


GATEWAY = """
kind: Gateway
metadata: {name: web, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: ["reviews.example.com"]
  gateways: [istio-system/web, mesh]
  http:
  - match: [{uri: {prefix: /some}}]
    route: [{destination: {host: reviews}, weight: 50}, {destination: {host: ratings}, weight: 50}]
  - route: [{destination: {host: reviews}}]
"""


@pytest.mark.parametrize(("protocol", "marked"), [("web", True), ("http", False)])
def test_a_server_is_told_of_requests_from_gateways_to_a_port_whose_protocol_nobody_names(protocol, marked):
    """Otherwise its sidecar takes them for plain connections: policies about requests deny them all."""
    made = judge.messages(view(objects(GATEWAY, protocol=protocol), "ingress", "istio-system"))
    (host,) = judge.routes(made, "http.8080").virtual_hosts
    several, one = host.routes
    told = [one, *several.route.weighted_clusters.clusters]
    assert ["envoy.filters.http.set_filter_state" in t.typed_per_filter_config for t in told] == [marked] * 3


def routed(name, host, routes, namespace="default"):
    return f"""
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{hosts: ["{host}"], gateways: [istio-system/web], http: [{routes}]}}
"""


def at_gateway(documents):
    """(name of each route, its cluster) of the only host at the gateway."""
    made = judge.messages(view(objects(documents), "ingress", "istio-system"))
    (host,) = judge.routes(made, "http.8080").virtual_hosts
    return [(r.name, r.route.cluster) for r in host.routes]


DOOR = GATEWAY.split("---")[0]


@pytest.mark.parametrize("whole", ["", "match: [{uri: {prefix: /}}], ", 'match: [{uri: {regex: ".*"}}], '])
def test_a_route_for_all_requests_comes_after_those_of_newer_rules_for_the_same_host(whole):
    """Teams have the paths of a host in VirtualServices of their own, beside one for everything else."""
    older = routed("site", "shop.test", f"{{name: rest, {whole}route: [{{destination: {{host: ratings}}}}]}}")
    newer = routed(
        "login", "shop.test", "{name: login, match: [{uri: {prefix: /login}}], route: [{destination: {host: reviews}}]}"
    )
    assert [n for n, _ in at_gateway(f"{DOOR}---{older}---{newer}")] == ["login", "rest"]


FRONT = "match: [{uri: {prefix: /}}], route: [{destination: {host: productpage}}]"
ADMIN = "match: [{uri: {prefix: /admin}}], route: [{destination: {host: reviews}}]"


@pytest.mark.parametrize(
    ("rules", "reached"),
    [
        ([f"{{name: front, {FRONT}}}, {{name: admin, {ADMIN}}}"], ["front"]),
        (["{name: x, match: [{uri: {prefix: /}}, {uri: {prefix: /admin}}], " + FRONT.split("], ")[1] + "}"], ["x"]),
        ([f"{{name: a, {FRONT}}}, {{name: hidden, {ADMIN}}}", f"{{name: admin, {ADMIN}}}"], ["admin", "a"]),
    ],
)
def test_what_stands_after_a_route_for_everything_in_the_same_rule_is_not_reachable_at_a_gateway(rules, reached):
    """/admin is behind the front page, which takes every request; only rules of other teams come before that."""
    documents = [routed(f"rule-{i}", "shop.test", text) for i, text in enumerate(rules)]
    assert [n for n, _ in at_gateway("---".join([DOOR, *documents]))] == reached


def test_objects_of_the_same_second_have_precedence_by_name_and_then_by_namespace():
    from lateen.api import kinds
    from lateen.api.objects import Resource

    def made(kind, namespace, name):
        return Resource(kind.ref(namespace, name), "u", "1", "2026-01-01T00:00:00Z", kind.spec())

    rules = [made(kinds.VIRTUAL_SERVICE, *key) for key in (("a", "z"), ("b", "y"))]
    assert [r.ref.name for r in sorted(rules, key=lambda r: r.age_order)] == ["y", "z"]
    routes = [made(kinds.HTTP_ROUTE, *key) for key in (("b", "y"), ("a", "z"))]
    assert [r.ref.name for r in sorted(routes, key=lambda r: r.age_order)] == ["z", "y"]


EGRESS = """
kind: Sidecar
metadata: {name: narrow}
spec:
  workloadSelector: {labels: {app: productpage}}
  egress:
  - {port: {number: 9080, protocol: HTTP, name: http}, hosts: [./reviews.default.svc.cluster.local]}
  - hosts: ["*/*"]
"""
SEEN = """
kind: VirtualService
metadata: {name: reviews}
spec: {hosts: [reviews], http: [{route: [{destination: {host: ratings}}]}]}
"""


ALONE = EGRESS.replace("[./reviews.default.svc.cluster.local]", "[./ratings.default.svc.cluster.local]")
BOUND = EGRESS.replace(
    "{port: {number: 9080, protocol: HTTP, name: http}",
    "{bind: 127.0.0.1, port: {number: 9999, protocol: HTTP, name: http}",
)
ELSEWHERE = EGRESS.replace("number: 9080", "number: 9999").partition("  - hosts")[0]
LED = SEEN.replace("hosts: [reviews]", "hosts: [elsewhere.test]").replace("host: ratings", "host: reviews")


@pytest.mark.parametrize(
    ("documents", "called"),
    [
        ((EGRESS,), ["reviews"]),
        ((EGRESS, SEEN), ["reviews"]),
        ((ALONE, LED), ["ratings"]),
        ((BOUND,), ["productpage", "ratings", "reviews"]),
        ((BOUND.partition("  - hosts")[0],), []),
        ((ELSEWHERE,), []),
    ],
)
def test_at_a_port_that_an_egress_listener_names_only_its_hosts_are_exposed(documents, called):
    """What a rule leads to, and what a listener with an address of its own leads to, only has clusters."""
    made = judge.messages(view(objects("---".join(documents))))
    at = {n.partition(":")[0] for n in made[names.VHDS] if n.startswith("9080/")}
    assert sorted(n.split("/")[1].split(".")[0] for n in at) == called
    assert f"outbound|9080||{REVIEWS}" in made[names.CDS]


TWINS = """
kind: ServiceEntry
metadata: {name: %s}
spec:
  hosts: [%s.example.com]
  addresses: [10.1.2.3]
  ports: [{number: 9080, name: web}]
  resolution: STATIC
  endpoints: [{address: 10.9.9.9}]
"""


def routes_at(made, listener):
    """The route configuration of a listener's requests."""
    from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

    manager = hcm.HttpConnectionManager()
    made[names.LDS][listener].filter_chains[0].filters[-1].typed_config.Unpack(manager)
    return manager.rds.route_config_name


def test_requests_to_the_address_of_a_service_are_its_own_whatever_host_they_name_where_the_protocol_is_looked_at():
    """A proxy or a test in front of it keeps the Host of its own clients."""
    made = judge.messages(view(objects(protocol="web")))
    name = routes_at(made, "10.96.0.2_9080")
    assert name == f"{REVIEWS}:9080"
    (host,) = judge.routes(made, name).virtual_hosts
    assert (list(host.domains), host.routes[0].route.cluster) == (["*"], f"outbound|9080||{REVIEWS}")


def test_hosts_that_share_an_address_are_told_apart_by_the_host_of_requests():
    made = judge.messages(view(objects("---".join([TWINS % ("a", "a"), TWINS % ("b", "b")]))))
    assert routes_at(made, "10.1.2.3_9080") == "9080"


DATABASE = """
kind: ServiceEntry
metadata: {name: %s}
spec:
  hosts: [%s.example.com]
  ports: [{number: 3306, name: mysql, protocol: MYSQL}]
  resolution: DNS
"""
LISTENER = """
kind: Sidecar
metadata: {name: bound}
spec:
  egress:
  - {bind: 127.0.0.1, captureMode: NONE, port: {number: 3306, protocol: MYSQL, name: db}, hosts: ["./*"]}
"""


@pytest.mark.parametrize(("more", "listener"), [((), "0.0.0.0_3306"), ((LISTENER,), "127.0.0.1_3306")])
@pytest.mark.parametrize(("older", "newer"), [("a", "b"), ("b", "a")])
def test_a_new_database_does_not_take_the_connections_of_an_older_one_that_nothing_tells_apart(
    older, newer, more, listener
):
    """Nor does another service whose only port is another one, at a listener for every service of a namespace."""
    entries = [DATABASE % (name, name) for name in (older, newer)]  # the test's objects are made in this order
    made = judge.messages(view(objects("---".join([*entries, *more]))))[names.LDS][listener]
    found = [made.default_filter_chain] if made.HasField("default_filter_chain") else made.filter_chains
    assert [f"outbound|3306||{older}.example.com".encode() in c.filters[-1].typed_config.value for c in found] == [True]


@pytest.mark.parametrize(("address", "place"), [("10.5.0.7/32", "10.5.0.7"), ("10.5.0.0/31", "0.0.0.0")])
def test_a_range_of_one_address_is_that_address(address, place):
    entry = (DATABASE % ("db", "db")).replace("  ports:", f"  addresses: [{address}]\n  ports:")
    listeners = judge.messages(view(objects(entry)))[names.LDS]
    assert [n for n in listeners if n.endswith("_3306")] == [f"{place}_3306"]


def test_an_address_and_a_range_of_it_alone_are_one_domain_which_the_older_entry_has():
    entries = [
        (DATABASE % (name, name))
        .replace("name: mysql, protocol: MYSQL", "name: http, protocol: HTTP")
        .replace("  ports:", f"  addresses: [{address}]\n  ports:")
        for name, address in (("a", "10.5.0.7/32"), ("b", "10.5.0.7"))
    ]
    hosts = judge.routes(judge.messages(view(objects("---".join(entries)))), "3306").virtual_hosts
    assert [h.routes[0].route.cluster for h in hosts if "10.5.0.7" in h.domains] == ["outbound|3306||a.example.com"]


ALIAS = """
apiVersion: v1
kind: Service
metadata: {name: bank, namespace: default}
spec: {type: ExternalName, externalName: a.example.com}
"""


def test_tls_may_ask_for_a_service_by_the_name_of_its_alias():
    entries = [(DATABASE % (n, n)).replace("name: mysql, protocol: MYSQL", "name: tls, protocol: TLS") for n in "ab"]
    chains = judge.messages(view(objects("---".join([*entries, ALIAS]))))[names.LDS]["0.0.0.0_3306"].filter_chains
    alias = {"bank.default.svc.cluster.local", "bank.default", "bank.default.svc"}
    assert [set(c.filter_chain_match.server_names) for c in chains] == [
        {"a.example.com", *alias},
        {"b.example.com"},
    ]


def test_an_entry_that_is_not_resolved_leads_to_its_target_port():
    entry = """
kind: ServiceEntry
metadata: {name: db}
spec:
  hosts: [db.example.com]
  addresses: [10.5.0.0/16]
  ports: [{number: 3306, targetPort: 13306, name: tcp, protocol: TCP}]
  resolution: NONE
"""
    made = clusters(objects(entry))["outbound|3306||db.example.com"]
    assert made.original_dst_lb_config.upstream_port_override.value == 13306


@pytest.mark.parametrize(
    ("name", "app", "expected"),
    [
        ("", "", "auto"),
        ("web", "", "auto"),
        ("http", "", "http"),
        ("http-web", "", "http"),
        ("httpweb", "", "auto"),
        ("grpc-web-x", "", "http"),
        ("x", "grpc-api", "grpc"),
        ("http", "custom.example.com/thing", "auto"),
        ("http", "kubernetes.io/wss", "tls"),
        ("redis", "", "redis"),
    ],
)
def test_the_protocol_of_a_port_is_the_word_before_the_first_hyphen(name, app, expected):
    """A word that means nothing to Istio leaves the protocol to be found out, also in appProtocol."""
    from lateen.api.objects import ServicePort
    from lateen.mesh.protocols import protocol

    assert protocol(ServicePort(name, 9000, 9000, "TCP", app)) == expected


def one_route(rest):
    found = f"""
kind: VirtualService
metadata: {{name: reviews}}
spec: {{hosts: [reviews], http: [{{{rest}}}]}}
"""
    hosts = judge.routes(judge.messages(view(objects(found))), "9080").virtual_hosts
    return next(h for h in hosts if REVIEWS in h.name).routes[0]


def test_case_is_ignored_in_exact_paths_and_prefixes_but_not_in_regular_expressions():
    text = "match: [{uri: {regex: /Some.*}, ignoreUriCase: true}], route: [{destination: {host: ratings}}]"
    assert one_route(text).match.safe_regex.regex == "/Some.*"


def test_a_mirror_gets_the_host_that_was_asked_for_and_is_no_part_of_traces():
    text = "route: [{destination: {host: ratings}}], mirror: {host: productpage}"
    (mirror,) = one_route(text).route.request_mirror_policies
    assert mirror.disable_shadow_host_suffix_append
    assert (mirror.HasField("trace_sampled"), mirror.trace_sampled.value) == (True, False)


@pytest.mark.parametrize(
    ("route", "host"),
    [
        ("rewrite: {authority: a.test}", "a.test"),
        ("headers: {request: {set: {Host: c.test}}}", "c.test"),
        ("headers: {request: {set: {Host: c.test}, add: {':authority': d.test}}}", "c.test"),
        ("name: x", "b.test"),
    ],
)
def test_the_host_of_a_route_precedes_that_of_its_only_destination(route, host):
    text = f"{route}, route: [{{destination: {{host: ratings}}, headers: {{request: {{set: {{Host: b.test}}}}}}}}]"
    assert one_route(text).route.host_rewrite_literal == host


@pytest.mark.parametrize(
    ("hosts", "ports"),
    [
        ("[shop.test]", ["80"]),
        ("[shop.test, reviews]", ["9080"]),
        ('[shop.test, "*.default.svc.cluster.local"]', ["9080"]),
        ("[shop.test, nowhere]", ["80"]),
    ],
)
def test_a_name_without_a_service_is_routed_at_the_ports_of_the_services_beside_it(hosts, ports):
    found = f"""
kind: VirtualService
metadata: {{name: reviews}}
spec: {{hosts: {hosts}, http: [{{route: [{{destination: {{host: ratings}}}}]}}]}}
"""
    made = judge.messages(view(objects(found)))
    assert [n.partition("/")[0] for n in sorted(made[names.VHDS]) if "shop.test" in n] == ports


def test_a_name_beside_a_port_of_unknown_protocol_gets_no_listener_of_its_own():
    """It would take the port's connections to all addresses for requests."""
    found = objects(SEEN.replace("hosts: [reviews]", "hosts: [shop.test, reviews]"), protocol="web")
    made = judge.messages(view(found))
    assert [n for n in made[names.VHDS] if "shop.test" in n] == []
    assert "0.0.0.0_9080" not in made[names.LDS]


PARTS = """
kind: ServiceEntry
metadata: {name: exact}
spec: {hosts: [x-b.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
kind: ServiceEntry
metadata: {name: parts}
spec: {hosts: ["*-c.example.com"], ports: [{number: 443, name: tls, protocol: TLS}], resolution: NONE}
---
kind: VirtualService
metadata: {name: parts}
spec: {hosts: ["*-b.example.com"], http: [{route: [{destination: {host: reviews}}]}]}
---
kind: DestinationRule
metadata: {name: parts}
spec: {host: "*-b.example.com", trafficPolicy: {connectionPool: {tcp: {connectTimeout: 7s}}}}
"""


def test_a_wildcard_for_a_part_of_a_label_covers_hosts_and_breaks_no_listener(tmp_path):
    """Envoy refuses all listeners where one of them names a part of a label for TLS."""
    found = view(objects(PARTS))
    judge.validate(found, tmp_path)
    made = judge.messages(found)
    host = made[names.VHDS]["80/x-b.example.com:80"]
    assert host.routes[0].route.cluster == f"outbound|9080||{REVIEWS}"
    assert made[names.CDS]["outbound|80||x-b.example.com"].connect_timeout.seconds == 7


def test_who_writes_such_a_wildcard_for_tls_is_told():
    from lateen.api import validate
    from lateen.kit import yamldoc

    docs = [{"apiVersion": "networking.istio.io/v1", **d} for d in yamldoc.objects(PARTS)]
    told = [w for d in docs for w in validate.warnings(d)]
    assert any("*.example.com" in str(w) for w in told), told
