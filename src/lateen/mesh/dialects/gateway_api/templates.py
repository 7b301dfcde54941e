"""The rules of a route, independent of the port: each match becomes one template, with its rank among all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lateen.api import objects as o
from lateen.api.gateway_api import requests as api
from lateen.api.networking.http import RequestMatch, RouteSettings, StringMatch
from lateen.mesh.dialects.gateway_api import backends, settings
from lateen.mesh.dialects.gateway_api.sessions import cookie_path, session
from lateen.mesh.outcomes import Path, Problem
from lateen.mesh.routing import Backend, Mirror, Route, Session

HTTPObject = o.Resource[api.HTTPRoute]
GRPCObject = o.Resource[api.GRPCRoute]
Rank = tuple[int, ...]
"""Sort key: the smallest is tried first."""


class Template(NamedTuple):
    rank: Rank
    place: tuple[int, int, int]
    """(rule, match, part); -1 for a rule without matches"""
    name: str
    match: RequestMatch | None
    below: str
    settings: RouteSettings
    part: Part
    session: Session | None


class Part(NamedTuple):
    """Some backends of a rule that share filters of their own."""

    backends: tuple[Backend, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    filters: tuple[settings.AnyFilter, ...] = ()
    before: int = 0
    after: int = 0
    """The weights of the parts before and after it."""
    split: bool = False
    """Whether the session must identify the backend."""
    follows: bool = False
    """Whether it is only for requests of such sessions."""


class Translated(NamedTuple):
    templates: tuple[Template, ...] = ()
    problems: tuple[Problem, ...] = ()


class _Rule(NamedTuple):
    """The common parts of a rule's matches."""

    name: str
    parts: tuple[Part, ...]
    answer: RouteSettings | None
    """Set if all requests get a direct response."""
    problems: tuple[Problem, ...]


def of_http(route: HTTPObject, find: backends.Find, enforced: bool) -> Translated:
    templates: list[Template] = []
    problems: list[Problem] = []
    for i, rule in enumerate(route.spec.rules):
        common = _rule(route.ref, i, rule, find, enforced)
        problems += common.problems
        for j, match in enumerate(rule.matches) if rule.matches else ((-1, None),):
            made, below = _http_match(match) if match else (None, "")
            kept = session(rule.session_persistence, route.ref, i, cookie_path(match))
            for k, part in enumerate(common.parts):
                found = common.answer or settings.of_rule(rule, match, part.filters)
                templates.append(Template(_http_rank(match), (i, j, k), common.name, made, below, found, part, kept))
    return Translated(tuple(templates), tuple(problems))


def of_grpc(route: GRPCObject, find: backends.Find, enforced: bool) -> Translated:
    templates: list[Template] = []
    problems: list[Problem] = []
    for i, rule in enumerate(route.spec.rules):
        common = _rule(route.ref, i, rule, find, enforced)
        problems += common.problems
        found = common.answer or RouteSettings(headers=settings.headers(rule.filters))
        kept = session(rule.session_persistence, route.ref, i)
        for j, match in enumerate(rule.matches) if rule.matches else ((-1, None),):
            made = _grpc_match(match) if match else None
            templates += (
                Template(_grpc_rank(match), (i, j, k), common.name, made, "", found, part, kept)
                for k, part in enumerate(common.parts)
            )
    return Translated(tuple(templates), tuple(problems))


# --- the backends of a rule ------------------------------------------------------------------------


