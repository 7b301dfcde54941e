"""What is deployed for a Gateway of the Gateway API: which objects, for whom, and what stays as it is."""

import asyncio

import pytest

from lateen.api import kinds, validate
from lateen.control.deployments import Deployments, Istiod
from lateen.inject import deployment, pods
from lateen.inject.deployment import Unusable
from lateen.install import core
from lateen.kit import tasks
from lateen.kube.client import KubeError
from lateen.mesh.dialects.gateway_api.listeners import CONTROLLER


def gateway(name="web", class_name="istio", annotations=None, labels=None, **spec):
    listeners = [
        {"name": "http", "port": 80, "protocol": "HTTP"},
        {"name": "one.example", "port": 443, "protocol": "HTTPS"},
        {"name": "two", "port": 443, "protocol": "HTTPS"},
    ]
    return {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid of {name}",
            "annotations": annotations or {},
            "labels": labels or {},
        },
        "spec": {"gatewayClassName": class_name, "listeners": listeners, **spec},
    }


def made(given, *parameters):
    found = deployment.objects(given, pods.settings({}), parameters)
    return {o["kind"]: o for o in found}


def test_a_gateway_gets_an_account_a_service_and_a_deployment_that_go_with_it():
    found = made(gateway())
    assert list(found) == ["ServiceAccount", "Service", "Deployment"]
    for obj in found.values():
        meta = obj["metadata"]
        assert (meta["namespace"], meta["name"]) == ("shop", "web-istio")
        assert meta["labels"]["gateway.networking.k8s.io/gateway-name"] == "web"
        assert [(o["kind"], o["uid"]) for o in meta["ownerReferences"]] == [("Gateway", "uid of web")]
    service = found["Service"]["spec"]
    assert service["type"] == "LoadBalancer"
    assert [(p["name"], p["port"]) for p in service["ports"]] == [
        ("status-port", 15021),
        ("http", 80),
        ("one-example", 443),
    ]
    pod = found["Deployment"]["spec"]["template"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    assert pod["spec"]["serviceAccountName"] == "web-istio"
    (proxy,) = pod["spec"]["containers"]
    assert proxy["image"] != "auto"
    assert proxy["args"][:2] == ["proxy", "router"]
    names = {e["name"]: e.get("value") for e in proxy["env"]}
    assert names["ISTIO_META_OWNER"] == "kubernetes://apis/apps/v1/namespaces/shop/deployments/web-istio"


def test_udp_and_tcp_may_share_a_port():
    listeners = [{"name": n, "port": 53, "protocol": p} for n, p in (("dns", "TCP"), ("dns-udp", "UDP"))]
    ports = deployment.service_ports({"listeners": listeners})[1:]
    assert [(p["name"], p["port"], p["protocol"]) for p in ports] == [("dns", 53, "TCP"), ("dns-udp", 53, "UDP")]


def test_labels_and_annotations_of_the_infrastructure_are_handed_down():
    found = made(
        gateway(
            labels={"own": "x"},
            infrastructure={"labels": {"team": "shop"}, "annotations": {"example.com/size": "small"}},
        )
    )
    pod = found["Deployment"]["spec"]["template"]
    for meta in (*(o["metadata"] for o in found.values()), pod["metadata"]):
        assert meta["labels"]["team"] == "shop"
        assert "own" not in meta["labels"]
        assert meta["annotations"]["example.com/size"] == "small"


def test_without_infrastructure_those_of_the_gateway_are_handed_down():
    found = made(gateway(labels={"own": "x"}, annotations={"a": "b", "networking.istio.io/service-type": "ClusterIP"}))
    assert found["Service"]["metadata"]["labels"]["own"] == "x"
    assert found["Service"]["metadata"]["annotations"] == {"a": "b"}
    assert found["Service"]["spec"]["type"] == "ClusterIP"


def test_names_can_be_chosen():
    found = made(
        gateway(annotations={"gateway.istio.io/name-override": "edge", "gateway.istio.io/service-account": "mine"})
    )
    assert [o["metadata"]["name"] for o in found.values()] == ["mine", "edge", "edge"]


def test_one_address_is_wished_of_the_load_balancer():
    found = made(gateway(addresses=[{"type": "IPAddress", "value": "192.0.2.1"}]))
    assert found["Service"]["spec"]["loadBalancerIP"] == "192.0.2.1"


@pytest.mark.parametrize(
    ("addresses", "managed"),
    [
        ([], True),
        ([{"value": "192.0.2.1"}], True),
        ([{"type": "Hostname", "value": "istio-ingressgateway.istio-system.svc.cluster.local"}], False),
        ([{"value": "192.0.2.1"}, {"type": "example.com/x", "value": "192.0.2.2"}], False),
    ],
)
def test_a_gateway_with_a_host_name_as_its_address_is_a_manual_one(addresses, managed):
    assert deployment.is_managed({"addresses": addresses}) is managed


def test_parameters_are_merged_over_the_objects():
    found = made(
        gateway(),
        {"deployment": "spec: {replicas: 3}", "service": "spec: {externalTrafficPolicy: Cluster}"},
        {
            "deployment": """
metadata: {name: other, labels: {size: big}}
spec: {replicas: 4, template: {spec: {containers: [{name: istio-proxy, resources: {requests: {cpu: 7m}}}]}}}""",
            "service": "spec: {ports: [{port: 80, nodePort: 30080}]}",
        },
    )
    spec = found["Deployment"]["spec"]
    assert spec["replicas"] == 4
    assert spec["template"]["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "7m"}}
    assert found["Deployment"]["metadata"]["name"] == "web-istio"
    assert found["Deployment"]["metadata"]["labels"]["size"] == "big"
    service = found["Service"]["spec"]
    assert service["externalTrafficPolicy"] == "Cluster"
    assert {"name": "http", "port": 80, "protocol": "TCP", "appProtocol": "http", "nodePort": 30080} in service["ports"]
    assert len(service["ports"]) == 3


@pytest.mark.parametrize(
    ("given", "parameters", "says"),
    [
        (
            gateway(annotations={"networking.istio.io/service-type": "Round"}),
            {},
            '"Round"; possible values are LoadBalancer',
        ),
        (gateway("n" * 60), {}, "longer than 63 characters"),
        (gateway(), {"secret": "{}"}, 'cannot have the key "secret"'),
        (gateway(), {"deployment": "a: ["}, "deployment of its parameters cannot be parsed"),
        (gateway(), {"service": "[]"}, None),
        (gateway(), {"service": "7"}, "service of its parameters must be a mapping"),
        (gateway(), {"serviceAccount": "kind: RoleBinding"}, "must have the kind ServiceAccount, or none"),
        (gateway(), {"deployment": "spec: 7"}, "deployment of its parameters: spec must be a mapping"),
        (gateway(), {"deployment": "spec:"}, "deployment of its parameters: spec is missing"),
        (gateway(), {"service": "metadata: [x]"}, "service of its parameters: metadata must be a mapping"),
        (
            gateway(),
            {"deployment": "spec: {template: {spec: {containers: [7]}}}"},
            "spec.template.spec.containers must be a list of mappings",
        ),
        (
            gateway(),
            {"deployment": "spec: {template: {spec: {containers: [{name: istio-proxy, env: 7}]}}}"},
            r"spec.template.spec.containers\[0\].env must be a list of mappings",
        ),
        (gateway(), {"deployment": "kind:"}, "must have the kind Deployment, or none"),
        (gateway(), {"podDisruptionBudget": "apiVersion: v1"}, "must have the apiVersion policy/v1, or none"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_sentence(given, parameters, says):
    if says is None:
        made(given, parameters)
        return
    with pytest.raises(Unusable, match=says):
        made(given, parameters)


ISTIOD = Istiod("istio-system", "istiod", "istiod-certificates")


class Injector:
    def settings(self, *_):
        return pods.settings({})


class Api:
    def __init__(self):
        self.objects, self.applied, self.fails = {}, [], None

    async def get(self, kind, namespace, name):
        return self.objects.get((kind.kind, namespace, name))

    async def list(self, *_):
        return [], "1"

    async def watch(self, *_):
        await asyncio.sleep(60)
        yield

    async def create(self, kind, obj):
        if self.fails:
            raise self.fails
        self.objects[kind.kind, "", obj["metadata"]["name"]] = obj

    async def delete(self, kind, namespace, name):
        self.objects.pop((kind.kind, namespace, name))

    async def apply(self, kind, obj, _):
        if self.fails:
            raise self.fails
        meta = obj["metadata"]
        self.applied.append((kind.kind, meta["name"]))
        self.objects[kind.kind, meta["namespace"], meta["name"]] = obj


class World:
    """One istiod's deployments, with the class that is the mesh's."""

    def __init__(self, ours=True, leads=True):
        self.api, self.told = Api(), []
        self.deployments = Deployments(self.api, Injector(), ISTIOD, lambda _: ours, lambda: leads)
        self.deployments.told = self.told.append
        self.set(kinds.GATEWAY_CLASS, {"metadata": {"name": "istio"}, "spec": {"controllerName": CONTROLLER}})

    def set(self, kind, new, old=None):
        meta = (new or old)["metadata"]
        self.deployments.changed(kind, (meta.get("namespace", ""), meta["name"]), old, new)

    def put(self, obj):
        self.set(kinds.KUBERNETES_GATEWAY, obj)
        asyncio.run(self.deployments.reconcile(("shop", obj["metadata"]["name"])))


ALL = [("ServiceAccount", "web-istio"), ("Service", "web-istio"), ("Deployment", "web-istio")]


def test_only_what_has_changed_is_applied_again():
    world = World()
    world.put(gateway())
    assert world.api.applied == ALL
    world.put(gateway())
    assert world.api.applied == ALL
    world.put(gateway(infrastructure={"labels": {"team": "shop"}}))
    assert world.api.applied == ALL * 2


def test_gateways_of_other_classes_revisions_and_manual_ones_are_left_alone():
    world = World()
    world.put(gateway(class_name="nginx"))
    world.put(gateway(addresses=[{"type": "Hostname", "value": "a.b"}]))
    assert world.api.applied == []
    world = World(ours=False)
    world.put(gateway())
    assert world.api.applied == []


def test_an_object_of_somebody_else_is_not_taken_over():
    world = World()
    mine = {"metadata": {"name": "web-istio", "namespace": "shop", "labels": {}}}
    world.api.objects["Deployment", "shop", "web-istio"] = mine
    world.put(gateway())
    assert world.api.applied == []
    assert world.deployments.problems["shop", "web"][1].startswith("the Deployment web-istio exists")
    del world.api.objects["Deployment", "shop", "web-istio"]
    world.api.objects["ServiceAccount", "shop", "web-istio"] = mine
    world.put(gateway(labels={"again": "1"}))
    assert world.api.applied == ALL[1:]
    assert world.deployments.problems == {}


def test_a_refusal_of_the_api_is_told_and_tried_again():
    async def run():
        world = World()
        world.api.fails = KubeError(403, "Forbidden", "istiod may not do that")
        world.set(kinds.KUBERNETES_GATEWAY, gateway())
        await world.deployments.reconcile(("shop", "web"))
        assert "istiod may not do that" in world.deployments.problems["shop", "web"][1]
        assert world.told == [("shop", "web")]
        world.api.fails = None
        await world.deployments.reconcile(("shop", "web"))
        assert world.api.applied == ALL
        assert world.deployments.problems == {}

    asyncio.run(run())


def test_what_the_api_refuses_for_good_is_tried_less_and_less_often():
    """Such as a Deployment with replicas that are no number; each change of the Gateway is tried at once."""

    async def run():
        world, key, timers = World(), ("shop", "web"), []
        world.api.fails = KubeError(422, "Invalid", "spec.replicas: Invalid value")
        for i in range(8):
            world.set(kinds.KUBERNETES_GATEWAY, gateway(labels={"try": str(i)}))
            before = asyncio.get_running_loop().time()
            await world.deployments.reconcile(key)
            ((refusals, timer),) = world.deployments._retries.values()
            timers.append(timer)
            assert (refusals, timer.when() - before >= min(2 * 2**i, 60)) == (i + 1, True)
        assert [t.cancelled() for t in timers] == [True] * 7 + [False]
        world.api.fails = None
        await world.deployments.reconcile(key)
        assert (world.deployments._retries, timers[-1].cancelled()) == ({}, True)

    asyncio.run(run())


def test_a_gateway_that_cannot_be_deployed_keeps_no_other_one_from_its_proxies(monkeypatch):
    """All are looked at when an istiod becomes the leader."""
    made = deployment.objects

    def objects(gateway, *given):
        if gateway["metadata"]["name"] == "a":
            raise ZeroDivisionError("of one Gateway")
        return made(gateway, *given)

    monkeypatch.setattr(deployment, "objects", objects)

    async def run():
        world = World()
        for name in ("a", "web"):
            world.set(kinds.KUBERNETES_GATEWAY, gateway(name))
        running = tasks.spawn(world.deployments.run(), "deployments")
        async with asyncio.timeout(20):
            while world.api.applied != ALL:
                await asyncio.sleep(0.01)
        await tasks.cancel(running)
        assert "ZeroDivisionError" in world.deployments.problems["shop", "a"][1]

    asyncio.run(run())


def test_istiod_reads_secrets_where_a_gateway_names_some_and_where_a_grant_lets_it():
    world = World()
    tls = {"certificateRefs": [{"name": "books"}]}
    world.put(gateway(listeners=[{"name": "https", "port": 443, "protocol": "HTTPS", "tls": tls}]))
    binding = world.api.objects["RoleBinding", "shop", "web-istio-secrets"]
    assert binding["roleRef"]["name"] == "istiod-certificates"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "istiod", "namespace": "istio-system"}]
    assert binding["metadata"]["ownerReferences"][0]["uid"] == "uid of web"

    def grant(name, kind):
        spec = {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop"}],
            "to": [{"group": "", "kind": kind}],
        }
        meta = {"name": name, "namespace": "certs", "uid": f"uid of {name}"}
        world.set(kinds.REFERENCE_GRANT, {"metadata": meta, "spec": spec})

    async def run():
        working = asyncio.get_running_loop().create_task(world.deployments.run())
        while ("RoleBinding", "certs", "yes-istiod-secrets") not in world.api.objects:
            await asyncio.sleep(0.001)
        working.cancel()

    grant("no", "Service")
    grant("yes", "Secret")
    asyncio.run(asyncio.wait_for(run(), 10))
    assert ("RoleBinding", "certs", "no-istiod-secrets") not in world.api.objects


def test_the_mesh_s_classes_are_made_where_they_are_missing():
    world = World()
    asyncio.run(world.deployments.classify())
    (made,) = world.api.objects.values()
    assert made["metadata"]["name"] == "istio-waypoint"
    assert validate.problems(made) == []
    world.deployments.changed(kinds.GATEWAY_CLASS, ("", "istio"), {}, None)
    asyncio.run(world.deployments.classify())
    assert world.api.objects["GatewayClass", "", "istio"]["spec"]["controllerName"] == CONTROLLER


def test_a_service_that_somebody_deletes_is_made_again():
    world = World()
    world.put(gateway())
    service = world.api.objects.pop(("Service", "shop", "web-istio"))
    world.set(kinds.SERVICE, None, service)
    asyncio.run(world.deployments.reconcile(("shop", "web")))
    assert ("Service", "shop", "web-istio") in world.api.objects


def test_parameters_come_from_the_class_and_from_the_gateway():
    world = World()

    def config_map(namespace, name, text, **labels):
        meta = {"namespace": namespace, "name": name, "labels": labels}
        world.set(kinds.CONFIG_MAP, {"metadata": meta, "data": {"deployment": text}})

    ref = {"parametersRef": {"group": "", "kind": "ConfigMap", "name": "size"}}
    world.put(gateway(infrastructure=ref))
    assert world.deployments.problems["shop", "web"] == ("InvalidParameters", 'there is no ConfigMap "size" in shop')
    config_map("istio-system", "all", "spec: {replicas: 2}", **{"gateway.istio.io/defaults-for-class": "istio"})
    config_map("shop", "size", "spec: {minReadySeconds: 5}")
    asyncio.run(world.deployments.reconcile(("shop", "web")))
    spec = world.api.objects["Deployment", "shop", "web-istio"]["spec"]
    assert (spec["replicas"], spec["minReadySeconds"]) == (2, 5)


def test_an_autoscaler_and_a_budget_come_and_go_with_the_parameters():
    world = World()
    ref = {"parametersRef": {"group": "", "kind": "ConfigMap", "name": "size"}}

    def parameters(**data):
        world.set(kinds.CONFIG_MAP, {"metadata": {"namespace": "shop", "name": "size"}, "data": data})
        world.put(gateway(infrastructure=ref))

    parameters(horizontalPodAutoscaler="spec: {minReplicas: 2, maxReplicas: 5}", podDisruptionBudget="")
    scaler = world.api.objects["HorizontalPodAutoscaler", "shop", "web-istio"]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web-istio"}
    assert scaler["spec"] == {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 5}
    assert "replicas" not in world.api.objects["Deployment", "shop", "web-istio"]["spec"]
    budget = world.api.objects["PodDisruptionBudget", "shop", "web-istio"]
    assert budget["spec"]["selector"] == world.api.objects["Deployment", "shop", "web-istio"]["spec"]["selector"]
    parameters(podDisruptionBudget="spec: {minAvailable: 1}")
    assert ("HorizontalPodAutoscaler", "shop", "web-istio") not in world.api.objects
    assert world.api.objects["PodDisruptionBudget", "shop", "web-istio"]["spec"]["minAvailable"] == 1
    theirs = {"metadata": {"namespace": "shop", "name": "web-istio"}}
    world.api.objects["PodDisruptionBudget", "shop", "web-istio"] = theirs
    parameters()
    assert world.api.objects["PodDisruptionBudget", "shop", "web-istio"] is theirs


def test_parameters_of_a_class_are_those_of_the_revision_that_deploys():
    world = World()
    for name, revision, replicas in (("a", "canary", 7), ("b", "default", 2)):
        labels = {"gateway.istio.io/defaults-for-class": "istio", "istio.io/rev": revision}
        meta = {"namespace": "istio-system", "name": name, "labels": labels}
        world.set(kinds.CONFIG_MAP, {"metadata": meta, "data": {"deployment": f"spec: {{replicas: {replicas}}}"}})
    world.put(gateway())
    assert world.api.objects["Deployment", "shop", "web-istio"]["spec"]["replicas"] == 2


@pytest.mark.parametrize(("env", "deploys"), [([], True), ([{"name": deployment.ENABLED, "value": False}], False)])
def test_istiod_may_deploy_only_where_it_is_to(env, deploys):
    spec = {"components": {"pilot": {"k8s": {"env": env}}}}
    assert core.deploys_gateways(spec) is deploys
    from lateen.wire.revision import Revision

    found = [r for o in core.permissions(Revision(), deploys) for r in o.get("rules", [])]
    assert any("deployments" in r["resources"] and "create" in r["verbs"] for r in found) is deploys


def test_istiod_may_write_statuses_of_the_meshs_objects_but_not_what_users_have_written():
    """Whoever gets its token changes no policy with it."""
    from lateen.api import kinds
    from lateen.wire.revision import Revision

    writes = {
        (group, resource, verb, *r.get("resourceNames", []))
        for o in core.permissions(Revision())
        for r in o.get("rules", [])
        for group in r["apiGroups"]
        for resource in r["resources"]
        for verb in {*r["verbs"]} & {"create", "update", "patch", "delete"}
        if group in ("", *kinds.groups()) and not resource.endswith(("/status", "/finalizers"))
    }
    roots = ("istio-ca-root-cert", "istio-ca-crl")
    cas = ("istio-ca-secret", "lateen-ca", "lateen-jwks", "lateen-acme")
    assert writes == {
        *(("networking.istio.io", "workloadentries", v) for v in ("create", "patch", "delete")),
        *(("cert-manager.io", "certificates", v) for v in ("create", "patch")),
        ("gateway.networking.k8s.io", "gatewayclasses", "create"),
        ("", "configmaps", "create"),
        *(("", "configmaps", v, *roots) for v in ("update", "patch")),
        *(("", "configmaps", v, "istio-accepted-config") for v in ("update", "patch")),
        ("", "secrets", "create"),
        ("", "secrets", "update", *cas),
        *(("", "secrets", v) for v in ("create", "update")),  # where istiod binds its role for certificates
        *(("", r, v) for r in ("serviceaccounts", "services") for v in ("create", "patch")),
        ("", "events", "create"),
    }


def test_istiod_may_make_certificates_that_block_the_deletion_of_what_asks_for_them():
    """OpenShift: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on"""
    from lateen.api import kinds
    from lateen.wire.revision import Revision

    rules = [r for o in core.permissions(Revision(), deploys=False) for r in o.get("rules", [])]
    for kind in (kinds.KUBERNETES_GATEWAY, kinds.INGRESS):
        granted = [r["verbs"] for r in rules if kind.group in r["apiGroups"]
                   if {"*/finalizers", f"{kind.plural}/finalizers"} & {*r["resources"]}]  # fmt: skip
        assert any("update" in verbs for verbs in granted), kind
