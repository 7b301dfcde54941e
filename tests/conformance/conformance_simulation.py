"""Configuration and calls in; listener, filter chain, route, virtual host, cluster or error out.

``calls.json`` has calls of one proxy, ``sidecar-routes.json`` the virtual hosts of one of its route configurations.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from judge import certificates, messages
from simulator import Call, Simulator

from lateen.api import kinds
from lateen.control.world import World
from lateen.kit import yamldoc
from lateen.mesh.model import Mesh
from lateen.mesh.views import Views
from lateen.wire import names

ADDRESS = "1.1.1.1"

KNOWN = "@knownServices"
SERVICES = """
kind: ServiceEntry
metadata: {name: service-%(name)s, namespace: %(namespace)s}
spec:
  hosts: [%(name)s.%(namespace)s.svc.cluster.local]
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 8080, name: http-alt, protocol: HTTP}]
  location: MESH_INTERNAL
  resolution: STATIC
"""
"""What the name stands for in the cases: three services, each on ports 80 and 8080."""
KNOWN_SERVICES = "---".join(
    SERVICES % {"name": name, "namespace": namespace}
    for name, namespace in (("known", "default"), ("alt-known", "default"), ("not-default", "not-default"))
)
_UIDS = itertools.count()


def real(folder: Path) -> Iterator[tuple[str, str | None]]:
    """The calls, made through an Envoy; what cannot be seen from outside is left out."""
    import real as envoy

    envoy.isolate()
    for file in sorted(folder.glob("*.json")):
        for case in json.loads(file.read_text()):
            if "calls" in case:
                yield from _really(case, envoy)


def _really(case: dict, envoy: Any) -> Iterator[tuple[str, str | None]]:
    proxy = case["proxy"]
    kind = proxy.get("type") or "sidecar"
    pairs = [(entry, _call(entry["call"], kind == "router")) for entry in case["calls"]]
    pairs = [(entry, call) for entry, call in pairs if envoy.unseen(call, entry["result"]) is None]
    if not pairs:
        return
    text = f"{case['config']}\n---\n{case['kubeConfig']}"
    try:
        views, pod = world(text, proxy.get("labels") or {}, proxy.get("namespace") or "default", kind, real=True)
        found = asyncio.run(envoy.run(messages(views.of(pod, kind)), [call for _, call in pairs]))
    except Exception as e:  # noqa: BLE001 - one case must not end the others
        for entry, _ in pairs:
            yield f"{case['id']}/{entry['name']}", f"{type(e).__name__}: {e}"
        return
    known = {s.host for s in views.mesh.hosts()}
    for (entry, _), got in zip(pairs, found, strict=True):
        yield f"{case['id']}/{entry['name']}", envoy.verdict(entry["result"], got, lambda c: _full(c, known))


def cases(folder: Path) -> Iterator[tuple[str, str | None]]:
    for file in sorted(folder.glob("*.json")):
        for case in json.loads(file.read_text()):
            if "calls" in case:
                yield from _calls(case)
            elif "expectedVirtualHosts" in case:
                yield case["name"], _hosts(case)


def world(
    documents: str, labels: dict[str, str], namespace: str, kind: str, real: bool = False
) -> tuple[Views, object]:
    """The mesh of some documents, with the pod of the proxy in question; ``real``: secrets have real certificates."""
    out = World("istio-system", lambda: None)
    pod = {
        "metadata": {"name": "proxy", "namespace": namespace, "labels": labels, "uid": "p"},
        "spec": {"containers": [], "serviceAccountName": "default"},
        "status": {"podIP": ADDRESS, "conditions": [{"type": "Ready", "status": "True"}]},
    }
    out.changed(kinds.POD, (namespace, "proxy"), None, pod)
    for obj in yamldoc.objects(documents):
        meta = obj["metadata"]
        meta.setdefault("namespace", "default")
        meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")  # of one second, as in the cases
        meta.setdefault("uid", f"{next(_UIDS)}")  # what is cached goes by it
        if kind := kinds.named(obj["kind"]):
            out.changed(kind, (meta["namespace"], meta["name"]), None, obj)
        for name in _secrets(obj):
            _credential(out, name, certificates() if real else {"cert": "chain", "key": "key", "ca": "ca"})
    if out.bad:
        raise ValueError(f"not readable: {out.bad}")
    views = Views(Mesh(out.objects))
    return views, out.objects.pods[(namespace, "proxy")]


def _secrets(obj: dict) -> Iterator[str]:
    spec = obj.get("spec") or {}
    for server in spec.get("servers") or []:
        tls = server.get("tls") or {}
        yield from filter(None, [tls.get("credentialName"), *(tls.get("credentialNames") or [])])
    for tls in spec.get("tls") or [] if obj["kind"] == "Ingress" else []:
        yield from filter(None, [tls.get("secretName")])


def _credential(out: World, name: str, pem: dict[str, str]) -> None:
    """Any certificate: matching does not look into it."""
    from lateen.api import objects as o

    found = o.Credential("istio-system", name, pem["cert"], pem["key"], pem["ca"])
    out.objects = out.objects.put(kinds.SECRET, ("istio-system", name), found)


def _calls(case: dict) -> Iterator[tuple[str, str | None]]:
    proxy = case["proxy"]
    try:
        views, pod = world(
            f"{case['config']}\n---\n{case['kubeConfig']}",
            proxy.get("labels") or {},
            proxy.get("namespace") or "default",
            proxy.get("type") or "sidecar",
        )
        found = messages(views.of(pod, proxy.get("type") or "sidecar"))
    except Exception as e:  # noqa: BLE001 - one case must not end the others
        for call in case["calls"]:
            yield f"{case['id']}/{call['name']}", f"{type(e).__name__}: {e}"
        return
    simulator = Simulator(found, ADDRESS)
    known = {s.host for s in views.mesh.hosts()}
    for entry in case["calls"]:
        got = simulator.run(_call(entry["call"], proxy.get("type") == "router"))
        yield f"{case['id']}/{entry['name']}", _compared(entry["result"], asdict(got), known)


def _call(given: dict, gateway: bool) -> Call:
    known = {
        "address": given.get("address", ""),
        "port": given.get("port", 0),
        "path": given.get("path") or "/",
        "protocol": given.get("protocol") or "tcp",
        "tls": given.get("tls") or "plaintext",
        "alpn": given.get("alpn", ""),
        "host": given.get("hostHeader", ""),
        "sni": given.get("sni", ""),
        "mode": given.get("callMode", "") or ("gateway" if gateway else ""),
        "source": given.get("mtlsSecretConfigName", ""),
        "headers": given.get("headers") or {},
    }
    return Call(**known)


def _compared(want: dict, got: dict, known: set[str]) -> str | None:
    if (want.get("error") or "") == "multiple filter chains matched":
        # Envoy refuses such a listener as a whole. Here the older gateway keeps the name: exactly one chain matches.
        return None if got["filterChainMatched"] != "" or got["error"] != want["error"] else f"got {got}"
    strict = want.get("strictMatch")
    for key in got:
        expected = want.get(key) or ""
        if key == "error" and not expected and got["error"]:
            return f"expected success, got {_short(got)}"
        if not expected and not (strict and key not in ("error", "routeMatched")):
            continue
        if got[key] != expected and got[key] != _full(expected, known):
            return f"{key}: expected {expected!r}, got {_short(got)}"
    return None


def _full(cluster: str, known: set[str]) -> str:
    """The cases' configurations have no cluster domain, so short names end with the namespace there."""
    head, _, host = cluster.rpartition("|")
    return f"{head}|{host}.svc.cluster.local" if head and host.count(".") == 1 and host not in known else cluster


