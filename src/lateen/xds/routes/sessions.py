"""Session persistence on routes: the endpoint of a client's first request gets those that follow.

Envoy's cookie or header says which endpoint that is, not which backend of a route. Where a route has several, a second
cookie says that, and a route for each of its values goes before the one that chooses by weight.
Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/stateful_session_filter
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from envoy.config.core.v3 import base_pb2, extension_pb2
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from envoy.extensions.http.stateful_session.header.v3 import header_pb2

from lateen.mesh.routing import Backend, Route, Session
from lateen.xds import pb


def keep(target: Any, session: Session | None) -> None:
    """``target``: a route, or a backend of one."""
    if session is None:
        return
    state: Any
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


def follow(target: Any, route: Route) -> None:
    """The route of clients that stay with its backend is for requests with the cookie that says so."""
    if route.follows and route.session is not None:
        said = re.escape(f"{_cookie(route.session)}={_value(route.backends[0])}")
        header = target.match.headers.add(name="cookie")
        header.string_match.safe_regex.regex = rf"(.*;\s*)?{said}(\s*;.*)?"


def tell(target: Any, route: Route, backend: Backend) -> None:
    """A backend chosen by weight tells its clients so. ``target``: a route, or a backend of one."""
    session = route.session
    if session is None or not route.split or route.follows:
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
