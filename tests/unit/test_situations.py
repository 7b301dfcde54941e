"""Further situations of Istio's messages: what produces each, what keeps it away, and how often it is said."""

import base64
import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from test_findings import GW, codes, found, gateway, injector, networking, obj, pod, server, service

from lateen.analysis import analyzers

# --- injection ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"istio-injection": "enabled", "istio.io/rev": "x"}, "[istio-injection=enabled istio.io/rev=x]"),
        ({"istio-injection": "disabled", "istio.io/rev": "x"}, ""),
        (
            {"istio-injection": "enabled", "istio.io/dataplane-mode": "ambient"},
            "[istio-injection=enabled istio.io/dataplane-mode=ambient]",
        ),
        (
            {"istio.io/rev": "x", "istio.io/dataplane-mode": "ambient"},
            "[istio.io/rev=x istio.io/dataplane-mode=ambient]",
        ),
        ({"istio.io/dataplane-mode": "ambient"}, ""),
    ],
)
def test_labels_that_ask_for_two_ways_into_the_mesh_are_named_with_their_values(labels, expected):
    got = [text for code, _, text in found("injection.Analyzer", obj("Namespace", "shop", labels=labels))]
    assert [expected in text for text in got] == ([True] if expected else [])


def test_pods_of_a_namespace_that_is_injected_by_default_are_not_told_besides():
    bare = obj("Pod", "a", {"containers": [{"name": "app", "image": "app"}]})
    got = codes(
        "injection.Analyzer", obj("Namespace", "shop"), bare, injector("istio-sidecar-injector", by_default=True)
    )
    assert got == [("IST0148", "Namespace shop")]


@pytest.mark.parametrize(
    ("image", "options", "old"),
    [
        ("hub/proxyv2:1", {}, False),
        ("hub/proxyv2:1-distroless", {}, True),
        ("hub/proxyv2:1-distroless", {"mesh": "distroless"}, False),
        ("hub/proxyv2:1-debug", {"mesh": "distroless"}, True),
        ("hub/proxyv2:1-debug", {"mesh": "distroless", "namespace": "debug"}, False),
        ("hub/proxyv2:1-debug", {"namespace": "distroless", "workload": "debug"}, False),
        ("hub/proxyv2:1-debug", {"workload": "distroless", "pod": "debug"}, False),
        ("hub/proxyv2:1-debug", {"pod": "default"}, True),
    ],
)
def test_a_proxys_image_may_be_the_variant_that_its_configuration_chooses(image, options, old):
    def config(name, variant, **more):
        spec = {"image": {"imageType": variant}, **more}
        return obj("ProxyConfig", name, spec, version="networking.istio.io/v1beta1")

    objects = [injector("istio-sidecar-injector"), obj("Namespace", "shop", labels={"istio-injection": "enabled"})]
    if "namespace" in options:
        objects.append(config("all", options["namespace"]))
    if "workload" in options:
        objects.append(config("one", options["workload"], selector={"matchLabels": {"app": "a"}}))
    own = {"proxy.istio.io/config": f"image: {{imageType: {options['pod']}}}"} if "pod" in options else {}
    objects.append(pod(image=image, labels={"app": "a"}, annotations=own))
    mesh = {"defaultConfig": {"image": {"imageType": options["mesh"]}}} if "mesh" in options else {}
    got = codes("injection.ImageAnalyzer", *objects, mesh=mesh)
    assert got == ([("IST0158", "Namespace shop")] if old else [])


