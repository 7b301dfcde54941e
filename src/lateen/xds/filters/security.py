"""SecurityPolicies (``xds.security`` has what they are): a slot for each part of a policy, so that what changes there
holds for the next request and drains no listener.

Logins are no slot: Envoy does not fetch the secrets of a filter that comes after its listener. So that nobody passes
on connections to the listener from before, one without logins has a gate, which is shut as soon as some are wanted.
Nor are settings for other sites (CORS), which are those of routes in Envoy; a workload's port has one route, which is
part of its listener.

At a workload's port all of it is on. At gateways it is off, but for the routes that a policy is for. A slot has no
default: without its configuration, requests get status 500.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from envoy.config.core.v3 import config_source_pb2, extension_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.mesh.secured import Outside, Secured
from lateen.mesh.view import GatewayServer, GatewayView, InboundView
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import pb, security, tls
from lateen.xds.filters.chain import HttpFilter, Requests, http_filter
from lateen.xds.security import BASIC, CORS, EXT, GATE, JWT, KEYS, OIDC, RULES

_HTTP = "type.googleapis.com/envoy.extensions.filters.http."
_TYPES = {
    EXT: "ext_authz.v3.ExtAuthz",
    KEYS: "api_key_auth.v3.ApiKeyAuth",
    BASIC: "basic_auth.v3.BasicAuth",
    JWT: "jwt_authn.v3.JwtAuthentication",
}
_RBAC = "rbac.v3.RBAC"
"""Also in the place of all others, where they are broken"""
SLOTS = (EXT, KEYS, BASIC, GATE, JWT, RULES)


def cors(chain: Requests) -> list[HttpFilter]:
    found = any(part == CORS for part, _ in chain.secured)
    return [http_filter(CORS, cors_pb2.Cors(), disabled=True)] if found else []


def before_authentication(chain: Requests) -> list[HttpFilter]:
    return _of(chain, (EXT, KEYS, BASIC, GATE))


def logins(chain: Requests) -> list[HttpFilter]:
    off = chain.kind == "gateway"
    return [
        hcm.HttpFilter(
            name=names.of_workload(security.named(one, OIDC), chain.workload),
            typed_config=security.config(one, OIDC, off),
            disabled=off,
        )
        for one in chain.logins
    ]


def tokens(chain: Requests) -> list[HttpFilter]:
    return _of(chain, (JWT,))


def rules(chain: Requests) -> list[HttpFilter]:
    return _of(chain, (RULES,))


def _of(chain: Requests, parts: tuple[str, ...]) -> list[HttpFilter]:
    """Part by part, so that the order is the same whatever policies there are."""
    off = chain.kind == "gateway"
    return [
        _slot(part, names.of_workload(slot, chain.workload), off)
        for p in parts
        for part, slot in chain.secured
        if part == p
    ]


@lru_cache(maxsize=4096)
def _slot(part: str, name: str, off: bool) -> hcm.HttpFilter:
    types = [_HTTP + t for t in (_TYPES.get(part), _RBAC) if t]
    source = config_source_pb2.ExtensionConfigSource(config_source=pb.ads(), type_urls=types)
    return hcm.HttpFilter(name=name, config_discovery=source, disabled=off)


def slots(found: Iterable[Secured]) -> tuple[tuple[str, str], ...]:
    """(part, slot) of the policies of a port or of a server: all parts, so that one can be added without the
    listener."""
    each = [
        (part, security.named(one, part)) for one in found for part in SLOTS if part != GATE or not one.policy.spec.oidc
    ]
    return tuple(dict.fromkeys([(CORS, CORS), *each])) if each else ()


def with_logins(found: Iterable[Secured]) -> tuple[Secured, ...]:
    return tuple(dict.fromkeys(one for one in found if one.policy.spec.oidc))


def at_gateway(server: GatewayServer) -> tuple[Secured, ...]:
    return tuple(dict.fromkeys(found for _, _, found in server.secured))


# --- resources ------------------------------------------------------------------------------------------------------


def of_workload(view: InboundView) -> tuple[Secured, ...]:
    return tuple(dict.fromkeys(found for i in view.ports for found in i.secured))


def of_gateway(view: GatewayView) -> tuple[Secured, ...]:
    return tuple(dict.fromkeys(found for s in view.servers for found in at_gateway(s)))


def extensions(found: Iterable[Secured], workload: str, gateway: bool) -> Iterator[Resource]:
    """The contents of the slots."""
    for one in found:
        for part in SLOTS:
            name = names.of_workload(security.named(one, part), workload)
            held = security.config(one, part, gateway)
            message = extension_pb2.TypedExtensionConfig(name=name, typed_config=held)
            yield pb.resource(name, message, (str(one.policy.ref),))


def secrets(found: Iterable[Secured]) -> Iterator[Resource]:
    """What logins need."""
    for one in found:
        if one.login is not None:
            client, cookies = security.secret_names(one.policy)
            yield tls.opaque(client, one.login.client_secret)
            yield tls.opaque(cookies, one.login.cookie_key)


def outside(found: Iterable[Secured]) -> tuple[Outside, ...]:
    """The providers of logins that are no services of the mesh."""
    return tuple(dict.fromkeys(one.login.outside for one in found if one.login and one.login.outside))
