"""Kubernetes' Ingress as routes and listeners.

Facts: https://kubernetes.io/docs/concepts/services-networking/ingress/ (hosts, types of paths, their precedence, the
default backend). What an Ingress leads to and is not there answers 503, as with Istio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from lateen.api import objects as o
from lateen.api.ingress import Backend as Wanted
from lateen.api.ingress import Ingress, Path
from lateen.api.networking.http import RequestMatch, RouteSettings, StringMatch
from lateen.api.networking.server_tls import ServerTLS
from lateen.mesh.outcomes import Outcome, Problem
from lateen.mesh.patterns import meet, narrowness
from lateen.mesh.routing import Attached, Backend, HostRoutes, Listener, Route

CLASS_NOTE = "kubernetes.io/ingress.class"
CONTROLLER = "istio.io/ingress-controller"
Object = o.Resource[Ingress]
Find = Callable[[str, str], o.Service | None]
"""(name, namespace) -> the Service; one of type ExternalName is what it stands for"""
UNAVAILABLE = 503
_PLAIN = RouteSettings()


def ours(ingress: Object, classes: Mapping[str, str], name: str, mode: str) -> bool:
    """Whether the mesh's gateway serves it: by the annotation, else by its class. ``classes``: name -> controller;
    ``mode``: STRICT (only the mesh's class), DEFAULT (also those without one), OFF."""
    if mode == "OFF":
        return False
    noted = dict(ingress.notes).get(CLASS_NOTE)
    if noted is not None:
        return noted == name
    own = ingress.spec.ingress_class_name
    if own is not None:
        return classes.get(own) == CONTROLLER or own == name
    return mode == "DEFAULT"


def hosts(ingress: Object) -> tuple[str, ...]:
    """Those of its rules; ``*`` for the default backend and for rules without a host."""
    found = dict.fromkeys(rule.host or "*" for rule in ingress.spec.rules if rule.http)
    return tuple(found | ({"*": None} if ingress.spec.default_backend else {}))


def listeners(ingress: Object) -> Iterator[Listener]:
    """Plain HTTP on port 80, and on 443 one listener for each Secret. Several may be for one name: the first has it."""
    ref, age = ingress.ref, ingress.age_order
    for i, tls in enumerate(ingress.spec.tls):
        if tls.secret_name:
            yield Listener(
                source=ref,
                age=age,
                port=443,
                label=f"ingress-{i}.{ref.name}.{ref.namespace}",
                hosts=tls.hosts or ("*",),
                secure=True,
                tls=ServerTLS(mode="SIMPLE", credential_name=tls.secret_name),
            )
    yield Listener(source=ref, age=age, port=80, label=f"ingress.{ref.name}.{ref.namespace}", hosts=("*",))


def requests(
    bound: Sequence[tuple[Listener, Object]], by_host: Mapping[str, Sequence[Object]], find: Find
) -> Iterator[Attached]:
    """What is routed at listeners of one port. ``by_host``: all Ingresses that have a host, the oldest first; their
    paths are one list."""
    wanted = {h for _, own in bound for h in hosts(own)}
    for host in sorted(wanted, key=lambda h: (narrowness(h), h)):
        shown: dict[tuple[str, int, str], None] = {}
        for listener, own in bound:
            if host in hosts(own):
                scheme = "https" if listener.secure else "http"
                met = (meet(pattern, host) for pattern in listener.hosts)
                shown |= dict.fromkeys((h, listener.port, scheme) for h in met if h)
        for h, port, scheme in shown:
            routes = _of_host(host, by_host[host], port, scheme, find)
            # The narrowest host goes first, whatever its age.
            yield Attached(bound[0][0].age, (HostRoutes(h, port, routes),))


def _of_host(host: str, ingresses: Sequence[Object], port: int, scheme: str, find: Find) -> tuple[Route, ...]:
    """Exact paths first, then the longer ones; what no path takes goes to the default backend."""
    ranked: list[tuple[tuple[int, int], Route]] = []
    for ingress in ingresses:
        for place, path, wanted in _backends(ingress):
            if place[0] >= 0 and (ingress.spec.rules[place[0]].host or "*") != host:
                continue
            backend = _backend(wanted, ingress.ref.namespace, find)
            ranked.append((_rank(path), _route(ingress, place, path, backend, port, scheme)))
    return tuple(route for _, route in sorted(ranked, key=lambda r: r[0]))


_Place = tuple[int, int]
"""(rule, path); (-1, -1) for the default backend"""


def _backends(ingress: Object) -> Iterator[tuple[_Place, Path | None, Wanted]]:
    for i, rule in enumerate(ingress.spec.rules):
        for j, path in enumerate(rule.http.paths if rule.http else ()):
            yield (i, j), path, path.backend
    if ingress.spec.default_backend:
        yield (-1, -1), None, ingress.spec.default_backend


def _rank(path: Path | None) -> tuple[int, int]:
    if path is None:
        return (2, 0)
    match, below = _match(path)
    exact = match is not None and match.uri is not None and match.uri.exact is not None
    return (0 if exact else 1, -len(below or path.path))


def _route(ingress: Object, place: _Place, path: Path | None, backend: Backend, port: int, scheme: str) -> Route:
    ref = ingress.ref
    match, below = _match(path) if path else (None, "")
    return Route(
        (ref, ingress.version, place, port, scheme, backend),
        name=f"ingress/{ref.namespace}/{ref.name}",
        match=match,
        below=below,
        settings=_PLAIN,
        backends=(backend,),
        mirrors=(),
        port=port,
        scheme=scheme,
        rule=ref,
        origins=(str(ref),),
    )


def _match(path: Path) -> tuple[RequestMatch | None, str]:
    """(match, path by elements). Prefix goes by elements: /a takes /a and /a/b, not /ab."""
    if path.path_type == "Prefix":
        return None, path.path.rstrip("/")
    if path.path_type == "ImplementationSpecific" and path.path in ("", "/"):
        return None, ""
    if path.path_type == "ImplementationSpecific" and path.path.endswith("*"):
        return RequestMatch(uri=StringMatch(prefix=path.path.rstrip("*").removesuffix("."))), ""
    return RequestMatch(uri=StringMatch(exact=path.path)), ""


def _backend(wanted: Wanted, namespace: str, find: Find) -> Backend:
    if wanted.service is None:
        return Backend("", 0, broken="its backend is not a Service", status=UNAVAILABLE)
    name, port = wanted.service.name, wanted.service.port
    found = find(name, namespace)
    if found is None:
        return Backend("", 0, broken=f"there is no Service {namespace}/{name}", status=UNAVAILABLE)
    number = next((p.port for p in found.ports if p.port == port.number or (port.name and p.name == port.name)), 0)
    if not number:
        says = f"Service {namespace}/{name} has no port {port.name or port.number}"
        return Backend("", 0, broken=says, status=UNAVAILABLE)
    return Backend(found.host, number)


def outcome(ingress: Object, find: Find) -> Outcome:
    """What of it cannot work: backends that are not there."""
    problems = []
    for (i, j), _, wanted in _backends(ingress):
        at = ("spec", "rules", i, "http", "paths", j, "backend") if i >= 0 else ("spec", "defaultBackend")
        broken = _backend(wanted, ingress.ref.namespace, find).broken
        if broken:
            problems.append(Problem("BackendNotFound", broken, at))
    return Outcome(ingress.ref, tuple(problems))
