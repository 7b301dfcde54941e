"""lateen x describe: the mesh's configuration of a pod or a service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click

from lateen.analysis.effective import PeerModes
from lateen.analysis.hosts import destinations
from lateen.analysis.model import model
from lateen.analysis.snapshot import Snapshot, Source
from lateen.api import kinds
from lateen.api.ingress import Ingress
from lateen.api.objects import Resource
from lateen.api.reading import (
    cluster_domain,
    full_host,
    has_proxy,
    injector_values,
    is_terminating,
    outside,
    port_protocol,
)
from lateen.cli import pods
from lateen.cli.base import Group, command
from lateen.cli.connect import Target, complete, target_options
from lateen.cli.describe_routes import Routed, exposed, of_callers, routed
from lateen.cli.output import CliError
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient
from lateen.wire.revision import Revision

LINE = "--------------------"


class Found(NamedTuple):
    """The cluster's objects that are needed for a description."""

    services: list[Json]
    virtual_services: list[Json]
    destination_rules: list[Json]
    gateways: list[Json]
    modes: PeerModes
    domain: str
    """The cluster's DNS domain."""
    ingresses: Sequence[Resource[Ingress]] = ()
    """The Ingresses that the mesh's gateway serves."""
    routed: Routed = Routed()

    def full_host(self, host: object, namespace: str) -> str:
        return full_host(str(host or ""), namespace, self.domain)


@click.group(
    cls=Group,
    entries={
        "pod": ("lateen.cli.describe:describe_pod", "Describe a pod: its services, rules and policies."),
        "service": ("lateen.cli.describe:describe_service", "Describe a service: its rules and policies."),
        "object": ("lateen.cli.describe_object:describe_object", "Describe where an object of the mesh is attached."),
    },
    aliases={"po": "pod", "pods": "pod", "svc": "service"},
)
def describe() -> None:
    """Describe the mesh's configuration of a pod or a service, or where a mesh object is attached."""


async def _objects(client: HttpClient, root: str) -> Found:
    wanted = (kinds.SERVICE, kinds.VIRTUAL_SERVICE, kinds.DESTINATION_RULE, kinds.GATEWAY, kinds.PEER_AUTHENTICATION)
    lists = [found for found, _ in await asyncio.gather(*(client.list(k) for k in wanted))]
    ingresses, routes = await asyncio.gather(_ingresses(client, root), routed(client))
    values = injector_values(await client.get(kinds.CONFIG_MAP, root, Revision().injector))
    return Found(
        lists[0], lists[1], lists[2], lists[3], PeerModes(lists[4], root), cluster_domain(values), ingresses, routes
    )


async def _ingresses(client: HttpClient, root: str) -> Sequence[Resource[Ingress]]:
    sources = []
    for kind in (kinds.INGRESS, kinds.INGRESS_CLASS):
        found, _ = await client.list(kind)
        sources += [Source(kind.typed(obj)) for obj in found]
    settings = await client.get(kinds.CONFIG_MAP, root, "istio")
    if settings is not None:
        sources.append(Source({"apiVersion": "v1", "kind": "ConfigMap", **settings}))
    return model(Snapshot(sources, root=root)).ingresses()


def _labels(pod: Json) -> dict[str, str]:
    found: dict[str, str] = dig(pod, "metadata", "labels", default={})
    return found


@command("pod")
@click.argument("name", shell_complete=complete(kinds.POD))
@target_options
def describe_pod(target: Target, name: str) -> None:
    """Describe a pod's services, rules and policies: lateen x describe pod productpage-v1-…"""

    async def work(client: HttpClient) -> list[str]:
        pod = await pods.find(client, name, target.namespace)
        found = await _objects(client, target.istio_namespace)
        return [*of_pod(pod), *of_services(pod, found)]

    click.echo("\n".join(target.run(work)))


@command("service")
@click.argument("name", shell_complete=complete(kinds.SERVICE))
@target_options
def describe_service(target: Target, name: str) -> None:
    """Describe a service's rules and policies: lateen x describe service reviews"""

    async def work(client: HttpClient) -> list[str]:
        plain, _, other = name.partition(".")
        service = await client.get(kinds.SERVICE, other or target.namespace, plain)
        if service is None:
            raise CliError(f'service "{plain}" not found in namespace {other or target.namespace}')
        found = await _objects(client, target.istio_namespace)
        every, _ = await client.list(kinds.POD, service["metadata"]["namespace"])
        selector = dig(service, "spec", "selector", default={})
        mine = [p for p in every if selector and selectors.subset(selector, _labels(p)) and not is_terminating(p)]
        return of_service(service, mine, found)

    click.echo("\n".join(target.run(work)))


