"""Situations that Istio's messages are about, one analyzer after the other, in a user's words."""

import pytest

from lateen.analysis import Snapshot, Source, analyze
from lateen.api import reading
from lateen.api.annotations import problems
from lateen.inject import required


def obj(kind, name, spec=None, *, version="v1", namespace="shop", labels=None, annotations=None, **more):
    meta = {"name": name, "labels": labels or {}, "annotations": annotations or {}}
    if kind not in ("Namespace", "MutatingWebhookConfiguration", "CustomResourceDefinition", "Node"):
        meta["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": meta, **({} if spec is None else {"spec": spec}), **more}


def networking(kind, name, spec, **more):
    return obj(kind, name, spec, version="networking.istio.io/v1", **more)


def found(analyzer, *objects, **options):
    return [(m.kind.code, m.source.ref, m.text) for m in analyze(Snapshot(map(Source, objects), **options), [analyzer])]


def codes(analyzer, *objects, **options):
    return sorted((code, ref) for code, ref, _ in found(analyzer, *objects, **options))


# --- annotations -------------------------------------------------------------------------------------------------

ANNOTATIONS = "annotations.K8sAnalyzer"
EFFECTS = "annotations.EffectAnalyzer"


@pytest.mark.parametrize(
    ("kind", "annotation", "expected"),
    [
        ("Pod", {"sidecar.istio.io/logLvl": "debug"}, ["IST0108"]),
        ("Namespace", {"sidecar.istio.io/logLevel": "debug"}, ["IST0107"]),
        ("Service", {"sidecar.istio.io/inject": "true"}, ["IST0107", "IST0135"]),
        ("Deployment", {"sidecar.istio.io/inject": "true"}, ["IST0107", "IST0135"]),
        ("Pod", {"sidecar.istio.io/inject": "true"}, ["IST0135"]),
        ("Pod", {"traffic.sidecar.istio.io/includeInboundPorts": "80,x"}, ["IST0125"]),
        ("Pod", {"sidecar.istio.io/interceptionMode": "tproxy"}, ["IST0125"]),
        ("Service", {"networking.istio.io/exportTo": "."}, []),
        ("Namespace", {"topology.istio.io/controlPlaneClusters": "one"}, []),
        ("Namespace", {"galley.istio.io/analyze-suppress": "IST0102"}, []),
        ("Pod", {"kubectl.kubernetes.io/restartedAt": "now"}, []),
        ("Deployment", {"istio.io/rev": "canary", "sidecar.istio.io/status": "{}"}, []),  # copied from a pod
    ],
)
def test_an_annotation_is_known_in_its_place_and_readable(kind, annotation, expected):
    given = obj(kind, "a", {}, version="apps/v1" if kind == "Deployment" else "v1", annotations=annotation)
    assert sorted(code for code, _, _ in found(ANNOTATIONS, given)) == expected


def test_whoever_has_the_label_beside_the_deprecated_annotation_is_not_told_again():
    both = {"sidecar.istio.io/inject": "true"}
    assert found(ANNOTATIONS, obj("Pod", "a", {}, labels=both, annotations=both)) == []


def test_analyze_says_of_a_pod_what_the_injection_webhook_says():
    given = {
        "traffic.sidecar.istio.io/excludeOutboundPorts": "abc",
        "sidecar.istio.io/statsCompression": "true",
        "sidecar.istio.io/inject": "yes",
    }
    carrier = obj("Pod", "a", {}, annotations=given)
    by_istio, ours = (found(name, carrier) for name in (ANNOTATIONS, EFFECTS))
    for problem in problems(given):
        assert any(problem.says in text for _, _, text in (by_istio if problem.error else ours))
    assert len(problems(given)) == 3
    assert {code for code, _, _ in by_istio} == {"IST0125", "IST0135"}
    assert {code for code, _, _ in ours} == {"LAT0110"}


def test_the_annotations_of_a_deployments_pods_are_read_before_there_are_any():
    template = {"metadata": {"annotations": {"sidecar.istio.io/logLvl": "debug"}}}
    got = found(EFFECTS, obj("Deployment", "a", {"template": template}, version="apps/v1"))
    assert [code for code, _, _ in got] == ["LAT0110"]
    assert 'did you mean "sidecar.istio.io/logLevel"?' in got[0][2]