# --- webhooks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "code", "says"),
    [
        ({"url": "https://istiod.shop.test:15017/inject"}, None, ""),
        ({"service": {"name": "istiod", "namespace": "istio-system"}}, None, ""),
        ({"url": "https://10.0.0.1/inject"}, "IST0164", "(https://10.0.0.1/inject)"),
        ({}, "IST0163", "is blank"),
        ({"url": "https://istiod.shop.test:port/"}, "IST0163", "was provided in an invalid format"),
        ({"url": "1.2.3.4:15017/inject"}, "IST0163", "was provided in an invalid format"),
        ({"url": "https://istiod shop/"}, "IST0163", "was provided in an invalid format"),
        ({"url": "https://nobody.knows.test/"}, None, ""),  # nothing is looked up
        ({"url": "https://istiod_1.shop.test./"}, None, ""),
        ({"url": "https://-x/"}, "IST0163", "cannot be resolved via a DNS lookup"),
        ({"url": "https://istiod.shop.invalid/"}, "IST0163", "cannot be resolved via a DNS lookup"),
        ({"url": "https:///inject"}, "IST0163", "cannot be resolved via a DNS lookup"),
        ({"url": "istiod.shop.test:15017/inject"}, "IST0163", "cannot be resolved via a DNS lookup"),
        ({"url": "https://[2001:db8::1]:15017/inject"}, "IST0164", "2001:db8::1"),
        ({"url": None}, "IST0163", "is blank"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("ValidatingWebhookConfiguration", "istio-validator-shop"),
        ("ValidatingWebhookConfiguration", "istiod-default-validator"),
        ("MutatingWebhookConfiguration", "istio-sidecar-injector-blue"),
    ],
)
def test_the_address_of_an_external_control_plane_is_a_hostname(kind, name, client, code, says):
    hook = {"name": "x.istio.io", "clientConfig": client}
    given = obj(kind, name, version="admissionregistration.k8s.io/v1", webhooks=[hook], namespace="")
    got = found("externalcontrolplane.ExternalControlPlaneAnalyzer", given)
    assert [c for c, _, _ in got] == ([code] if code else [])
    assert all(says in text for _, _, text in got)


def test_webhooks_of_other_names_count_where_they_select_by_a_revision():
    def config(name):
        hook = {
            "name": "mine.test",
            "clientConfig": {"url": "https://x.test"},
            "namespaceSelector": {"matchLabels": {"istio.io/rev": "blue"}},
        }
        return obj("MutatingWebhookConfiguration", name, version="admissionregistration.k8s.io/v1", webhooks=[hook])

    got = codes("webhook.Analyzer", config("one"), config("two"))
    assert got == [("IST0139", f"MutatingWebhookConfiguration {name}") for name in ("one", "two")]


# --- gateways ----------------------------------------------------------------------------------------------------


def certificate(days_from, days_to):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.test")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + dt.timedelta(days=days_from))
        .not_valid_after(now + dt.timedelta(days=days_to))
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    data = {"tls.crt": signed.public_bytes(pem), "tls.key": private}
    return obj("Secret", "c", data={k: base64.b64encode(v).decode() for k, v in data.items()})


@pytest.mark.parametrize(("days", "valid"), [((-2, 2), True), ((-4, -2), False), ((2, 4), False)])
def test_the_certificate_of_a_gateway_is_neither_expired_nor_for_later(days, valid):
    given = gateway("a", server("a.test", port=443, mode="SIMPLE", credentialName="c"))
    got = codes("gateway.SecretAnalyzer", GW, certificate(*days), given)
    assert got == ([] if valid else [("IST0161", "Gateway shop/a")])


def test_gateways_with_the_same_selector_conflict_before_there_are_pods():
    got = codes("gateway.ConflictingGatewayAnalyzer", gateway("a", server("a.test")), gateway("b", server("a.test")))
    assert got == [("IST0145", "Gateway shop/a"), ("IST0145", "Gateway shop/b")]


def traffic(host, **more):
    return networking("DestinationRule", "x", {"host": host, **more})


