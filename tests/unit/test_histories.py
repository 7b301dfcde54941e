"""Random histories of creates, updates and deletes: what was worked out step by step equals what is worked out anew."""

import random
from dataclasses import replace

import judge
import meshes as mesh
import pytest

from lateen.ads.conversation import Request
from lateen.ads.session import Session
from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.config import decode
from lateen.api.ingress import Ingress
from lateen.kit import yamldoc
from lateen.mesh.model import Mesh
from lateen.mesh.objects import COLLECTIONS, Objects
from lateen.mesh.settings import MeshConfig, OutboundPolicy, Transport
from lateen.mesh.views import Views
from lateen.wire import names
from lateen.xds.generate import generate
from lateen.xds.patches.apply import apply

SPACES = ("default", "a", "b")
NAMES = ("reviews", "ratings", "x", "y")


def service(rng, version):
    namespace, name = rng.choice(SPACES), rng.choice(NAMES)
    kind = rng.random()
    port = o.ServicePort(rng.choice(("http", "tcp", "grpc", "web")), rng.choice((80, 9080)), 8080, "TCP")
    made = o.Service(
        namespace,
        name,
        "None" if kind < 0.15 else f"10.96.{SPACES.index(namespace)}.{NAMES.index(name) + 1}",
        (port,),
        (("app", name),),
        export_to=rng.choice(((), (), (".",), ("a",))),
        external_name=f"{rng.choice(NAMES)}.default.svc.cluster.local" if kind > 0.9 else "",
    )
    return "services", (namespace, name), made


def slices(rng, version):
    namespace, name = rng.choice(SPACES), rng.choice(NAMES)
    found = tuple(
        o.Endpoint(f"10.1.{SPACES.index(namespace)}.{i}", 8080, f"{name}-{i}") for i in range(rng.randint(0, 3))
    )
    return "slices", (namespace, f"{name}-s"), (name, dict.fromkeys(("http", "tcp", "grpc", "web"), found))


def pod(rng, version):
    namespace, name, i = rng.choice(SPACES), rng.choice(NAMES), rng.randint(0, 2)
    made = mesh.pod(
        f"{name}-{i}", f"10.1.{SPACES.index(namespace)}.{i}", namespace, rng.random() < 0.7, app=name,
        version=rng.choice(("v1", "v2")),
    )  # fmt: skip
    made = replace(made, locality=rng.choice(("", "r1/z1", "r1/z2", "r2/z1")))
    return "pods", (namespace, made.name), made


def document(text, rng, version):
    (doc,) = yamldoc.objects(text)
    doc["metadata"] |= {"namespace": rng.choice(SPACES), "stamp": version}
    found = mesh.add(Objects(), doc, rng.randint(0, 59))
    collection = next(c for c in COLLECTED if getattr(found, c))
    ((key, value),) = getattr(found, collection).items()
    return collection, key, value


COLLECTED = (
    "virtual_services", "destination_rules", "gateways", "peer_authentications", "authorization_policies",
    "service_entries", "workload_entries", "sidecars", "envoy_filters",
)  # fmt: skip


def virtual_service(rng, version):
    host = rng.choice(
        (*NAMES, "x.a.svc.cluster.local", "'*.a.svc.cluster.local'", "unknown.example.com", "e1.example.com")
    )
    match = rng.choice(
        (
            "",
            "match: [{uri: {prefix: /a}}], ",
            "match: [{sourceLabels: {version: v1}}], ",
            "match: [{sourceNamespace: a}], ",
        )
    )
    routes = rng.choice(
        (f"http: [{{{match}route: [{{destination: {{host: {rng.choice(NAMES)}}}}}]}}]",
         f"tcp: [{{route: [{{destination: {{host: {rng.choice(NAMES)}}}}}]}}]")
    )  # fmt: skip
    export = rng.choice(("", "exportTo: ['.'], ", "exportTo: [a], "))
    gateways = rng.choice(("", "", "gateways: [g], "))
    return document(
        f"kind: VirtualService\nmetadata: {{name: {rng.choice('pqr')}}}\nspec: {{hosts: [{host}], {gateways}{export}{routes}}}",
        rng,
        version,
    )