def test_alpha_annotations_are_noise_unless_somebody_asks_for_them():
    pod = obj("Pod", "a", {}, annotations={"sidecar.istio.io/proxyCPU": "100m"})
    assert analyze(Snapshot([Source(pod)])) == []
    assert codes("annotations.AlphaAnalyzer", pod) == [("IST0136", "Pod shop/a")]


@pytest.mark.parametrize(
    ("label", "annotation", "expected"),
    [
        ("true", None, True),
        ("false", None, False),
        ("True", None, None),
        ("yes", None, None),
        ("", "true", None),
        (None, "true", True),
        ("false", "true", False),
        (None, None, None),
    ],
)
def test_a_pod_says_true_or_false_about_injection_or_nothing(label, annotation, expected):
    labels = {} if label is None else {reading.INJECT: label}
    annotations = {} if annotation is None else {reading.INJECT: annotation}
    assert reading.opted(labels, annotations) is expected
    pod = {"metadata": {"labels": labels, "annotations": annotations}, "spec": {}}
    assert required.wanted(pod, "shop") is (expected is not False)  # the policy is "enabled"


# --- injection ---------------------------------------------------------------------------------------------------


def injector(name, image="proxyv2", by_default=False, tag="1"):
    values = f"""{{"global": {{"hub": "hub", "tag": "{tag}", "proxy": {{"image": "{image}"}}}},
        "sidecarInjectorWebhook": {{"enableNamespacesByDefault": {str(by_default).lower()}}}}}"""
    return obj("ConfigMap", name, namespace="istio-system", data={"values": values})


def pod(name="a", image="hub/proxyv2:1", **more):
    return obj("Pod", name, {"containers": [{"name": "istio-proxy", "image": image}]}, **more)


def test_a_namespace_is_not_enabled_by_the_settings_of_another_revision():
    space = obj("Namespace", "shop")
    assert codes("injection.Analyzer", space, injector("istio-sidecar-injector-canary", by_default=True)) == [
        ("IST0102", "Namespace shop")
    ]
    assert codes("injection.Analyzer", space, injector("istio-sidecar-injector", by_default=True)) == [
        ("IST0148", "Namespace shop")
    ]


def test_an_empty_injection_label_is_none():
    space = obj("Namespace", "shop", labels={"istio-injection": "", "istio.io/rev": "canary"})
    assert codes("injection.Analyzer", space) == []


def test_proxies_are_compared_with_the_image_of_their_own_revision():
    objects = [
        injector("istio-sidecar-injector", tag="1"),
        injector("istio-sidecar-injector-canary", tag="2"),
        obj("Namespace", "old", labels={"istio-injection": "enabled"}),
        obj("Namespace", "new", labels={"istio.io/rev": "canary"}),
        obj("Namespace", "unknown", labels={"istio.io/rev": "gone"}),
        pod(namespace="old", image="hub/proxyv2:1"),
        pod(namespace="new", image="hub/proxyv2:1"),
        pod(namespace="unknown", image="hub/proxyv2:1"),
    ]
    assert codes("injection.ImageAnalyzer", *objects) == [("IST0158", "Namespace new")]


# --- webhooks ----------------------------------------------------------------------------------------------------


def hooks(config, *named, service="istiod", key="istio.io/rev"):
    made = [
        {
            "name": name,
            "clientConfig": {"service": {"name": service, "namespace": "istio-system"}},
            "namespaceSelector": {"matchLabels": {key: value}},
        }
        for name, value in named
    ]
    version = "admissionregistration.k8s.io/v1"
    return obj("MutatingWebhookConfiguration", config, version=version, webhooks=made)


ISTIOD = obj("Service", "istiod", {}, namespace="istio-system")
HOOK = "rev.namespace.sidecar-injector.istio.io"


def test_two_webhooks_that_select_the_same_pods_are_named_even_where_one_istiod_serves_both():
    one, two = hooks("one", (HOOK, "blue")), hooks("two", (HOOK, "blue"))
    got = found("webhook.Analyzer", one, two, ISTIOD)
    assert [(code, ref) for code, ref, _ in got] == [
        ("IST0139", "MutatingWebhookConfiguration one"),
        ("IST0139", "MutatingWebhookConfiguration two"),
    ]
    assert f"[two/{HOOK}]" in got[0][2]


def test_webhooks_of_several_revisions_keep_out_of_each_others_way():
    assert codes("webhook.Analyzer", hooks("one", (HOOK, "blue")), hooks("two", (HOOK, "green")), ISTIOD) == []


