"""Session persistence, of routes and of policies."""

from __future__ import annotations

import re

from lateen.api.gateway_api import requests as g
from lateen.api.validate.findings import Findings, no, warn

_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~A-Za-z0-9]+", re.ASCII)


def persistence(given: g.SessionPersistence | None, at: str) -> Findings:
    if given is None:
        return
    if given.cookie_config and given.type != "Cookie":
        yield no(f"{at}.cookieConfig", "cookieConfig can only be set with type Cookie")
    if given.cookie_config and given.cookie_config.lifetime_type == "Permanent" and not given.absolute_timeout:
        yield no(f"{at}.absoluteTimeout", "AbsoluteTimeout must be specified when cookie lifetimeType is Permanent")
    if given.session_name is not None:
        yield from _session_name(given, f"{at}.sessionName")
    permanent = given.cookie_config and given.cookie_config.lifetime_type == "Permanent"
    if given.absolute_timeout and not permanent:
        what = "a header" if given.type == "Header" else "a session cookie"
        yield warn(
            f"{at}.absoluteTimeout",
            f"it has no effect: Envoy cannot limit how long {what} is valid; use a cookie of lifetimeType Permanent",
        )


def _session_name(given: g.SessionPersistence, at: str) -> Findings:
    """A cookie's name and a header's are tokens (RFC 9110, 5.6.2)."""
    if not _TOKEN.fullmatch(given.session_name or ""):
        yield no(at, f'"{given.session_name}" cannot be the name of a {given.type.lower()}')