@pytest.mark.parametrize(
    ("rule", "known"),
    [
        (traffic("x.test"), False),  # exported to another namespace
        (traffic("x.test", exportTo=["mall"]), True),
        (traffic("*.test", exportTo=["mall"]), True),
        (traffic("*.other"), False),
    ],
)
def test_traffic_settings_for_a_host_that_their_namespace_does_not_see_are_told(rule, known):
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    spec = {"hosts": ["x.test"], "ports": ports, "exportTo": ["mall"]}
    entry = networking("ServiceEntry", "x", spec, namespace="out")
    got = codes("destinationrule.SubsetSelectPodAnalyzer", entry, rule)
    assert got == ([] if known else [("IST0174", "DestinationRule shop/x")])


@pytest.mark.parametrize(("labels", "told"), [({"app": "web"}, True), ({"istio": "gateway"}, False)])
def test_the_users_id_of_the_proxy_is_for_the_mesh_itself(labels, told):
    container = {"name": "app", "securityContext": {"runAsUser": 1337}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "labels": labels},
        "spec": {"containers": [container]},
    }
    assert codes("applicationUID.Analyzer", pod) == ([("IST0144", "Pod shop/web")] if told else [])


# --- virtual services --------------------------------------------------------------------------------------------


def virtual(name, *hosts, namespace="shop", to=None, **more):
    spec = {"hosts": list(hosts), **({"exportTo": to} if to else {}), **more}
    return networking("VirtualService", name, spec, namespace=namespace)


@pytest.mark.parametrize(
    ("mine", "other", "conflict"),
    [
        (("a.test", None), ("a.test", None), True),
        (("a.test", None), ("*.test", None), False),  # the more specific is served first
        (("*.a.test", None), ("*.test", None), False),
        (("*.a.test", ["."]), ("*.test", None), True),
        (("a.test", ["."]), ("*.test", None), True),
        (("a.test", ["."]), ("a.test", ["."]), False),  # of another namespace
        (("a.test", [".", "mall"]), ("a.test", ["."]), True),
    ],
)
def test_two_rules_for_a_host_of_the_mesh_conflict_where_somebody_sees_both(mine, other, conflict):
    one, two = virtual("one", mine[0], to=mine[1]), virtual("two", other[0], to=other[1], namespace="mall")
    got = codes("virtualservice.ConflictingMeshGatewayHostsAnalyzer", one, two)
    assert [code for code, _ in got] == (["IST0109"] * 2 if conflict else [])


def test_rules_that_conflict_about_several_hosts_are_told_once_with_all_of_them():
    got = found(
        "virtualservice.ConflictingMeshGatewayHostsAnalyzer", virtual("one", "a", "b"), virtual("two", "a", "b")
    )
    assert [ref for _, ref, _ in got] == ["VirtualService shop/one", "VirtualService shop/two"]
    assert "*/a.shop.svc.cluster.local,*/b.shop.svc.cluster.local" in got[0][2]


def test_a_destination_is_there_if_one_of_the_namespaces_that_the_rule_is_for_sees_it():
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    entry = networking(
        "ServiceEntry", "x", {"hosts": ["x.test"], "ports": ports, "exportTo": ["mall"]}, namespace="out"
    )
    route = [{"route": [{"destination": {"host": "x.test"}}]}]
    analyzer = "virtualservice.DestinationHostAnalyzer"
    assert codes(analyzer, entry, virtual("a", "x.test", to=["mall", "."], http=route)) == []
    assert codes(analyzer, entry, virtual("a", "x.test", http=route)) == [("IST0101", "VirtualService shop/a")]


# --- patches -----------------------------------------------------------------------------------------------------


def patch(operation, name, version="", applies="HTTP_FILTER"):
    proxy = {"proxy": {"proxyVersion": version}} if version else {}
    value = {"name": name} if name else None
    return {"applyTo": applies, "match": proxy, "patch": {"operation": operation, "value": value}}


