"""Session persistence on routes: the endpoint of a client's first request gets those that follow.

Envoy's cookie or header says which endpoint that is, not which backend of a route. Where a route has several, a second
cookie says that, and a route for each of its values goes before the one that chooses by weight.
Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/stateful_session_filter
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from envoy.config.core.v3 import base_pb2, extension_pb2
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from envoy.extensions.http.stateful_session.header.v3 import header_pb2

from lateen.mesh.routing import Backend, Route, Session
from lateen.xds import pb


def keep(target: Any, session: Session | None) -> None:
    """``target``: a route, or a backend of one."""
    if session is None:
        return
    if session.header:
        state = header_pb2.HeaderBasedSessionState(name=session.name)
    else:
        state = cookie_pb2.CookieBasedSessionState()
        state.cookie.name, state.cookie.path = session.name, session.path
        if session.lifetime_s:
            state.cookie.ttl.CopyFrom(pb.duration(session.lifetime_s))
    kind = "header" if session.header else "cookie"
    own = stateful_session_pb2.StatefulSession(
        session_state=extension_pb2.TypedExtensionConfig(
            name=f"envoy.http.stateful_session.{kind}", typed_config=pb.any_of(state)
        )
    )
    target.typed_per_filter_config["envoy.filters.http.stateful_session"].CopyFrom(
        pb.any_of(stateful_session_pb2.StatefulSessionPerRoute(stateful_session=own))
    )


def is_split(route: Route) -> bool:
    """Whether a cookie has to say which of the route's backends a client stays with."""
    return route.session is not None and not route.session.header and len(route.there) > 1


def followers(route: Route) -> Iterator[tuple[Route, Any]]:
    """For each backend, the route of the clients that stay with it, and the header that tells them."""
    session = route.session
    if session is None or not is_split(route):
        return
    for backend in route.there:
        said = re.escape(f"{_cookie(session)}={_value(backend)}")
        header = rc.HeaderMatcher(name="cookie")
        header.string_match.safe_regex.regex = f"(.*;\\s*)?{said}(\\s*;.*)?"
        yield replace(route, key=(route.key, backend.cluster), backends=(backend,)), header


def tell(target: Any, route: Route, backend: Backend) -> None:
    """A backend chosen by weight tells its clients so."""
    session = route.session
    if session is None:
        return
    kept = f"; Max-Age={session.lifetime_s:.0f}" if session.lifetime_s else ""
    value = f"{_cookie(session)}={_value(backend)}; Path={session.path}; HttpOnly{kept}"
    header = base_pb2.HeaderValue(key="set-cookie", value=value.replace("%", "%%"))
    target.response_headers_to_add.append(
        base_pb2.HeaderValueOption(header=header, append_action="APPEND_IF_EXISTS_OR_ADD")
    )


def _cookie(session: Session) -> str:
    return f"{session.name}-backend"


def _value(backend: Backend) -> str:
    """It does not tell clients what backends are called."""
    return hashlib.sha256(backend.cluster.encode()).hexdigest()[:10]