def _rule(
    ref: o.Ref, i: int, rule: api.HTTPRouteRule | api.GRPCRouteRule, find: backends.Find, enforced: bool
) -> _Rule:
    at: Path = ("spec", "rules", i)
    problems: list[Problem] = []
    common: list[Backend] = []
    alone: list[tuple[Backend, tuple[settings.AnyFilter, ...], tuple[Mirror, ...]]] = []
    refs: Sequence[api.HTTPBackendRef | api.GRPCBackendRef] = rule.backend_refs
    for j, b in enumerate(refs):
        backend, bad = backends.backend(b, b.weight, settings.headers(b.filters), ref, find, enforced)
        extra = settings.unresolved(b.filters)
        if not bad[0] and extra:
            backend, bad = Backend("", 0, weight=b.weight, broken=extra, status=500), (backends.INVALID_KIND, extra)
        if bad[0]:
            problems.append(Problem(*bad, (*at, "backendRefs", j)))
        mirrors = tuple(_mirrors(ref, b.filters, find, enforced, (*at, "backendRefs", j), problems))
        own = settings.of_route(b.filters)
        if b.weight and (own or mirrors) and not backend.broken:
            alone.append((backend, own, mirrors))
        elif b.weight:
            common.append(backend)
    mirrors = tuple(_mirrors(ref, rule.filters, find, enforced, at, problems))
    answer = None
    if extra := settings.unresolved(rule.filters):
        problems.append(Problem(backends.INVALID_KIND, extra, (*at, "filters")))
        answer = settings.answer(500)
    elif not common and not alone and not _redirects(rule):
        answer = settings.answer(500)
    name = rule.name or f"{ref.namespace}.{ref.name}.{i}"
    parts = (Part(),) if answer else tuple(_parts(common, alone, mirrors, _by_cookie(rule)))
    return _Rule(name, parts, answer, tuple(problems))


def _parts(
    common: Sequence[Backend],
    alone: Sequence[tuple[Backend, tuple[settings.AnyFilter, ...], tuple[Mirror, ...]]],
    mirrors: tuple[Mirror, ...],
    cookie: bool,
) -> Iterator[Part]:
    """Envoy's weighted clusters may differ only in cluster and headers, so a backend with other filters becomes a route
    of its own that takes its share of the requests, in order. ``cookie``: whether clients are pinned to a backend,
    which takes precedence over the shares."""
    found = [Part((b,), (*mirrors, *more), own) for b, own, more in alone]
    if common or not alone:
        found.append(Part(tuple(common), mirrors))
    split = cookie and sum(not b.broken for p in found for b in p.backends) > 1
    if split:
        for p in found:
            yield from (p._replace(backends=(b,), follows=True, split=True) for b in p.backends if not b.broken)
    weights = [sum(b.weight for b in p.backends) for p in found]
    for k, p in enumerate(found):
        yield p._replace(before=sum(weights[:k]), after=sum(weights[k + 1 :]), split=split)


def _by_cookie(rule: api.HTTPRouteRule | api.GRPCRouteRule) -> bool:
    return rule.session_persistence is not None and rule.session_persistence.type == "Cookie"


def _redirects(rule: api.HTTPRouteRule | api.GRPCRouteRule) -> bool:
    return isinstance(rule, api.HTTPRouteRule) and any(f.request_redirect for f in rule.filters)


def _mirrors(
    ref: o.Ref,
    filters: Sequence[settings.AnyFilter],
    find: backends.Find,
    enforced: bool,
    at: Path,
    problems: list[Problem],
) -> Iterator[Mirror]:
    """Mirrors that cannot be resolved are left out; the request itself is not affected."""
    for k, f in enumerate(filters):
        if f.request_mirror is None:
            continue
        backend, bad = backends.backend(f.request_mirror.backend_ref, 100, None, ref, find, enforced)
        if bad[0]:
            problems.append(Problem(*bad, (*at, "filters", k, "requestMirror", "backendRef")))
        else:
            yield Mirror(backend, settings.share(f.request_mirror))


# --- matches ---------------------------------------------------------------------------------------------------


def _http_match(m: api.HTTPRouteMatch) -> tuple[RequestMatch | None, str]:
    """(match, path prefix matched by whole elements)"""
    below, uri = "", None
    if m.path.type == "PathPrefix":
        below = m.path.value.rstrip("/")
    elif m.path.type == "Exact":
        uri = StringMatch(exact=m.path.value)
    else:
        uri = StringMatch(regex=m.path.value)
    method = StringMatch(exact=m.method) if m.method else None
    if uri is None and method is None and not m.headers and not m.query_params:
        return None, below
    return RequestMatch(uri=uri, method=method, headers=_texts(m.headers), query_params=_texts(m.query_params)), below