def test_a_webhook_whose_control_plane_is_gone_is_named():
    got = found("webhook.Analyzer", hooks("one", (HOOK, "blue"), service="istiod-blue"), ISTIOD)
    assert [code for code, _, _ in got] == ["IST0139"]


# --- gateways ----------------------------------------------------------------------------------------------------


def gateway(name, *servers, selector=None):
    return networking("Gateway", name, {"selector": selector or {"istio": "gw"}, "servers": list(servers)})


def server(*hosts, port=80, **tls):
    spec = {"port": {"number": port, "name": "p", "protocol": "HTTPS" if tls else "HTTP"}, "hosts": list(hosts)}
    return {**spec, "tls": tls} if tls else spec


GW = obj("Pod", "gw", {"containers": []}, labels={"istio": "gw", "app": "gw"})


@pytest.mark.parametrize(
    ("mine", "other", "conflict"),
    [
        ("a.shop.test", "a.shop.test", True),
        ("a.shop.test", "*.shop.test", False),  # the more specific is served first
        ("*", "a.shop.test", False),
        ("a.shop.test", "b.shop.test", False),
        ("*.shop.test", "*.mall.test", False),
    ],
)
def test_gateways_conflict_where_they_have_the_same_host(mine, other, conflict):
    got = codes("gateway.ConflictingGatewayAnalyzer", GW, gateway("a", server(mine)), gateway("b", server(other)))
    assert got == ([("IST0145", "Gateway shop/a"), ("IST0145", "Gateway shop/b")] if conflict else [])


def test_gateways_on_different_ports_do_not_conflict():
    a, b = gateway("a", server("*")), gateway("b", server("*", port=8080))
    assert codes("gateway.ConflictingGatewayAnalyzer", GW, a, b) == []


def test_a_certificate_on_two_gateways_is_told_of_the_one_that_selects_more():
    tls = {"mode": "SIMPLE", "credentialName": "c"}
    wide = gateway("wide", server("a.test", port=443, **tls))
    narrow = gateway("narrow", server("b.test", port=443, **tls), selector={"istio": "gw", "app": "gw"})
    got = found("gateway.CertificateAnalyzer", wide, narrow)
    assert [(code, ref) for code, ref, _ in got] == [("IST0138", "Gateway shop/wide")]
    assert "[shop/wide shop/narrow]" in got[0][2]


# --- conditions, deprecations ------------------------------------------------------------------------------------


def negative(kind, version, status, **more):
    return codes("conditions.ConditionAnalyzer", obj(kind, "a", {}, version=version, status=status, **more))


CONDITION = {"type": "Accepted", "status": "False", "reason": "NotAllowed", "message": "no"}


@pytest.mark.parametrize(
    ("kind", "version", "status", "reported"),
    [
        ("Service", "v1", {"conditions": [{**CONDITION, "type": "istio.io/WaypointBound"}]}, True),
        (
            "AuthorizationPolicy",
            "security.istio.io/v1",
            {"conditions": [{**CONDITION, "type": "WaypointAccepted"}]},
            True,
        ),
        ("AuthorizationPolicy", "security.istio.io/v1", {"conditions": [CONDITION]}, False),
        ("Service", "v1", {"conditions": [{**CONDITION, "type": "Ready"}]}, False),
        ("AuthorizationPolicy", "security.istio.io/v1", {"conditions": [{**CONDITION, "status": "True"}]}, False),
        (
            "AuthorizationPolicy",
            "security.istio.io/v1",
            {"conditions": [{"type": "WaypointAccepted", "status": "True", "reason": "PartiallyInvalid"}]},
            True,
        ),
        ("HTTPRoute", "gateway.networking.k8s.io/v1", {"parents": [{"conditions": [CONDITION]}]}, True),
        ("HTTPRoute", "gateway.networking.k8s.io/v1", {"parents": [{"conditions": []}]}, False),
        ("Gateway", "gateway.networking.k8s.io/v1", {"conditions": [{**CONDITION, "type": "Programmed"}]}, True),
        ("Pod", "v1", {"conditions": [{**CONDITION, "type": "Ready"}]}, False),
    ],
)
def test_a_negative_condition_of_a_resource_is_told(kind, version, status, reported):
    assert bool(negative(kind, version, status)) is reported