def of_pod(pod: Json) -> list[str]:
    meta = pod["metadata"]
    labels = meta.get("labels") or {}
    listed = [
        f"{p['containerPort']} ({c['name']})"
        for c in dig(pod, "spec", "containers", default=[])
        for p in c.get("ports") or []
    ]
    out = [f"Pod: {meta['name']}{'' if meta['namespace'] == 'default' else '.' + meta['namespace']}"]
    if has_proxy(pod):
        out.append(f"   Pod Revision: {labels.get('istio.io/rev', 'default')}")
    else:
        out.append("   WARNING: the pod is not part of the mesh: it has no istio-proxy container")
    out.append(f"   Pod Ports: {', '.join(listed) or '<none>'}")
    missing = [k for k in ("app", "version") if k not in labels]
    if missing:
        out.append(f"Suggestion: add {' and '.join(repr(m) for m in missing)} label to pod for Istio telemetry.")
    return out


def of_services(pod: Json, found: Found) -> list[str]:
    namespace = pod["metadata"]["namespace"]
    mine = [
        s
        for s in found.services
        if s["metadata"]["namespace"] == namespace
        and dig(s, "spec", "selector")
        and selectors.subset(s["spec"]["selector"], _labels(pod))
    ]
    if not mine:
        return [LINE, "   WARNING: no service selects this pod; nothing is routed to it by name"]
    return [line for service in mine for line in (LINE, *of_service(service, [pod], found))]


def of_service(service: Json, behind: list[Json], found: Found) -> list[str]:
    """``behind``: the pods to consider; only one if a pod is described."""
    meta = service["metadata"]
    out = [f"Service: {meta['name']}{'' if meta['namespace'] == 'default' else '.' + meta['namespace']}"]
    for port in dig(service, "spec", "ports", default=[]):
        protocol = port_protocol(port).upper() or "auto-detect"
        shown = f"{port.get('name') or '<unnamed>'} {port['port']}/{protocol}"
        out.append(f"   Port: {shown} targets pod port {port.get('targetPort', port['port'])}")
    host = found.full_host(meta["name"], meta["namespace"])
    out += _rules(host, behind, found)
    for vs in found.virtual_services:
        hosts = [found.full_host(h, vs["metadata"]["namespace"]) for h in dig(vs, "spec", "hosts", default=[])]
        if "mesh" in dig(vs, "spec", "gateways", default=["mesh"]) and host in hosts:
            out += [f"VirtualService: {vs['metadata']['name']}", *_routes(vs)]
    out += of_callers(service, found.routed)
    return [
        *out,
        LINE,
        "Effective PeerAuthentication:",
        *_modes(meta["namespace"], behind, found),
        *_exposed(service, found),
        *exposed(service, found.routed),
    ]


def _rules(host: str, behind: list[Json], found: Found) -> list[str]:
    out = []
    for dr in found.destination_rules:
        if found.full_host(dig(dr, "spec", "host"), dr["metadata"]["namespace"]) != host:
            continue
        out.append(f'DestinationRule: {dr["metadata"]["name"]} for "{dig(dr, "spec", "host")}"')
        subsets = dig(dr, "spec", "subsets", default=[])
        matching = [
            str(s.get("name"))
            for s in subsets
            if any(selectors.subset(s.get("labels") or {}, _labels(p)) for p in behind)
        ]
        other = [str(s.get("name")) for s in subsets if s.get("name") not in matching]
        if subsets:
            out.append(f"   Matching subsets: {','.join(matching) or '<none>'}")
            if other:
                out.append(f"      (Non-matching subsets {','.join(other)})")
        policy = dig(dr, "spec", "trafficPolicy", default={})
        out.append(f"   Traffic Policy: {', '.join(policy)}" if policy else "   No Traffic Policy")
    return out


def _routes(vs: Json) -> list[str]:
    """A line for each rule: its matches, and its destinations with their shares."""
    out = []
    for kind in ("http", "tls", "tcp"):
        for i, rule in enumerate(dig(vs, "spec", kind, default=[])):
            matches = " or ".join(_match(m) for m in rule.get("match") or [{}])
            name = f" {rule['name']}" if rule.get("name") else ""
            out.append(f"   {kind.upper()} route {i}{name}: {matches} -> {_action(rule)}")
    return out


