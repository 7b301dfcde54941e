"""Redirects probes to the agent, which asks the application without going through the proxy: neither mutual TLS nor
policies affect them, and the answer is the application's own. Lifecycle hooks over HTTP and TCP are handled likewise.

Source: https://istio.io/latest/docs/ops/configuration/mesh/app-health-check/
"""

from __future__ import annotations

from collections.abc import Iterator

from lateen.inject.context import PROXY
from lateen.kit import jsons
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig

VARIABLE = "ISTIO_KUBE_APP_PROBERS"
ANNOTATION = "sidecar.istio.io/rewriteAppHTTPProbers"
_PROBES = (("readinessProbe", "readyz"), ("livenessProbe", "livez"), ("startupProbe", "startupz"))
_HOOKS = (("preStop", "prestopz"), ("postStart", "poststartz"))


def wanted(annotations: Json, default: bool) -> bool:
    said = annotations.get(ANNOTATION)
    return default if said is None else str(said).lower() in ("true", "t", "1")


def _handlers(pod: Json) -> Iterator[tuple[str, Json, Json]]:
    """(path at the agent, the probe or hook, its container)."""
    spec = pod.get("spec") or {}
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        if container.get("name") == PROXY:
            continue
        for field, path in _PROBES:
            if found := container.get(field):
                yield f"/app-health/{container['name']}/{path}", found, container
        for field, path in _HOOKS:
            if found := dig(container, "lifecycle", field):
                yield f"/app-lifecycle/{container['name']}/{path}", found, container


def probers(pod: Json, status_port: int) -> Json:
    """The agent's configuration: path -> handler with a numeric port. Probes that already point at the agent, and those
    with unknown port names, are left out."""
    out = {}
    for path, handler, container in _handlers(pod):
        if found := _prober(handler, container, status_port):
            out[path] = found
    return dict(sorted(out.items()))


def _prober(handler: Json, container: Json, status_port: int) -> Json | None:
    kind = next((k for k in ("httpGet", "tcpSocket", "grpc") if handler.get(k)), None)
    if kind is None:
        return None
    action = {k: v for k, v in handler[kind].items() if v not in (None, "")}
    if kind != "grpc":
        port = _number(action.get("port"), container)
        if port is None or port == status_port:
            return None
        action["port"] = port
    out: Json = {kind: action}
    if handler.get("timeoutSeconds"):
        out["timeoutSeconds"] = handler["timeoutSeconds"]
    return out


def _number(port: object, container: Json) -> int | None:
    if isinstance(port, int):
        return port
    named = {p.get("name"): p.get("containerPort") for p in container.get("ports") or []}
    found = named.get(port, port if isinstance(port, str) and digits(port) else None)
    return int(found) if found is not None else None


def rewrite(pod: Json, status_port: int) -> None:
    """Point every probe and hook of the pod at the agent. Modifies the pod."""
    for path, handler, _ in _handlers(pod):
        if not any(handler.get(k) for k in ("httpGet", "tcpSocket", "grpc")):
            continue
        get = handler.get("httpGet")
        handler["httpGet"] = {**(get or {}), "path": path, "port": status_port}
        if str((get or {}).get("scheme") or "").upper() == "HTTPS":
            handler["httpGet"]["scheme"] = "HTTP"  # the agent connects to the application with HTTPS
        handler.pop("tcpSocket", None)
        handler.pop("grpc", None)


def tell(proxy: Json, found: Json, injected_before: bool) -> None:
    """Put the probers into the proxy's environment; those of an earlier injection are kept, because the probes of those
    containers already point at the agent. Modifies the container."""
    if not found:
        return
    env = proxy.setdefault("env", [])
    for item in env if injected_before else ():
        if item.get("name") == VARIABLE:
            before = jsons.loads(item.get("value") or "{}")
            item["value"] = jsons.canonical({**found, **before}).decode()
            return
    env.append({"name": VARIABLE, "value": jsons.canonical(found).decode()})