def destination_rule(rng, version):
    host = rng.choice((*NAMES, "x.a.svc.cluster.local", "'*.svc.cluster.local'"))
    place = "localityLbSetting: {failoverPriority: [version]}"
    policy = rng.choice(
        (
            f"loadBalancer: {{simple: RANDOM, {place}}}, outlierDetection: {{interval: 5s}}",
            "loadBalancer: {localityLbSetting: {enabled: true}}, outlierDetection: {interval: 9s}",
            "tls: {mode: DISABLE}",
            "outlierDetection: {interval: 5s}",
            "loadBalancer: {simple: RANDOM}",
            "tls: {mode: MUTUAL, credentialName: c}",
        )
    )
    more = rng.choice(("", ", workloadSelector: {matchLabels: {version: v1}}", ", exportTo: ['.']"))
    return document(
        f"kind: DestinationRule\nmetadata: {{name: {rng.choice('pqr')}}}\nspec: {{host: {host}, trafficPolicy: {{{policy}}},"
        f" subsets: [{{name: v1, labels: {{version: v1}}}}]{more}}}", rng, version,
    )  # fmt: skip


def service_entry(rng, version):
    host = rng.choice(("e1.example.com", "e2.example.com", "'*.e.example.com'", "x.a.svc.cluster.local"))
    where = rng.choice(
        ("resolution: DNS", "resolution: NONE", "resolution: STATIC, endpoints: [{address: 10.2.0.1}]",
         "resolution: STATIC, workloadSelector: {labels: {app: x}}")
    )  # fmt: skip
    if "*" in host:
        where = "resolution: NONE"
    export = rng.choice(("", ", exportTo: ['.']"))
    return document(
        f"kind: ServiceEntry\nmetadata: {{name: {rng.choice('pq')}}}\nspec: {{hosts: [{host}], ports: [{{number: {rng.choice((80, 9080))},"
        f" name: p, protocol: {rng.choice(('HTTP', 'TCP', 'TLS'))}}}], location: MESH_INTERNAL, {where}{export}}}", rng, version,
    )  # fmt: skip


def workload_entry(rng, version):
    return document(
        f"kind: WorkloadEntry\nmetadata: {{name: {rng.choice('pq')}}}\nspec: {{address: 10.3.0.{rng.randint(1, 3)},"
        f" labels: {{app: {rng.choice(NAMES)}}}}}", rng, version,
    )  # fmt: skip


def sidecar(rng, version):
    hosts = rng.choice(("./*", "'*/*'", "a/*", "'*/x.a.svc.cluster.local'"))
    which = rng.choice(("", "workloadSelector: {labels: {version: v1}}, "))
    return document(
        f"kind: Sidecar\nmetadata: {{name: {rng.choice('pq')}}}\nspec: {{{which}egress: [{{hosts: [{hosts}]}}]}}",
        rng,
        version,
    )


def peer_authentication(rng, version):
    return document(
        f"kind: PeerAuthentication\nmetadata: {{name: p}}\nspec: {{mtls: {{mode: {rng.choice(('STRICT', 'DISABLE'))}}}}}",
        rng,
        version,
    )


def gateway(rng, version):
    servers = rng.choice(
        ("{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}",
         "{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}",
         "{port: {number: 443, name: tls, protocol: TLS}, hosts: ['*.local'], tls: {mode: AUTO_PASSTHROUGH}}")
    )  # fmt: skip
    return document(
        f"kind: Gateway\nmetadata: {{name: g}}\nspec: {{selector: {{istio: ingressgateway}}, servers: [{servers}]}}",
        rng,
        version,
    )


def delegate(rng, version):
    """Both ends of it."""
    if rng.random() < 0.5:
        target = f"{{name: d, namespace: {rng.choice(SPACES)}}}"
        spec = f"hosts: [{rng.choice(NAMES)}], http: [{{match: [{{uri: {{prefix: /d}}}}], delegate: {target}}}]"
        name = rng.choice("pqr")
    else:
        name, spec = "d", f"http: [{{route: [{{destination: {{host: {rng.choice(NAMES)}}}}}]}}]"
    return document(f"kind: VirtualService\nmetadata: {{name: {name}}}\nspec: {{{spec}}}", rng, version)


