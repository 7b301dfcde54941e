"""Converts filters, timeouts and retries to the mesh's route settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from lateen.api.config import Duration
from lateen.api.gateway_api import requests as api
from lateen.api.networking import http as mesh

RETRY_ON = "connect-failure,refused-stream,reset,unavailable,cancelled"
"""Retried besides the status codes that a rule names: every kind of connection failure."""
ATTEMPTS = 2
"""The default number of attempts, as in Istio."""
ANY_ORIGIN = r"[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s?#]+"
AnyFilter = api.RouteFilter | api.GRPCRouteFilter


def headers(filters: Iterable[AnyFilter]) -> mesh.Headers | None:
    request = response = None
    for f in filters:
        if f.request_header_modifier:
            request = _operations(f.request_header_modifier)
        if f.response_header_modifier:
            response = _operations(f.response_header_modifier)
    return mesh.Headers(request=request, response=response) if request or response else None


def _operations(given: api.HeaderFilter) -> mesh.HeaderOperations:
    return mesh.HeaderOperations(
        set={h.name: h.value for h in given.set}, add={h.name: h.value for h in given.add}, remove=given.remove
    )


def of_route(filters: Sequence[AnyFilter]) -> tuple[AnyFilter, ...]:
    """A backend's filters that Envoy supports only on routes. Mirrors are handled elsewhere."""
    wanted = (f for f in filters if isinstance(f, api.RouteFilter))
    return tuple(f for f in wanted if f.request_redirect or f.url_rewrite or f.cors)


def of_rule(
    rule: api.HTTPRouteRule, match: api.HTTPRouteMatch | None, more: Sequence[AnyFilter] = ()
) -> mesh.RouteSettings:
    """The settings for the requests of one match of a rule, apart from their destination. ``more``: filters of a
    backend, which replace those of the rule."""
    values: dict[str, Any] = {"headers": headers(rule.filters)}
    for f in (*rule.filters, *more):
        if not isinstance(f, api.RouteFilter):
            continue
        if f.request_redirect:
            values["redirect"] = _redirect(f.request_redirect)
        if f.url_rewrite:
            values["rewrite"] = rewrite(f.url_rewrite, match)
        if f.cors:
            values["cors_policy"] = _cors(f.cors)
    timeouts = rule.timeouts or api.RouteTimeouts()
    values["timeout"] = timeouts.request
    values["retries"] = _retries(rule.retry, timeouts.backend_request)
    return mesh.RouteSettings(**values)


def answer(status: int) -> mesh.RouteSettings:
    """Settings with a direct response to every request."""
    return mesh.RouteSettings(direct_response=mesh.HTTPDirectResponse(status=status))


def _redirect(given: api.RedirectFilter) -> mesh.HTTPRedirect:
    path = given.path
    return mesh.HTTPRedirect(
        uri=path.replace_full_path if path else None,
        prefix_rewrite=path.replace_prefix_match if path else None,
        authority=given.hostname,
        scheme=given.scheme,
        port=given.port,
        derive_port="FROM_PROTOCOL_DEFAULT" if given.scheme else "FROM_REQUEST_PORT",
        redirect_code=given.status_code,
    )


def rewrite(given: api.RewriteFilter, match: api.HTTPRouteMatch | None) -> mesh.HTTPRewrite:
    path = given.path
    if path is None:
        return mesh.HTTPRewrite(authority=given.hostname)
    if path.replace_full_path is not None:
        # in a substitution, a backslash introduces a group reference
        whole = mesh.RegexRewrite(match="/.*", rewrite=path.replace_full_path.replace("\\", r"\\"))
        return mesh.HTTPRewrite(authority=given.hostname, uri_regex_rewrite=whole)
    prefix = path.replace_prefix_match or ""
    if match is None or match.path.value.rstrip("/") == "":
        prefix = f"{prefix.rstrip('/')}/"  # replaces the leading slash of every path
    return mesh.HTTPRewrite(authority=given.hostname, uri=prefix)


def _retries(given: api.RouteRetry | None, each: Duration | None) -> mesh.HTTPRetry | None:
    """``each``: the timeout of one attempt, which applies even without retries."""
    limit = each if each is not None and each.nanoseconds else None
    if given is None:
        return mesh.HTTPRetry(attempts=ATTEMPTS, per_try_timeout=limit) if limit else None
    return mesh.HTTPRetry(
        attempts=ATTEMPTS if given.attempts is None else given.attempts,
        retry_on=",".join((RETRY_ON, *map(str, given.codes))),
        backoff=given.backoff,
        per_try_timeout=limit,
    )


def _cors(given: api.CORSFilter) -> mesh.CorsPolicy:
    return mesh.CorsPolicy(
        allow_origins=tuple(map(_origin, given.allow_origins)),
        allow_methods=given.allow_methods,
        allow_headers=given.allow_headers,
        expose_headers=given.expose_headers,
        max_age=Duration(f"{given.max_age}s"),
        allow_credentials=given.allow_credentials,
        unmatched_preflights="IGNORE",
    )


def _origin(text: str) -> mesh.StringMatch:
    if text == "*":
        return mesh.StringMatch(regex=ANY_ORIGIN)
    if "*" not in text:
        return mesh.StringMatch(exact=text)
    return mesh.StringMatch(regex=re.escape(text).replace(r"\*", ".*"))


def share(mirror: api.MirrorFilter) -> mesh.Percent | None:
    if mirror.percent is not None:
        return mesh.Percent(value=float(mirror.percent))
    if mirror.fraction is not None:
        return mesh.Percent(value=100 * mirror.fraction.numerator / mirror.fraction.denominator)
    return None


def unresolved(filters: Sequence[AnyFilter]) -> str:
    """A sentence about a filter that cannot be resolved: its requests must not proceed without it."""
    found = next((f.extension_ref for f in filters if f.extension_ref), None)
    return f"there is no filter of kind {found.kind} in group {found.group}" if found else ""