def test_deprecated_fields_are_told_with_what_replaces_them():
    delay = {"fault": {"delay": {"percent": 10, "fixedDelay": "1s"}}}
    vs = networking("VirtualService", "a", {"hosts": ["a"], "http": [delay]})
    text = "Deprecated: HTTPRoute.fault.delay.percent is deprecated; use HTTPRoute.fault.delay.percentage"
    assert found("deprecation.DeprecationAnalyzer", vs) == [("IST0002", "VirtualService shop/a", text)]
    none = networking("VirtualService", "a", {"hosts": ["a"], "http": [{"fault": {"delay": {"percent": 0}}}]})
    assert found("deprecation.DeprecationAnalyzer", none) == []


def test_removed_kinds_are_told_with_their_group():
    spec = {"group": "rbac.istio.io", "names": {"kind": "ServiceRole"}}
    crd = obj("CustomResourceDefinition", "x", spec, version="apiextensions.k8s.io/v1")
    assert found("deprecation.DeprecationAnalyzer", crd)[0][2].endswith("type rbac.istio.io ServiceRole is removed")


# --- services and deployments ------------------------------------------------------------------------------------

MULTI = "deployment.MultiServiceAnalyzer"
INJECTED = obj("Namespace", "shop", labels={"istio-injection": "enabled"})


def deployment(**more):
    spec = {"template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": []}}}
    return obj("Deployment", "a", spec, version="apps/v1", **more)


def service(name, *ports):
    return obj("Service", name, {"selector": {"app": "a"}, "ports": list(ports)})


def test_a_service_with_one_port_in_two_protocols_is_told():
    dns = service("dns", {"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"})
    assert codes(MULTI, INJECTED, deployment(), dns) == [("IST0116", "Deployment shop/a")]


def test_ports_that_lead_to_the_same_target_are_told():
    two = service("a", {"port": 80, "targetPort": 9080}, {"port": 81, "targetPort": 9080})
    assert codes(MULTI, INJECTED, deployment(), two) == [("IST0137", "Deployment shop/a")]


def test_a_deployment_outside_of_the_mesh_and_a_waypoint_are_left_alone():
    dns = service("dns", {"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"})
    assert codes(MULTI, obj("Namespace", "shop"), deployment(), dns) == []
    waypoint = deployment(labels={"gateway.istio.io/managed": "istio.io-mesh-controller"})
    assert codes(MULTI, INJECTED, waypoint, dns) == []


@pytest.mark.parametrize(
    ("port", "named"),
    [
        ({"port": 80, "name": "http-web"}, True),
        ({"port": 80, "name": "web"}, False),
        ({"port": 80}, False),
        ({"port": 3306}, True),
        ({"port": 80, "name": "web", "appProtocol": "http"}, True),
        ({"port": 80, "name": "http", "appProtocol": "mqtt"}, False),
        ({"port": 80, "name": "web", "protocol": "UDP"}, True),
        ({"port": 80, "name": "grpc-web-x"}, True),
        ({"port": 80, "name": "grpc-webapp"}, True),
        ({"port": 3306, "name": "db"}, True),
        ({"port": 22}, False),  # detection would wait for a client that waits for the server
        ({"port": 80, "name": "web", "appProtocol": "http-v1"}, True),
        ({"port": 80, "appProtocol": "kubernetes.io/ws"}, True),
        ({"port": 80, "name": "kubernetes.io/ws"}, False),
    ],
)
def test_a_port_names_its_protocol_by_app_protocol_before_its_name(port, named):
    got = codes("service.PortNameAnalyzer", obj("Service", "a", {"ports": [port]}))
    assert got == ([] if named else [("IST0118", "Service shop/a")])


def test_a_service_that_differs_between_clusters_is_told_with_what_differs():
    one = Source(service("a", {"port": 80, "targetPort": 8080, "nodePort": 30001}), cluster="one")
    two = Source(service("a", {"port": 80, "targetPort": 9090, "nodePort": 30002}), cluster="two")
    got = analyze(Snapshot([one, two]), ["services.MultiClusterServiceAnalyzer"])
    assert ["service ports are inconsistent" in m.text for m in got] == [True]


def entry(name, protocol, export_to=None):
    ports = [{"number": 443, "name": "p", "protocol": protocol}]
    spec = {"hosts": ["api.test"], "ports": ports, "resolution": "DNS"}
    return networking("ServiceEntry", name, spec | ({"exportTo": export_to} if export_to else {}), namespace=name)