def authorization_policy(rng, version):
    chosen = rng.choice(("", "selector: {matchLabels: {version: v1}}, "))
    return document(
        f"kind: AuthorizationPolicy\nmetadata: {{name: {rng.choice('pq')}}}\nspec: {{{chosen}action:"
        f" {rng.choice(('ALLOW', 'DENY'))}, rules: [{{from: [{{source: {{namespaces: [a]}}}}]}}]}}", rng, version,
    )  # fmt: skip


def envoy_filter(rng, version):
    patch = rng.choice(
        ("{applyTo: CLUSTER, patch: {operation: MERGE, value: {connect_timeout: 3s}}}",
         "{applyTo: VIRTUAL_HOST, match: {context: SIDECAR_OUTBOUND}, patch: {operation: REMOVE}}",
         "{applyTo: LISTENER, match: {context: SIDECAR_INBOUND}, patch: {operation: MERGE, value: {stat_prefix: x}}}")
    )  # fmt: skip
    return document(
        f"kind: EnvoyFilter\nmetadata: {{name: {rng.choice('pq')}}}\nspec: {{configPatches: [{patch}]}}", rng, version
    )


def ingress(rng, version):
    namespace, name = rng.choice(SPACES), rng.choice("pq")
    port = rng.choice(({"number": 80}, {"number": 9080}, {"name": "http"}))
    path = {
        "path": rng.choice(("/", "/a")),
        "pathType": rng.choice(("Prefix", "Exact")),
        "backend": {"service": {"name": rng.choice(NAMES), "port": port}},
    }
    spec = {
        "ingressClassName": "istio",
        "rules": [{"host": rng.choice(("a.example", "b.example")), "http": {"paths": [path]}}],
    }
    if rng.random() < 0.3:
        spec["defaultBackend"] = path["backend"]
    if rng.random() < 0.4:
        spec["tls"] = [{"hosts": ["a.example"], "secretName": "c"}]
    made = o.Resource(
        kinds.INGRESS.ref(namespace, name),
        "u",
        version,
        f"2026-01-01T00:00:{rng.randint(0, 59):02d}Z",
        decode(Ingress, spec),
    )
    return "ingresses", (namespace, name), made


CONFIGS = (
    mesh.LOGGING,
    MeshConfig(),
    MeshConfig(outbound=OutboundPolicy("REGISTRY_ONLY")),
    MeshConfig(transport=Transport(http2=False)),
)


def credential(rng, version):
    namespace = rng.choice((*SPACES, "istio-system"))
    return "credentials", (namespace, "c"), o.Credential(namespace, "c", *rng.sample(CERTIFICATES, 3))


CERTIFICATES = ("one", "two", "three", "four")


MAKERS = (
    service, slices, pod, virtual_service, destination_rule, service_entry, workload_entry, sidecar,
    peer_authentication, gateway, credential, delegate, authorization_policy, envoy_filter, ingress,
)  # fmt: skip


def sets_of(views, pod):
    gateway = pod.name == "ingress"
    view = views.of(pod, "router" if gateway else "sidecar")
    return apply(generate(view), view.patches, gateway).sets


def everything(views, objects):
    out = {}
    for key, p in sorted(objects.pods.items()):
        for type_url, sets in sets_of(views, p).items():
            for s in sets:
                out |= {(key, type_url, n): r.version for n, r in s.resources.items()}
    return out


