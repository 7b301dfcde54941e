"""Health of applications and the control plane, and the addresses of gateways, from Kubernetes objects. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from lateen.api.canonical import canonical_name
from lateen.api.reading import PROXY, is_finished, is_terminating, outside
from lateen.console.shapes import App, ControlPlane, Gateway, State
from lateen.inject.deployment import GATEWAY_NAME
from lateen.inject.workload import of_pod
from lateen.kit.jsons import Json, dig

GRAVITY: tuple[State, ...] = ("healthy", "idle", "degraded", "down")
"""From the best state to the worst."""


def ready(pod: Json) -> bool:
    statuses = dig(pod, "status", "containerStatuses", default=[])
    return bool(statuses) and all(s.get("ready") for s in statuses)


def finished(pod: Json) -> bool:
    """Whether the application has ended without an error, as those of Jobs do; its proxy may still run."""
    if is_finished(pod):
        return bool(dig(pod, "status", "phase") == "Succeeded")
    if dig(pod, "spec", "restartPolicy", default="Always") == "Always":
        return False
    statuses = [s for s in dig(pod, "status", "containerStatuses", default=[]) if s.get("name") != PROXY]
    return bool(statuses) and all(dig(s, "state", "terminated", "exitCode") == 0 for s in statuses)


def applications(pods: Iterable[Json], deployments: Iterable[Json]) -> list[App]:
    """The applications of one namespace, by canonical name, as metrics call them: wanted replicas (Deployments) against
    ready ones (pods)."""
    parts: dict[str, list[tuple[State, str]]] = {}
    covered = set()
    for d in deployments:
        name = d["metadata"]["name"]
        labels = dig(d, "spec", "template", "metadata", "labels", default={})
        parts.setdefault(canonical_name(labels, name), []).append(_deployment(d))
        covered.add(name)
    for p in pods:
        if is_terminating(p) or is_finished(p) or _owner(p) in covered:
            continue
        app = canonical_name(dig(p, "metadata", "labels", default={}), of_pod(p, "").name)
        parts.setdefault(app, []).append(_pod(p))
    return [_together(app, found) for app, found in sorted(parts.items())]


def _deployment(d: Json) -> tuple[State, str]:
    name, wanted = d["metadata"]["name"], int(dig(d, "spec", "replicas", default=1))
    have = int(dig(d, "status", "readyReplicas", default=0))
    if not wanted:
        return "idle", f"{name} is scaled to 0"
    if have >= wanted:
        return "healthy", ""
    return "degraded" if have else "down", f"{name}: {have} of {wanted} pods ready"


def _pod(p: Json) -> tuple[State, str]:
    name = p["metadata"]["name"]
    if ready(p):
        return "healthy", ""
    if finished(p):
        return "idle", f"pod {name} has finished"
    return "down", f"pod {name} is not ready" + (f" ({why})" if (why := reason(p)) else "")


def _owner(pod: Json) -> str:
    """The Deployment of a pod, whose ReplicaSet is named after it with a hash appended."""
    for owner in dig(pod, "metadata", "ownerReferences", default=[]):
        if owner.get("kind") == "ReplicaSet":
            return str(owner["name"]).rpartition("-")[0]
    return ""


def reason(pod: Json) -> str:
    """Why a pod is not ready: ``app: CrashLoopBackOff``; empty where its status does not say it."""
    for status in dig(pod, "status", "containerStatuses", default=[]):
        for state in ("waiting", "terminated"):
            if why := dig(status, "state", state, "reason"):
                return f"{status['name']}: {why}"
    return "" if ready(pod) else str(dig(pod, "status", "reason", default=""))


def _together(app: str, parts: list[tuple[State, str]]) -> App:
    states = {state for state, _ in parts}
    if len(states) == 1:
        state: State = states.pop()
    else:
        # healthy and idle: a version that is scaled down
        state = "degraded" if states & {"down", "degraded"} else "healthy"
    return {"name": app, "state": state, "says": "; ".join(says for _, says in parts if says)}


def control_plane(deployments: Iterable[Json], root: str) -> ControlPlane:
    """The health of istiod in the namespace ``root``, all revisions together."""
    found = [
        d
        for d in deployments
        if d["metadata"].get("namespace") == root and dig(d, "metadata", "labels", "app") == "istiod"
    ]
    if not found:
        return {"state": "down", "says": f"there is no istiod in {root}; {_LOSS}", "version": ""}
    parts = [_deployment(d) for d in found]
    images = (str(dig(d, "spec", "template", "spec", "containers", default=[{}])[0].get("image", "")) for d in found)
    version = ", ".join(sorted({i.rpartition(":")[2] for i in images}))
    says = "; ".join(s for _, s in parts if s)
    if not any(state in ("healthy", "degraded") for state, _ in parts):
        return {"state": "down", "says": f"{says}; {_LOSS}", "version": version}
    worse = any(state in ("degraded", "down") for state, _ in parts)
    return {"state": "degraded" if worse else "healthy", "says": says, "version": version}


_LOSS = "proxies keep their last configuration, new pods get no sidecar, certificates are not renewed"


def gateways(services: Iterable[Json], rules: Iterable[Json], routes: Iterable[Json] = ()) -> list[Gateway]:
    """The LoadBalancer Services of gateways and where they listen. ``rules``: VirtualServices, ``routes``: HTTPRoutes,
    both for examples."""
    rules, routes = list(rules), list(routes)
    out: list[Gateway] = []
    for s in services:
        selector, meta = dig(s, "spec", "selector", default={}), s["metadata"]
        if dig(s, "spec", "type") != "LoadBalancer" or not {"istio", GATEWAY_NAME} & selector.keys():
            continue
        where = outside(s)
        plain = next((where[p] for p in _http_ports(s) if p in where), None)
        examples: dict[str, str] = {}
        if plain:
            of = (str(meta.get("namespace", "")), str(selector.get(GATEWAY_NAME, "")))
            examples = _of_routes(plain, routes, of) if of[1] else _examples(plain, rules)
        out.append(
            {"name": meta["name"], "namespace": meta.get("namespace", ""), "addresses": where, "examples": examples}
        )
    return sorted(out, key=lambda g: (g["namespace"], g["name"]))


def _http_ports(service: Json) -> list[str]:
    ports = dig(service, "spec", "ports", default=[])
    return [str(p["port"]) for p in ports if str(p.get("name", "")).startswith("http") and p.get("name") != "https"]


def _curl(address: str, path: str, hosts: Iterable[str]) -> str:
    host = next((h for h in hosts if not str(h).startswith("*")), "")
    header = f"-H 'Host: {host}' " if host else ""
    return f"curl -s {header}http://{address.removesuffix(':80')}{path}"


def _of_routes(address: str, routes: list[Json], gateway: tuple[str, str]) -> dict[str, str]:
    """Like ``_examples``, of the HTTPRoutes of a Gateway (namespace, name)."""
    out: dict[str, str] = {}
    for route in routes:
        spec, namespace = route.get("spec") or {}, str(route["metadata"].get("namespace", ""))
        parents = spec.get("parentRefs") or []
        if any((p.get("namespace") or namespace, p.get("name")) == gateway for p in parents):
            matches = [m for rule in spec.get("rules") or [] for m in rule.get("matches") or []]
            literal = (dig(m, "path", "value") for m in matches if dig(m, "path", "type") != "RegularExpression")
            path = next((str(p) for p in literal if p), "/")
            out.setdefault(namespace, _curl(address, path, spec.get("hostnames") or []))
    return out


def _examples(address: str, rules: list[Json]) -> dict[str, str]:
    """Namespace -> a command that requests the first path of its first rule behind a gateway."""
    out: dict[str, str] = {}
    for rule in rules:
        spec = rule.get("spec") or {}
        if set(spec.get("gateways") or []) - {"mesh"}:
            paths = (
                dig(match, "uri", how)
                for http in spec.get("http") or []
                for match in http.get("match") or [{}]
                for how in ("exact", "prefix")
            )
            path = next((p for p in paths if p), "/")
            out.setdefault(str(rule["metadata"].get("namespace", "")), _curl(address, path, spec.get("hosts") or []))
    return out