@pytest.mark.parametrize(
    ("one", "two", "conflict"),
    [
        (None, None, True),
        (["."], ["."], False),
        (["."], ["a"], True),
        (["*"], ["."], True),
        (["x", "y"], ["y"], True),
        (["x"], ["y"], False),
    ],
)
def test_entries_of_one_host_conflict_where_some_namespace_sees_both(one, two, conflict):
    analyzer = "serviceentry.ConflictingServiceEntryProtocolAnalyzer"
    got = codes(analyzer, entry("a", "HTTP", one), entry("b", "TLS", two))
    assert got == ([("IST0177", "ServiceEntry a/a"), ("IST0177", "ServiceEntry b/b")] if conflict else [])


# --- rules -------------------------------------------------------------------------------------------------------

SUBSETS = "destinationrule.SubsetSelectPodAnalyzer"


def rule(host, **labels):
    return networking("DestinationRule", "a", {"host": host, "subsets": [{"name": "v1", "labels": labels}]})


def test_a_subset_may_be_of_a_node_or_of_a_region():
    node = obj("Node", "n1", labels={"topology.kubernetes.io/region": "eu"})
    there = obj("Pod", "a", {"nodeName": "n1", "containers": []}, labels={"app": "a"})
    objects = (node, there, service("a", {"port": 80}))
    assert codes(SUBSETS, *objects, rule("a", **{"kubernetes.io/hostname": "n1"})) == []
    assert codes(SUBSETS, *objects, rule("a", **{"topology.kubernetes.io/region": "eu"})) == []
    assert codes(SUBSETS, *objects, rule("a", **{"kubernetes.io/hostname": "n2"})) == [
        ("IST0173", "DestinationRule shop/a")
    ]


@pytest.mark.parametrize(("version", "missing"), [("v1", False), ("v2", True)])
def test_subsets_of_a_service_entry_are_looked_for_among_what_it_selects_and_lists(version, missing):
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    listed = {"hosts": ["vm.test"], "ports": ports, "endpoints": [{"address": "1.2.3.4", "labels": {"version": "v1"}}]}
    selecting = {"hosts": ["vm.test"], "ports": ports, "workloadSelector": {"labels": {"app": "vm"}}}
    machine = networking("WorkloadEntry", "m", {"address": "1.2.3.4", "labels": {"app": "vm", "version": "v1"}})
    expected = [("IST0173", "DestinationRule shop/a")] if missing else []
    for spec in (listed, selecting):
        objects = (networking("ServiceEntry", "vm", spec), machine, rule("vm.test", version=version))
        assert codes(SUBSETS, *objects) == expected


@pytest.mark.parametrize(
    ("spec", "labels", "missing"),
    [
        ({"ports": [{"port": 80}]}, {"version": "v1"}, False),
        ({"ports": [{"port": 80}]}, {"version": "v2"}, True),
        ({"ports": [{"port": 80}]}, {}, False),
        ({"selector": {"app": "vm"}, "ports": [{"port": 80}]}, {"version": "v3"}, False),
    ],
)
def test_instances_of_a_service_without_a_selector_may_be_any_and_machines_count(spec, labels, missing):
    there = obj("Pod", "p", {"containers": []}, labels={"version": "v1"})
    machine = networking("WorkloadEntry", "m", {"address": "1.2.3.4", "labels": {"app": "vm", "version": "v3"}})
    got = codes(SUBSETS, obj("Service", "a", spec), there, machine, rule("a", **labels))
    assert got == ([("IST0173", "DestinationRule shop/a")] if missing else [])


def test_a_mirror_that_is_not_there_is_called_a_mirror():
    spec = {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}], "mirror": {"host": "nowhere"}}]}
    got = found(
        "virtualservice.DestinationHostAnalyzer",
        service("a", {"port": 80}),
        networking("VirtualService", "a", spec),
    )
    assert [text for _, _, text in got] == ['Referenced mirror host not found: "nowhere"']


def test_a_rule_for_gateways_and_the_mesh_is_told_that_subsets_of_another_do_not_hold_on_the_gateway():
    subset = {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a", "subset": "v1"}}]}]}
    plain = {"hosts": ["b"], "gateways": ["gw", "mesh"], "http": [{"route": [{"destination": {"host": "a"}}]}]}
    objects = (networking("VirtualService", "in", subset), networking("VirtualService", "out", plain))
    got = codes("virtualservice.DestinationHostAnalyzer", service("a", {"port": 80}), *objects)
    assert got == [("IST0140", "VirtualService shop/out")]