class Proxy:
    """A proxy that takes everything: what it has been sent, by type."""

    def __init__(self):
        self.session, self.has = Session(), {}
        self.asked = {t: set() for t in (names.EDS, names.RDS)}

    def offer(self, sets):
        todo = self.session.offer(sets)
        if not self.has:
            for type_url in (names.CDS, names.LDS, names.VHDS):
                todo += self.session.receive(Request(type_url))[0]
            # A cluster that names a secret asks for it, whether it is there or not.
            todo += self.session.receive(Request(names.SDS, subscribe=("kubernetes://c", "kubernetes://c-cacert")))[0]
        while todo:
            response = todo.pop(0)
            mine = self.has.setdefault(response.type_url, {})
            mine |= {r.name: r.version for r in response.resources}
            for name in response.removed:
                mine.pop(name, None)
            todo += self.session.receive(Request(response.type_url, response.nonce))[0]
            todo += self._ask(names.EDS, set(self.has.get(names.CDS, {})) & self._known(sets, names.EDS))
            todo += self._ask(names.RDS, self._known(sets, names.RDS))

    @staticmethod
    def _known(sets, type_url):
        return {n for s in sets.get(type_url, ()) for n in s.resources}

    def _ask(self, type_url, wanted):
        """Envoy asks for the endpoints of its clusters and for the routes of its listeners, and lets go of others."""
        new, gone = wanted - self.asked[type_url], self.asked[type_url] - wanted
        if not new and not gone:
            return []
        self.asked[type_url] = wanted
        for name in gone:
            self.has.get(type_url, {}).pop(name, None)
        request = Request(type_url, subscribe=tuple(sorted(new)), unsubscribe=tuple(sorted(gone)))
        return self.session.receive(request)[0]


@pytest.mark.parametrize("seed", range(24))
def test_a_proxy_has_the_sum_of_all_pushes(seed):
    """The same through the protocol: after each step the proxy has just what one built from scratch would get."""
    rng = random.Random(1000 + seed)
    objects = mesh.objects("")
    views, proxy = Views(Mesh(objects)), Proxy()
    pod = objects.pods[("default", "productpage-v1")]
    for step in range(40):
        sets = sets_of(views, pod)
        proxy.offer(sets)
        for type_url in (names.CDS, names.LDS, names.RDS, names.EDS, names.SDS):
            want = {n: r.version for s in sets[type_url] for n, r in s.resources.items()}
            assert proxy.has.get(type_url, {}) == want, f"step {step}: {names.SHORT[type_url]}"
        routed = {n for s in sets[names.RDS] for n in s.resources}
        want = {n: r.version for s in sets[names.VHDS] for n, r in s.resources.items() if n.partition("/")[0] in routed}
        have = {n: v for n, v in proxy.has.get(names.VHDS, {}).items() if n.partition("/")[0] in routed}
        assert have == want, f"step {step}: VHDS"
        collection, key, value = rng.choice(MAKERS)(rng, f"{seed}/{step}/{rng.random()}")
        known = [
            k for k in getattr(objects, collection) if k not in (("istio-system", "ingress"), (pod.namespace, pod.name))
        ]
        objects = objects.put(
            COLLECTIONS[collection], *((rng.choice(known), None) if known and rng.random() < 0.4 else (key, value))
        )
        views.advance(objects)


@pytest.mark.parametrize("seed", range(24))
def test_incremental_views_equal_a_build_from_scratch(seed):
    rng = random.Random(seed)
    objects = mesh.objects("")
    views = Views(Mesh(objects))
    everything(views, objects)
    for step in range(40):
        for _ in range(rng.randint(1, 3)):
            collection, key, value = rng.choice(MAKERS)(rng, f"{seed}/{step}/{rng.random()}")
            known = [k for k in getattr(objects, collection) if k != ("istio-system", "ingress")]
            if rng.random() < 0.03:
                objects = replace(objects, config=rng.choice(CONFIGS))
            if known and rng.random() < 0.35:
                objects = objects.put(COLLECTIONS[collection], rng.choice(known), None)
            else:
                objects = objects.put(COLLECTIONS[collection], key, value)
        views.advance(objects)
        if step % 8 == 0:
            for key, p in objects.pods.items():
                judge.invariants(judge.messages(views.of(p, "router" if key[1] == "ingress" else "sidecar")))
        got = everything(views, objects)
        want = everything(Views(Mesh(objects)), objects)
        different = sorted(str(k) for k in got.keys() | want.keys() if got.get(k) != want.get(k))
        assert different == [], f"step {step}: {different[:5]}"