def _action(rule: Json) -> str:
    if "redirect" in rule:
        return "a redirect"
    if "directResponse" in rule:
        return f"a response {dig(rule, 'directResponse', 'status')}"
    if "delegate" in rule:
        return f"VirtualService {dig(rule, 'delegate', 'name')}"
    routes = rule.get("route") or []
    shares = [r.get("weight") for r in routes]
    shown = [
        _destination(r.get("destination") or {}) + (f" {w or 0}%" if len(routes) > 1 and any(shares) else "")
        for r, w in zip(routes, shares, strict=True)
    ]
    return ", ".join(shown) or "nothing"


def _destination(d: Json) -> str:
    subset = f" subset {d['subset']}" if d.get("subset") else ""
    number = dig(d, "port", "number")
    return f"{d.get('host')}{f':{number}' if number else ''}{subset}"


def _match(match: Json) -> str:
    """The conditions of one match as text; ``/*`` if there are none."""
    out = []
    for field in ("uri", "scheme", "method", "authority"):
        if field in match:
            text = _text(match[field])
            out.append(text if field == "uri" else f"{field} {text}")
    for field, word in (("headers", "header"), ("queryParams", "parameter"), ("withoutHeaders", "without header")):
        out += [f"{word} {k}{f' {_text(v)}' if v else ''}" for k, v in (match.get(field) or {}).items()]
    out += [f"SNI {h}" for h in match.get("sniHosts") or []]
    if "port" in match:
        out.append(f"port {match['port']}")
    if match.get("sourceLabels"):
        out.append("from " + ",".join(f"{k}={v}" for k, v in match["sourceLabels"].items()))
    if match.get("sourceNamespace"):
        out.append(f"from namespace {match['sourceNamespace']}")
    return " and ".join(out) or "/*"


def _text(value: Json) -> str:
    if "exact" in value:
        return str(value["exact"])
    return f"{value['prefix']}*" if "prefix" in value else f"regex {value.get('regex')}"


def _modes(namespace: str, behind: list[Json], found: Found) -> list[str]:
    """The mTLS mode of each group of pods: one line if all agree, and the namespace's if there are no pods."""
    out: dict[str, None] = {}
    for labels in [_labels(p) for p in behind] or [{}]:
        mode, ports, policy = found.modes.of(namespace, labels)
        out[f"   Workload mTLS mode: {mode}{f' (PeerAuthentication {policy})' if policy else ''}"] = None
        for number, other in sorted(ports.items()):
            out[f"      port {number}: {other}"] = None
    return list(out)


def _exposed(service: Json, found: Found) -> list[str]:
    """The gateways' rules and Ingresses that expose the service."""
    out: list[str] = []
    host = found.full_host(service["metadata"]["name"], service["metadata"]["namespace"])
    for vs in found.virtual_services:
        meta = vs["metadata"]
        leads = any(found.full_host(d.get("host"), meta["namespace"]) == host for _, d, _ in destinations(vs["spec"]))
        if not leads or not [g for g in dig(vs, "spec", "gateways", default=[]) if g != "mesh"]:
            continue
        out += [f"VirtualService: {meta['name']}", *_routes(vs)]
    for ingress in found.ingresses:
        paths = list(_paths(ingress, service["metadata"]))
        out += [f"Ingress: {ingress.ref.name}", *paths] if paths else []
    return [LINE, f"Exposed on Ingress Gateway {_address(found.services)}", *out] if out else []


def _paths(ingress: Resource[Ingress], service: Json) -> Iterator[str]:
    """A line for each path that is routed to the service."""
    if ingress.ref.namespace != service["namespace"]:
        return
    spec = ingress.spec
    given = [(f"{r.host or '*'}{p.path or '/'}", p.backend) for r in spec.rules if r.http for p in r.http.paths]
    if spec.default_backend:
        given.append(("requests that match no rule", spec.default_backend))
    for taken, backend in given:
        if backend.service is not None and backend.service.name == service["name"]:
            port = backend.service.port
            yield f"   {taken} -> {backend.service.name}:{port.name or port.number}"


def _address(services: list[Json]) -> str:
    for s in services:
        if dig(s, "spec", "selector", "istio") == "ingressgateway" and (at := outside(s).get("80")):
            return f"http://{at.removesuffix(':80')}"
    return "(it has no address outside the cluster)"
