"""Objects that are accepted but have less effect than their authors may expect. Istio does not report these."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.bindings import age
from lateen.analysis.hosts import Hosts
from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Snapshot, Source, message
from lateen.api import kinds
from lateen.api.reading import containers, has_proxy
from lateen.kit.jsons import Json, dig

CONNECTIONS = ("", "TCP", "MONGO", "MYSQL", "REDIS")


@analyzer(
    "destinationrule.NamespaceAnalyzer", "Checks for destination rules in namespaces where no client looks for them"
)
def namespaces(snapshot: Snapshot) -> Iterator[Message]:
    """A rule applies to clients in its own namespace; one in the service's or the root namespace also to others."""
    hosts = Hosts.of(snapshot)
    root = str(snapshot.mesh.get("rootNamespace") or snapshot.root)
    for dr in snapshot.all(kinds.DESTINATION_RULE):
        name = str(dr.spec.get("host") or "")
        if dr.namespace == root or not name or name.startswith("*"):
            continue
        host = hosts.find(name, dr.namespace, {dr.namespace})
        if host is None or host.source.namespace == dr.namespace:
            continue
        if not any(has_proxy(p.obj) for p in snapshot.of_namespace(kinds.POD, dr.namespace)):
            owner = host.source.namespace
            yield message("LAT0105", dr, dr.namespace, owner, root, path=("metadata", "namespace"))


@analyzer(
    "serviceentry.SharedPortAnalyzer",
    "Checks for service entries whose connections cannot be distinguished from another's",
)
def shared_ports(snapshot: Snapshot) -> Iterator[Message]:
    """Without an address, connections can be distinguished only by port: the oldest entry gets all of them."""
    first: dict[object, Source] = {}
    for se in sorted(snapshot.all(kinds.SERVICE_ENTRY), key=age):
        if se.spec.get("addresses") or se.spec.get("resolution") in (None, "NONE"):
            continue
        for i, port in enumerate(se.spec.get("ports") or []):
            if str(port.get("protocol") or "").upper() not in CONNECTIONS:
                continue
            older = first.setdefault(port.get("number"), se)
            if older is not se and older.spec.get("hosts") != se.spec.get("hosts"):
                yield message("LAT0106", se, port.get("number"), older.full, path=("spec", "ports", i))


@analyzer(
    "authn.PortLevelMtlsAnalyzer",
    "Checks whether the ports of portLevelMtls are the workloads' own",
)
def ports(snapshot: Snapshot) -> Iterator[Message]:
    for pa in snapshot.all(kinds.PEER_AUTHENTICATION):
        given = pa.spec.get("portLevelMtls") or {}
        labels = dig(pa.spec, "selector", "matchLabels", default={})
        pods = snapshot.pods(labels, pa.namespace) if given and labels else []
        if not pods:
            continue
        known: set[str] = set()
        of_services: dict[str, str] = {}
        for pod in pods:
            known |= {str(p.get("containerPort")) for c in containers(pod.spec) for p in c.get("ports") or []}
            for service in snapshot.services_of(pod.namespace, pod.labels):
                for port in service.spec.get("ports") or []:
                    target = _target(pod, port)
                    known.add(target)
                    of_services[str(port.get("port"))] = target
        for key in given:
            if known and str(key) not in known:
                other = of_services.get(str(key))
                hint = f"; {key} is the Service's port, and leads to {other}" if other else ""
                yield message("LAT0107", pa, key, hint, path=("spec", "portLevelMtls", str(key)))


def _target(pod: Source, port: Json) -> str:
    """The pod port that a port of a Service leads to."""
    target = port.get("targetPort") or port.get("port")
    if isinstance(target, int):
        return str(target)
    named = [
        p.get("containerPort") for c in containers(pod.spec) for p in c.get("ports") or [] if p.get("name") == target
    ]
    return str(named[0] if named else target)
