"""A small mesh for tests: Bookinfo's services with one pod each."""

from dataclasses import replace

from lateen.api import decoding, kinds
from lateen.api import objects as o
from lateen.api.config import decode
from lateen.api.domain import CLUSTER_DOMAIN
from lateen.kit import yamldoc
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects
from lateen.mesh.observability import Reporting
from lateen.mesh.settings import Cluster, MeshConfig
from lateen.mesh.views import Views
from lateen.wire import connections, labels, requests

AGENT = dict.fromkeys((connections.METADATA, labels.METADATA, requests.METADATA, requests.MESSAGES_METADATA), "true")
"""What an agent says of itself."""
LOGGING = MeshConfig(reporting=Reporting("/dev/stdout"))
EVERY_CLUSTER = MeshConfig(Cluster(filtered=False), reporting=Reporting("/dev/stdout"))
"""At gateways, whether they call it or not."""
FRONT = """
kind: Gateway
metadata: {name: front, namespace: default}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
kind: VirtualService
metadata: {name: front, namespace: default}
spec: {hosts: ["*"], gateways: [front], http: [{route: [{destination: {host: reviews}}]}]}
"""
"""Whatever comes to the ingress gateway goes to the reviews."""


def pod(name, address, namespace="default", meshed=True, **labels):
    found = {**labels, **({"security.istio.io/tlsMode": "istio"} if meshed else {})}
    return o.Pod(
        namespace,
        name,
        name,
        address,
        tuple(sorted(found.items())),
        f"sa-{labels.get('app', name)}",
        name,
        (("", 9080, "TCP"),),
        True,
    )


def objects(documents="", config=LOGGING, meshed=True, protocol="http"):
    services, pods, slices = {}, {}, {}
    number = 1
    for name, versions in (("productpage", ("v1",)), ("reviews", ("v1", "v2", "v3")), ("ratings", ("v1",))):
        services[("default", name)] = o.Service(
            "default", name, f"10.96.0.{number}", (o.ServicePort(protocol, 9080, 9080, "TCP"),), (("app", name),)
        )
        found = []
        for version in versions:
            p = pod(f"{name}-{version}", f"10.244.0.{len(pods) + 2}", meshed=meshed, app=name, version=version)
            pods[("default", p.name)] = p
            found.append(o.Endpoint(p.address, 9080, p.name))
        slices[("default", name)] = (name, {protocol: tuple(found)})
        number += 1
    # Of a Service that documents may add.
    slices[("default", "dns")] = ("dns", {"dns": (o.Endpoint("10.244.0.2", 53, "productpage-v1"),)})
    gateway = pod("ingress", "10.244.0.99", "istio-system", app="istio-ingressgateway", istio="ingressgateway")
    gateway = replace(gateway, gateway=True)
    pods[("istio-system", "ingress")] = gateway
    services[("istio-system", "istio-ingressgateway")] = o.Service(
        "istio-system",
        "istio-ingressgateway",
        "10.96.0.99",
        (o.ServicePort("http2", 80, 8080, "TCP"),),
        (("istio", "ingressgateway"),),
    )
    found = {kinds.SERVICE: services, kinds.ENDPOINT_SLICE: slices, kinds.POD: pods}
    out = Objects(config, {kind.id: objects for kind, objects in found.items()})
    for i, doc in enumerate(yamldoc.objects(documents)):
        out = add(out, doc, i)
    return out


def add(found, doc, i):
    """With one more mesh object, the ``i``-th in age."""
    kind, name = kind_of(doc), doc["metadata"]["name"]
    namespace = doc["metadata"].get("namespace", "default") if kind.namespaced else ""
    if kind is kinds.SERVICE:
        return found.put(kind, (namespace, name), decoding.service(doc, CLUSTER_DOMAIN))
    if kind is kinds.CONFIG_MAP:
        return found.put(kind, (namespace, name), doc["data"]["ca.crt"])
    if kind is kinds.NAMESPACE:
        return found.put(kind, ("", name), decoding.namespace(doc))
    spec = decoding.with_lower_hosts(decode(kind.spec, doc.get("spec") or {}))
    made = o.Resource(
        kind.ref(namespace, name),
        f"u{i}-{name}",
        str(doc),
        f"2026-01-01T00:00:{i:02d}Z",
        spec,
        dry_run=(doc["metadata"].get("annotations") or {}).get("istio.io/dry-run") == "true",
        labels=tuple(sorted((doc["metadata"].get("labels") or {}).items())),
        notes=decoding.notes(doc["metadata"]),
    )
    return found.put(kind, (namespace, name), made)


def kind_of(doc):
    """By its apiVersion, or else the first kind of its name."""
    return kinds.of(doc) if "apiVersion" in doc else kinds.named(doc["kind"])


def view(found, name="productpage-v1", namespace="default", agent=AGENT):
    views = Views(Mesh(found))
    kind = "router" if name == "ingress" else "sidecar"
    return views.of(found.pods[(namespace, name)], kind, agent)
