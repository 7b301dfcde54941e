"""How spans describe the workload that reports them.

Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#ProxyConfig-TracingServiceName, and the tags
that Istio adds (``istio.canonical_service`` and so on).
"""

from __future__ import annotations

from lateen.api import objects as o
from lateen.api.canonical import canonical_name, canonical_revision
from lateen.mesh import proxies
from lateen.mesh.model import Mesh
from lateen.mesh.telemetry import Reporter
from lateen.wire.node import Abilities


def reporter(mesh: Mesh, pod: o.Pod, seat: str, agent: Abilities) -> Reporter:
    labels = pod.label_map
    defaults = mesh.proxy_defaults
    name, revision = canonical_name(labels, pod.owner or pod.name), canonical_revision(labels)
    naming = proxies.tracing_service_name(defaults, pod.notes)
    service = labels.get("app") or pod.owner
    if naming.startswith("CANONICAL"):
        service = name
    if naming != "CANONICAL_NAME_ONLY":
        service = f"{service}.{pod.namespace}"
    facts = (
        ("istio.canonical_revision", revision),
        ("istio.canonical_service", name),
        ("istio.mesh_id", defaults.mesh_id or mesh.transport.trust_domain),
        ("istio.namespace", pod.namespace),
        ("istio.cluster_id", mesh.cluster.name),
    )
    return Reporter(service, facts, proxies.tracing(defaults, pod.notes), mesh.cluster.name, seat, agent)