@pytest.mark.parametrize(
    ("patches", "expected"),
    [
        ([patch("INSERT_BEFORE", "lua", "^1.11")], ["IST0151"]),
        ([patch("INSERT_BEFORE", "lua", "^1.11"), patch("INSERT_AFTER", "lua")], ["IST0151", "IST0155"]),
        ([patch("INSERT_BEFORE", "lua", "^1.11"), patch("INSERT_AFTER", "wasm")], ["IST0151"]),
        ([patch("MERGE", "lua", "^1.11"), patch("REMOVE", "lua")], ["IST0155"]),
        ([patch("ADD", "lua")], []),
        ([patch("ADD", "x", applies="HTTP_ROUTE"), patch("REMOVE", "x", applies="HTTP_ROUTE")], ["IST0153", "IST0154"]),
        ([patch("REPLACE", "x", applies="CLUSTER")], ["IST0152"]),
    ],
)
def test_a_relative_patch_depends_on_what_was_patched_before_and_for_which_proxies(patches, expected):
    given = networking("EnvoyFilter", "a", {"configPatches": patches})
    assert [code for code, _ in codes("envoyfilter.EnvoyPatchAnalyzer", given)] == expected
    first = networking("EnvoyFilter", "a", {"configPatches": patches, "priority": 10})
    assert not {"IST0151", "IST0155"} & {code for code, _ in codes("envoyfilter.EnvoyPatchAnalyzer", first)}


def test_a_name_in_a_patch_is_not_that_of_a_filter_to_match_and_nothing_follows_an_item_without_a_patch():
    def matching(operation, name, version=""):
        given = patch(operation, "", version)
        given["match"]["listener"] = {"filterChain": {"filter": {"name": name}}}
        return given | {"patch": {"operation": operation, "value": {"typed_config": {}}}}

    def told(*patches):
        given = networking("EnvoyFilter", "a", {"configPatches": list(patches)})
        return [code for code, _ in codes("envoyfilter.EnvoyPatchAnalyzer", given)]

    assert told(patch("ADD", "lua", "^1.11"), matching("REMOVE", "lua")) == ["IST0151"]
    assert told(matching("REMOVE", "lua", "^1.11"), matching("REMOVE", "lua")) == ["IST0151", "IST0155"]
    assert told({"applyTo": "HTTP_FILTER"}, patch("INSERT_BEFORE", "lua")) == []


# --- policies, services, entries ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("namespace", "labels", "matches"),
    [
        ({"istio-injection": "enabled"}, {}, True),
        ({"istio-injection": "enabled"}, {"sidecar.istio.io/inject": "false"}, False),
        ({}, {"sidecar.istio.io/inject": "true"}, True),
        ({}, {}, False),
    ],
)
def test_a_policy_is_for_pods_that_are_to_be_in_the_mesh(namespace, labels, matches):
    bare = obj("Pod", "a", {"containers": [{"name": "app"}]}, labels={"app": "a", **labels})
    spec = {"selector": {"matchLabels": {"app": "a"}}}
    policy = obj("AuthorizationPolicy", "p", spec, version="security.istio.io/v1")
    got = codes("auth.AuthorizationPoliciesAnalyzer", obj("Namespace", "shop", labels=namespace), bare, policy)
    assert got == ([] if matches else [("IST0127", "AuthorizationPolicy shop/p")])


def sidecar(name, labels=None):
    return networking("Sidecar", name, {"workloadSelector": {"labels": labels}} if labels else {})


def test_sidecars_that_select_the_same_pods_are_told_for_each_pod():
    pods = [obj("Pod", name, {}, labels={"app": "a"}) for name in ("one", "two")]
    got = found("sidecar.SelectorAnalyzer", *pods, sidecar("x", {"app": "a"}), sidecar("y", {"app": "a"}))
    assert [(code, ref) for code, ref, _ in got] == [
        ("IST0110", f"Sidecar shop/{name}") for name in ("x", "x", "y", "y")
    ]
    assert '"one"' in got[0][2]
    assert '"two"' in got[1][2]


