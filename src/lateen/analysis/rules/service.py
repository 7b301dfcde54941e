"""Services, ServiceEntries and Deployments: ports, protocols, users."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import SYSTEM, Message, Snapshot, Source, message
from lateen.api import kinds
from lateen.api.domain import CLUSTER_NAME
from lateen.api.reading import asks_for_sidecar, has_proxy, port_protocol
from lateen.kit.jsons import dig

PROXY_UID = 1337
MANAGED, WAYPOINT = "gateway.istio.io/managed", "istio.io-mesh-controller"
CONTROLLERS = ("istio.io-gateway-controller", WAYPOINT, "istio.io-eastwest-controller")
CAPTURE = "ISTIO_META_DNS_CAPTURE"
ALLOCATE = {"ISTIO_META_DNS_AUTO_ALLOCATE", "PILOT_ENABLE_IP_AUTOALLOCATE"}
OUR_CONTAINERS = {"istio-proxy", "istio-operator"}


def _control_plane(s: Source) -> bool:
    """Whether a Service belongs to the control plane or to an automatically deployed gateway: no user has written
    it."""
    return "istio" in s.labels or s.labels.get("release") == "istio" or s.labels.get(MANAGED) in CONTROLLERS


@analyzer("service.PortNameAnalyzer", "Checks the port names associated with each service")
def port_names(snapshot: Snapshot) -> Iterator[Message]:
    for s in snapshot.all(kinds.SERVICE):
        if s.namespace in SYSTEM or _control_plane(s):
            continue
        external = s.spec.get("type") == "ExternalName"
        for i, port in enumerate(s.spec.get("ports") or []):
            path = ("spec", "ports", i, "name")
            if external:
                if not port_protocol(port) or port.get("name") == "tcp":
                    yield message("IST0150", s, path=path, each=True)
            elif not port_protocol(port):
                target = port.get("targetPort", port.get("port"))
                yield message("IST0118", s, port.get("name") or "", port.get("port"), target, path=path, each=True)


@analyzer("deployment.MultiServiceAnalyzer", "Checks association between services and pods")
def multi_service(snapshot: Snapshot) -> Iterator[Message]:
    for d in snapshot.all(kinds.DEPLOYMENT):
        template = d.spec.get("template") or {}
        labels = dig(template, "metadata", "labels", default={})
        annotations = dig(template, "metadata", "annotations", default={})
        if d.labels.get(MANAGED) == WAYPOINT:
            continue
        in_mesh = has_proxy(template) or asks_for_sidecar(snapshot.namespace_labels(d.namespace), labels, annotations)
        if in_mesh and (mine := snapshot.services_of(d.namespace, labels)):
            yield from _protocols(d, mine)
            yield from _targets(d, mine)


def _protocols(d: Source, services: list[Source]) -> Iterator[Message]:
    found: dict[int, dict[str, set[str]]] = {}
    for s in services:
        for port in s.spec.get("ports") or []:
            by = found.setdefault(port.get("port", 0), {})
            by.setdefault(str(port.get("protocol") or "TCP"), set()).add(s.full)
    for number, by in sorted(found.items()):
        if len(by) > 1:
            names = "[" + " ".join(sorted({n for names in by.values() for n in names})) + "]"
            yield message("IST0116", d, d.name, number, names, path=("metadata", "name"))


def _targets(d: Source, services: list[Source]) -> Iterator[Message]:
    found: dict[str, dict[int, set[str]]] = {}
    for s in services:
        for port in s.spec.get("ports") or []:
            target = str(port.get("targetPort") or port.get("port"))
            found.setdefault(target, {}).setdefault(port.get("port", 0), set()).add(s.full)
    for target, by in sorted(found.items()):
        names = sorted({n for names in by.values() for n in names})
        if len(by) > 1:
            numbers = "[" + " ".join(map(str, sorted(by))) + "]"
            shown = "[" + " ".join(names) + "]"
            yield message("IST0137", d, d.name, shown, target, numbers, path=("metadata", "name"))


@analyzer("applicationUID.Analyzer", "Checks invalid application UID")
def application_uid(snapshot: Snapshot) -> Iterator[Message]:
    for s in snapshot.all(kinds.POD, kinds.DEPLOYMENT):
        if "istio" in s.labels or s.labels.get("release") == "istio":  # the control plane's own pods
            continue
        spec = s.spec if s.id == kinds.POD.id else dig(s.spec, "template", "spec", default={})
        apps = [c for c in spec.get("containers") or [] if c.get("name") not in OUR_CONTAINERS]
        pod = dig(spec, "securityContext", "runAsUser") == PROXY_UID
        if pod or (apps and any(dig(c, "securityContext", "runAsUser") == PROXY_UID for c in apps)):
            yield message("IST0144", s, path=("spec",))


@analyzer("serviceentry.Analyzer", "Checks the validity of ServiceEntry")
def addresses(snapshot: Snapshot) -> Iterator[Message]:
    metadata = dig(snapshot.mesh, "defaultConfig", "proxyMetadata", default={})
    on = {k for k, v in metadata.items() if str(v).lower() == "true"}
    if CAPTURE in on and on & ALLOCATE:
        return
    for se in snapshot.all(kinds.SERVICE_ENTRY):
        if se.spec.get("addresses") or dig(se.obj, "status", "addresses"):
            continue
        for i, port in enumerate(se.spec.get("ports") or []):
            if str(port.get("protocol") or "").upper() in ("", "TCP"):
                yield message("IST0134", se, path=("spec", "ports", i, "name"), each=True)


@analyzer(
    "serviceentry.ConflictingServiceEntryProtocolAnalyzer",
    "Checks if multiple ServiceEntries define the same host and port with different protocols",
)
def conflicting_protocols(snapshot: Snapshot) -> Iterator[Message]:
    """Only reported if some namespace sees both entries, and once for each entry."""
    reported: set[str] = set()
    found: dict[tuple[str, int], list[tuple[Source, str, set[str]]]] = {}
    for se in snapshot.all(kinds.SERVICE_ENTRY):
        seen = snapshot.visible(se, se.spec.get("exportTo") or [])
        for host in se.spec.get("hosts") or []:
            for port in se.spec.get("ports") or []:
                claim = (se, str(port.get("protocol") or "").upper(), seen)
                found.setdefault((str(host), port.get("number")), []).append(claim)
    for (host, number), claims in sorted(found.items(), key=lambda kv: (kv[0][0], str(kv[0][1]))):
        if len({p for _, p, _ in claims}) < 2:
            continue
        for se, protocol, seen in claims:
            rivals = [c for c in claims if c[0] is not se and _meet(seen, c[2])]
            protocols = sorted({protocol, *(p for _, p, _ in rivals)})
            if len(protocols) > 1 and se.full not in reported:
                reported.add(se.full)
                names = ", ".join(sorted({se.full, *(s.full for s, _, _ in rivals)}))
                yield message("IST0177", se, names, host, number, ", ".join(protocols), path=("spec", "ports"))


def _meet(a: set[str], b: set[str]) -> bool:
    return "*" in a or "*" in b or bool(a & b)


def _ports(s: Source) -> list[str]:
    """The ports without nodePorts, which each cluster assigns."""
    return sorted(repr(sorted((k, v) for k, v in p.items() if k != "nodePort")) for p in s.spec.get("ports") or [])


@analyzer("services.MultiClusterServiceAnalyzer", "Check the validity of services in the multi-cluster environment")
def across_clusters(snapshot: Snapshot) -> Iterator[Message]:
    found: dict[tuple[str, str], dict[str, Source]] = {}
    for s in snapshot.everywhere(kinds.SERVICE):
        found.setdefault((s.namespace, s.name), {})[s.cluster] = s
    for (namespace, name), by in found.items():
        differences = [
            what
            for what, value in (
                ("service has mixed mode like headless and clusterIP", lambda s: s.spec.get("clusterIP") == "None"),
                ("service type is inconsistent", lambda s: s.spec.get("type", "ClusterIP")),
                ("service ports are inconsistent", _ports),
            )
            if len({repr(value(s)) for s in by.values()}) > 1
        ]
        if differences:
            first = by.get("") or next(iter(by.values()))
            own = f"{CLUSTER_NAME} (analyzed)" if CLUSTER_NAME in by else CLUSTER_NAME
            clusters = "[" + " ".join(sorted(name or own for name in by)) + "]"
            yield message("IST0170", first, name, namespace, clusters, "; ".join(differences))