def _texts(matches: Sequence[api.HeaderMatch | api.QueryParamMatch]) -> dict[str, StringMatch]:
    """Of several entries with the same name, the first counts."""
    out: dict[str, StringMatch] = {}
    for m in matches:
        name = m.name.lower() if isinstance(m, api.HeaderMatch) else m.name
        out.setdefault(name, StringMatch(exact=m.value) if m.type == "Exact" else StringMatch(regex=m.value))
    return out


def _http_rank(m: api.HTTPRouteMatch | None) -> Rank:
    """Exact paths, then the longest prefixes, then regular expressions; then a method, the number of headers, and of
    parameters. A match of all requests is last. Source: HTTPRouteRule in the specification; for regular expressions,
    Istio."""
    if m is None:
        return (9,)
    kind = {"Exact": 0, "PathPrefix": 1, "RegularExpression": 2}[m.path.type]
    if kind == 1 and m.path.value == "/" and not (m.method or m.headers or m.query_params):
        return (9,)
    return (kind, -len(m.path.value), 0 if m.method else 1, -len(m.headers), -len(m.query_params))


_ANY = "[^/]+"


def _grpc_match(m: api.GRPCRouteMatch) -> RequestMatch:
    return RequestMatch(uri=_grpc_path(m.method) if m.method else None, headers=_texts(m.headers))


def _grpc_path(m: api.GRPCMethodMatch) -> StringMatch | None:
    if m.type == "RegularExpression":
        return StringMatch(regex=f"/{m.service or _ANY}/{m.method or _ANY}")
    if m.service and m.method:
        return StringMatch(exact=f"/{m.service}/{m.method}")
    if m.service:
        return StringMatch(prefix=f"/{m.service}/")
    return StringMatch(regex=f"/{_ANY}/{m.method}") if m.method else None


def _grpc_rank(m: api.GRPCRouteMatch | None) -> Rank:
    """Comparable with the ranks of HTTPRoutes: a method of a service counts as an exact path, a service as a prefix."""
    if m is None or (m.method is None and not m.headers):
        return (9,)
    method = m.method or api.GRPCMethodMatch()
    service, name = method.service or "", method.method or ""
    kind = 2 if method.type == "RegularExpression" else 0 if service and name else 1
    return (kind, -len(service), -len(name), -len(m.headers))


# --- at a port -------------------------------------------------------------------------------------------------


def route(found: HTTPObject | GRPCObject, t: Template, port: int, scheme: str) -> Route:
    part, policies = t.part, (b.policy for b in t.part.backends if b.policy)
    answered = t.settings.direct_response is not None
    return Route(
        (found.ref, found.version, t.place, port, scheme, part.backends, part.mirrors, answered),
        name=t.name,
        match=t.match,
        below=t.below,
        settings=t.settings,
        backends=part.backends,
        mirrors=part.mirrors,
        port=port,
        scheme=scheme,
        rule=found.ref,
        origins=tuple(dict.fromkeys((str(found.ref), *policies))),
        session=t.session,
        split=part.split,
        follows=part.follows,
        before=part.before,
        after=part.after,
    )


def in_order(found: Sequence[tuple[Rank, tuple[str, str, str], tuple[int, int, int], Route]]) -> tuple[Route, ...]:
    """Routes by rank; those of equal rank by the age of their objects, then by their position."""
    return tuple(r for *_, r in sorted(found, key=lambda f: f[:3]))


def misdirected(gateway: o.Ref, port: int) -> Route:
    """The 421 response to requests for a host of another listener of the port: clients may retry on a new connection
    (RFC 9110, 15.5.20)."""
    return Route(
        (gateway, "misdirected", port),
        name="misdirected",
        match=None,
        settings=settings.answer(421),
        backends=(),
        mirrors=(),
        port=port,
        scheme="https",
        rule=gateway,
        origins=(str(gateway),),
    )