def test_sidecars_in_ambient_mode_have_no_impact_and_do_not_conflict():
    ambient = obj("Namespace", "shop", labels={"istio.io/dataplane-mode": "ambient"})
    redirected = obj("Pod", "a", {}, labels={"app": "a"}, annotations={"ambient.istio.io/redirection": "enabled"})
    general = codes("sidecar.SelectorAnalyzer", ambient, sidecar("x"), sidecar("y"))
    chosen = codes("sidecar.SelectorAnalyzer", redirected, sidecar("x", {"app": "a"}), sidecar("y", {"app": "a"}))
    assert general == chosen == [("IST0167", "Sidecar shop/x"), ("IST0167", "Sidecar shop/y")]


@pytest.mark.parametrize(
    ("metadata", "status", "needed"),
    [
        ({}, {}, True),
        ({"ISTIO_META_DNS_CAPTURE": "true"}, {}, True),
        ({"ISTIO_META_DNS_CAPTURE": "true", "ISTIO_META_DNS_AUTO_ALLOCATE": "true"}, {}, False),
        ({"ISTIO_META_DNS_CAPTURE": "true", "PILOT_ENABLE_IP_AUTOALLOCATE": "true"}, {}, False),
        ({}, {"addresses": [{"value": "240.240.0.1"}]}, False),
    ],
)
def test_an_entry_for_connections_needs_an_address_unless_it_gets_one(metadata, status, needed):
    spec = {"hosts": ["db.test"], "ports": [{"number": n, "name": f"p{n}", "protocol": "TCP"} for n in (1, 2)]}
    entry = networking("ServiceEntry", "db", spec, status=status)
    got = codes("serviceentry.Analyzer", entry, mesh={"defaultConfig": {"proxyMetadata": metadata}})
    assert got == ([("IST0134", "ServiceEntry shop/db")] if needed else [])  # once, though it has two such ports


def test_entries_whose_protocols_differ_are_told_once_each():
    def entry(name, protocol):
        ports = [{"number": n, "name": f"p{n}", "protocol": protocol} for n in (80, 81)]
        return networking("ServiceEntry", name, {"hosts": ["a.test"], "ports": ports})

    got = codes("serviceentry.ConflictingServiceEntryProtocolAnalyzer", entry("x", "HTTP"), entry("y", "TCP"))
    assert got == [("IST0177", "ServiceEntry shop/x"), ("IST0177", "ServiceEntry shop/y")]


def test_services_are_named_with_their_namespace():
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "istio-proxy"}]}}
    deployment = obj("Deployment", "a", {"template": template}, version="apps/v1")
    two = service("a", {"port": 80, "targetPort": 9080}, {"port": 81, "targetPort": 9080})
    assert "services [shop/a] using" in found("deployment.MultiServiceAnalyzer", deployment, two)[0][2]


def test_six_policies_with_keys_are_shown_as_five_and_one_more():
    istiod = obj("Deployment", "istiod", {"template": {}}, version="apps/v1", labels={"app": "istiod"})
    policies = [obj("RequestAuthentication", f"p{n}", {}, version="security.istio.io/v1") for n in range(6)]
    (_, _, text), *_ = found("authn.BlockedCIDRsAnalyzer", istiod, *policies)
    assert "6 RequestAuthentication resource(s) exist (shop/p0" in text
    assert "shop/p4, and 1 more)" in text


def test_a_lightstep_provider_is_named():
    spec = {"tracing": [{"providers": [{"name": "ls"}]}]}
    given = obj("Telemetry", "t", spec, version="telemetry.istio.io/v1")
    mesh = {"extensionProviders": [{"name": "ls", "lightstep": {}}]}
    (_, _, text), *_ = found("telemetry.LightstepAnalyzer", given, mesh=mesh)
    assert text.endswith("The Lightstep provider ls is deprecated, please migrate to OpenTelemetry provider.")


# --- validation --------------------------------------------------------------------------------------------------