def _short(got: dict) -> str:
    return ", ".join(f"{k}={v}" for k, v in got.items() if v)


def _services(given: Any) -> str:
    """As documents, as a list of them, or by a name; names that are not known stand for none."""
    if isinstance(given, str) and given.startswith("@"):
        return KNOWN_SERVICES if given == KNOWN else ""
    return given if isinstance(given, str) else "\n---\n".join(yamldoc.dump(d) for d in given or [])


def _hosts(case: dict) -> str | None:
    documents = _services(case["services"])
    try:
        views, pod = world(f"{documents}\n---\n{case['config']}", {}, case["proxyNamespace"], "sidecar")
        routes = Simulator(messages(views.of(pod, "sidecar"))).routes(case["routeName"])
    except Exception as e:  # noqa: BLE001 - one case must not end the others
        return f"{type(e).__name__}: {e}"
    expected = case["expectedVirtualHosts"]
    got = {}
    for host in routes.virtual_hosts if routes else ():
        clusters = [r.route.cluster or r.route.weighted_clusters.clusters[0].name for r in host.routes]
        name = names.plain_host(host.name)
        got[name.rpartition(":")[0] or name] = clusters
    if expected is None:
        return None if not got or set(got) <= {"allow_any", "block_all"} else f"expected no hosts, got {got}"
    for name, clusters in expected.items():
        if got.get(name) != clusters:
            return f"{name}: expected {clusters}, got {got.get(name)} of {got}"
    return None
