"""Gateway API routes for ``describe``: those for callers of a service, and those that expose it at Gateways."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient, KubeError

KINDS = (kinds.HTTP_ROUTE, kinds.GRPC_ROUTE, kinds.TLS_ROUTE, kinds.TCP_ROUTE, kinds.UDP_ROUTE)


class Routed(NamedTuple):
    routes: Sequence[tuple[Kind, Json]] = ()
    gateways: Sequence[Json] = ()


async def routed(client: HttpClient) -> Routed:
    """Read the routes; empty if the cluster does not have the Gateway API, or the user may not list them."""

    async def listed(kind: Kind) -> list[Json]:
        try:
            return (await client.list(kind))[0]
        except KubeError as e:
            if e.code not in (403, 404):
                raise
            return []

    found = await asyncio.gather(*(listed(k) for k in (*KINDS, kinds.KUBERNETES_GATEWAY)))
    routes = [(kind, route) for kind, some in zip(KINDS, found[:-1], strict=True) for route in some]
    return Routed(routes, found[-1])


def of_callers(service: Json, found: Routed) -> list[str]:
    """Lines for the routes whose parent is the service."""
    out: list[str] = []
    for kind, route in found.routes:
        for i, parent in enumerate(dig(route, "spec", "parentRefs", default=[])):
            if _names(parent, route, "Service", service):
                own = route["metadata"]["namespace"]
                whose = "" if own == service["metadata"]["namespace"] else f" (for clients in {own})"
                port = f" (port {parent['port']})" if parent.get("port") else ""
                out += [f"{kind.kind}: {_called(route)}{whose}{port}", *_rules(kind, route), *_refused(route, i)]
    return out


def exposed(service: Json, found: Routed) -> list[str]:
    """For each Gateway with a route to the service: its address, and the route."""
    at: dict[str, list[str]] = {}
    for kind, route in found.routes:
        backends = [b for rule in dig(route, "spec", "rules", default=[]) for b in rule.get("backendRefs") or []]
        if not any(_names({"kind": "Service", "group": ""} | b, route, "Service", service) for b in backends):
            continue
        for i, parent in enumerate(dig(route, "spec", "parentRefs", default=[])):
            if str(parent.get("kind") or "Gateway") != "Service":
                listener = f" (listener {parent['sectionName']})" if parent.get("sectionName") else ""
                lines = [f"{kind.kind}: {_called(route)}{listener}", *_rules(kind, route), *_refused(route, i)]
                at.setdefault(_exposing(parent, route, found.gateways), []).extend(lines)
    return [line for title, lines in at.items() for line in ("--------------------", title, *lines)]


def _names(ref: Json, route: Json, kind: str, service: Json) -> bool:
    meta = service["metadata"]
    group = ref.get("group", kinds.GATEWAY_API)
    return (
        (str(ref.get("kind") or "Gateway"), group if group != "core" else "") == (kind, "")
        and ref.get("name") == meta["name"]
        and (ref.get("namespace") or route["metadata"]["namespace"]) == meta["namespace"]
    )


def _exposing(parent: Json, route: Json, gateways: Sequence[Json]) -> str:
    namespace = str(parent.get("namespace") or route["metadata"]["namespace"])
    kind, name = str(parent.get("kind") or "Gateway"), str(parent.get("name"))
    for gateway in gateways if kind == "Gateway" else ():
        there = gateway["metadata"]
        if (there["namespace"], there["name"]) == (namespace, name):
            found = [str(a.get("value")) for a in dig(gateway, "status", "addresses", default=[])]
            return f"Exposed on Gateway {name}.{namespace} at {', '.join(found) or '(no address yet)'}"
    return f"Exposed on {kind} {name}.{namespace}"


def _called(route: Json) -> str:
    meta = route["metadata"]
    return f"{meta['name']}{'' if meta['namespace'] == 'default' else '.' + meta['namespace']}"


def _rules(kind: Kind, route: Json) -> Iterator[str]:
    """A line for each rule: its number or name, its matches, and its destinations with their shares."""
    hosts = dig(route, "spec", "hostnames", default=[])
    for i, rule in enumerate(dig(route, "spec", "rules", default=[]), 1):
        name = f'rule "{rule["name"]}"' if rule.get("name") else f"rule {i}"
        yield f"   {name}: {_matches(kind, rule, hosts)} -> {_action(rule)}"


def _matches(kind: Kind, rule: Json, hosts: Sequence[str]) -> str:
    if kind in (kinds.TCP_ROUTE, kinds.UDP_ROUTE):
        return "every connection" if kind == kinds.TCP_ROUTE else "every datagram"
    if kind == kinds.TLS_ROUTE:
        return f"SNI {', '.join(hosts)}"
    found = " or ".join(_match(m) for m in rule.get("matches") or [{}])
    return f"{found} for {', '.join(hosts)}" if hosts else found


def _match(match: Json) -> str:
    """The conditions of one match as text; ``/*`` if there are none."""
    out = []
    if path := match.get("path"):
        value = str(path.get("value") or "/")
        prefix = f"{value.removesuffix('/')}/*"
        out.append({"Exact": value, "RegularExpression": f"regex {value}"}.get(str(path.get("type")), prefix))
    if isinstance(method := match.get("method"), str):
        out.append(f"method {method}")
    elif method:
        out.append(f"gRPC {method.get('service') or '*'}/{method.get('method') or '*'}")
    for field, word in (("headers", "header"), ("queryParams", "parameter")):
        out += [f"{word} {m.get('name')} {m.get('value')}" for m in match.get(field) or []]
    return " and ".join(out) or "/*"


def _action(rule: Json) -> str:
    if any(f.get("type") == "RequestRedirect" for f in rule.get("filters") or []):
        return "a redirect"
    backends = rule.get("backendRefs") or []
    total = sum(b.get("weight", 1) for b in backends)
    shown = []
    for b in backends:
        share = f" {100 * b.get('weight', 1) / total:.3g}%" if len(backends) > 1 and total else ""
        port = f":{b['port']}" if b.get("port") else ""
        where = f".{b['namespace']}" if b.get("namespace") else ""
        shown.append(f"{b.get('name')}{where}{port}{share}")
    return ", ".join(shown) or "nothing"


def _refused(route: Json, parent: int) -> Iterator[str]:
    """Warnings from the route's status about its attachment to a parent and about its references."""
    wanted = dig(route, "spec", "parentRefs", default=[])[parent]
    same = ("group", "kind", "namespace", "name", "sectionName", "port")
    for at in dig(route, "status", "parents", default=[]):
        given = at.get("parentRef") or {}
        if all(given.get(k) == wanted.get(k) for k in same if k in wanted):
            for c in at.get("conditions") or []:
                if c.get("type") in ("Accepted", "ResolvedRefs") and c.get("status") == "False":
                    yield f"   WARNING: {c['type']} is False: {c.get('message') or c.get('reason')}"
            return