def test_each_kind_has_an_analyzer_of_its_validation():
    bad = networking("Gateway", "a", {"servers": [{"hosts": ["a.test"]}]})
    assert codes("schema.ValidationAnalyzer.Sidecar", bad) == []
    mine = codes("schema.ValidationAnalyzer.Gateway", bad)
    assert mine
    assert mine == codes("schema.ValidationAnalyzer", bad)
    assert analyzers()["schema.ValidationAnalyzer.Gateway"].on_demand  # the one of all kinds runs otherwise


def test_who_asks_for_ambient_mode_is_told_that_there_is_none():
    label = {"istio.io/dataplane-mode": "ambient"}
    asking = obj("Namespace", "shop", labels=label), obj("Pod", "a", {}, labels=label)
    injected = (
        obj("Namespace", "both", labels={**label, "istio-injection": "enabled"}),
        obj("Namespace", "out", labels={"istio.io/dataplane-mode": "none"}),
        obj("Pod", "b", {"containers": [{"name": "istio-proxy"}]}, labels=label),
    )
    got = found("injection.AmbientAnalyzer", *asking, *injected)
    assert [(code, ref) for code, ref, _ in got] == [("LAT0118", "Namespace shop"), ("LAT0118", "Pod shop/a")]
    assert "not implemented" in got[0][2]


# --- what Istio's analyzers say nothing about ----------------------------------------------------------------------


def test_a_pod_without_proxy_is_told_where_the_label_asks_for_injection_not_where_a_revision_does():
    bare = obj("Pod", "a", {"containers": [{"name": "app", "image": "app"}]})
    asked = obj("Namespace", "shop", labels={"istio-injection": "enabled"})
    by_revision = obj("Namespace", "shop", labels={"istio.io/rev": "canary"})
    assert codes("injection.Analyzer", bare, asked) == [("IST0103", "Pod shop/a")]
    assert codes("injection.Analyzer", bare, by_revision) == []


def test_the_user_of_the_proxy_is_told_for_a_whole_pod_whatever_its_containers_are():
    spec = {"securityContext": {"runAsUser": 1337}, "containers": [{"name": "istio-proxy", "image": "p"}]}
    assert codes("applicationUID.Analyzer", obj("Pod", "a", spec)) == [("IST0144", "Pod shop/a")]
    own = {"containers": [{"name": "istio-proxy", "image": "p", "securityContext": {"runAsUser": 1337}}]}
    assert codes("applicationUID.Analyzer", obj("Pod", "a", own)) == []


def test_of_two_gateways_with_one_name_istios_is_the_one_whose_hosts_count():
    listener = {"name": "http", "port": 80, "protocol": "HTTP", "hostname": "a.test"}
    kubernetes = obj("Gateway", "gw", {"listeners": [listener]}, version="gateway.networking.k8s.io/v1")
    istio = networking("Gateway", "gw", {"servers": [{"hosts": ["b.test"]}]})
    route = virtual("a", "a.test", gateways=["gw"])
    assert codes("virtualservice.GatewayAnalyzer", route, kubernetes) == []
    assert codes("virtualservice.GatewayAnalyzer", route, kubernetes, istio) == [("IST0132", "VirtualService shop/a")]


@pytest.mark.parametrize("key", ["@request.auth.claims.group", "@Request.Auth.Claims[group]"])
def test_routes_by_claims_need_tokens_however_the_header_is_spelt(key):
    spec = {"hosts": ["a.test"], "gateways": ["gw"], "http": [{"match": [{"headers": {key: {"exact": "x"}}}]}]}
    given = (networking("VirtualService", "a", spec), gateway("gw"), GW)
    assert codes("virtualservice.JWTClaimRouteAnalyzer", *given) == [("IST0149", "VirtualService shop/a")]


