"""Session persistence: https://gateway-api.sigs.k8s.io/geps/gep-1619/"""

from __future__ import annotations

import hashlib

from lateen.api import objects as o
from lateen.api.gateway_api.requests import HTTPRouteMatch, SessionPersistence
from lateen.mesh.routing import Session

PREFIX = "lateen-session-"
"""The prefix of generated session names."""


def session(given: SessionPersistence | None, owner: o.Ref, part: int = 0, path: str = "/") -> Session | None:
    """The session persistence of rule ``part`` of the object ``owner``, for requests to ``path``."""
    if given is None:
        return None
    name = given.session_name or PREFIX + hashlib.sha256(f"{owner} {part}".encode()).hexdigest()[:10]
    header = given.type == "Header"
    permanent = given.cookie_config is not None and given.cookie_config.lifetime_type == "Permanent"
    lifetime = given.absolute_timeout.seconds if permanent and given.absolute_timeout and not header else 0.0
    return Session(name.lower() if header else name, header, lifetime, "/" if header else path)


def cookie_path(match: HTTPRouteMatch | None) -> str:
    """The path attribute of a rule's cookie: it covers the requests of one of its matches, as far as a path can
    express."""
    if match is None or match.path.type == "RegularExpression" or ";" in match.path.value:
        return "/"
    return match.path.value