@pytest.mark.parametrize(("hosts", "told"), [(["reviews"], True), (["other"], False)])
def test_a_gateways_route_without_subset_is_told_of_rules_for_the_same_host_alone(hosts, told):
    split = networking(
        "VirtualService",
        "split",
        {"hosts": hosts, "http": [{"route": [{"destination": {"host": "reviews", "subset": "v1"}}]}]},
    )
    edge = networking(
        "VirtualService",
        "edge",
        {"hosts": ["a.test"], "gateways": ["gw"], "http": [{"route": [{"destination": {"host": "reviews"}}]}]},
    )
    got = codes("virtualservice.DestinationHostAnalyzer", split, edge, service("reviews"))
    assert (("IST0140", "VirtualService shop/edge") in got) is told


def test_a_policys_selector_is_looked_up_in_its_own_namespace_alone():
    labels = {"app": "edge", "gateway.networking.k8s.io/gateway-name": "edge"}
    policy = {"selector": {"matchLabels": {"app": "edge"}}}

    def of(namespace):
        return obj("AuthorizationPolicy", "p", policy, version="security.istio.io/v1", namespace=namespace)

    assert codes("k8sgateway.SelectorAnalyzer", pod(labels=labels), of("shop")) == [
        ("IST0166", "AuthorizationPolicy shop/p")
    ]
    assert codes("k8sgateway.SelectorAnalyzer", pod(labels=labels), of("istio-system")) == []


# --- as Istio's pages word it ----------------------------------------------------------------------------------------


UNVERIFIED = (
    "DestinationRule shop/db in namespace shop has TLS mode set to {} but no caCertificates are set to validate server "
    "identity for host: db.test"
)


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ({"tls": {"mode": "SIMPLE"}}, UNVERIFIED.format("SIMPLE")),
        (
            {"portLevelSettings": [{"port": {"number": 443}, "tls": {"mode": "MUTUAL"}}]},
            f"{UNVERIFIED.format('MUTUAL')} at port number:443",
        ),
    ],
)
def test_an_unverified_server_is_named_with_its_rule_and_its_port(policy, text):
    rule = networking("DestinationRule", "db", {"host": "db.test", "trafficPolicy": policy})
    assert [said for _, _, said in found("destinationrule.CaCertificateAnalyzer", rule)] == [text]


def test_versions_of_definitions_are_shown_without_a_letter():
    name = "tlsroutes.gateway.networking.k8s.io"
    spec = {"group": "gateway.networking.k8s.io", "names": {"plural": "tlsroutes", "kind": "TLSRoute"}}
    notes = {"gateway.networking.k8s.io/bundle-version": "v1.2.0"}
    crd = obj("CustomResourceDefinition", name, spec, version="apiextensions.k8s.io/v1", annotations=notes)
    assert (
        'is at version "1.2.0" but Istio requires at least "1.5.0"' in found("k8sgateway.CRDVersionAnalyzer", crd)[0][2]
    )


def test_a_servers_secret_with_nothing_but_ca_certificates_serves_nobody():
    secret = obj("Secret", "c", data={"ca.crt": certificate(-1, 1)["data"]["tls.crt"]})
    given = gateway("a", server("a.test", port=443, mode="SIMPLE", credentialName="c"))
    assert codes("gateway.SecretAnalyzer", GW, secret, given) == [("IST0161", "Gateway shop/a")]


@pytest.mark.parametrize(
    ("wanted", "known"), [("shop", True), ("sh*", True), ("*op", True), ("s*p", False), ("mall", False)]
)
def test_a_namespace_in_a_policy_has_a_wildcard_at_one_end(wanted, known):
    rules = [{"from": [{"source": {"namespaces": [wanted]}}]}]
    spec = {"selector": {"matchLabels": {"app": "gw"}}, "rules": rules}
    policy = obj("AuthorizationPolicy", "p", spec, version="security.istio.io/v1")
    enabled = obj("Namespace", "shop", labels={"istio-injection": "enabled"})
    got = codes("auth.AuthorizationPoliciesAnalyzer", enabled, GW, policy)
    assert got == ([] if known else [("IST0101", "AuthorizationPolicy shop/p")])
