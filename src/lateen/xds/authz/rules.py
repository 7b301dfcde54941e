"""One rule of an AuthorizationPolicy as one policy of Envoy's RBAC."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from envoy.config.rbac.v3 import rbac_pb2

from lateen.api import claims
from lateen.api import security as sec
from lateen.xds.authz import matchers as m
from lateen.xds.authz import spellings


class HttpOnly(Exception):
    """The condition is about requests, which a TCP port does not have."""


One = Callable[[str], Any]
Compared = TypeVar("Compared", bound=Callable[..., Any])


class Scope(NamedTuple):
    """The context of a rule: the policy's namespace, the mesh's trust domains, TCP or HTTP."""

    namespace: str
    domains: tuple[str, ...]
    tcp: bool
    lenient: bool
    """On TCP: conditions about requests count as met (DENY, CUSTOM) instead of dropping their rule (ALLOW)."""
    spelled: bool = False
    """Whether a host or SNI that is kept out is so in every spelling of its name, a template's path with any
    characters, a header's value also where it is one of a list or among bytes that are no text, and a claim's also
    where it is no string; Istio compares all as written."""

    def kept_out(self, as_written: Compared, as_spelled: Compared) -> tuple[Compared, Compared]:
        """How values and ``not`` values are compared: other spellings count where that means less access, which are
        the values of DENY and CUSTOM rules and the exceptions of ALLOW rules."""
        if not self.spelled:
            return as_written, as_written
        return (as_spelled, as_written) if self.lenient else (as_written, as_spelled)


LISTED = "request.experimental.inline.headers["


def _permissions(given: Iterable[Any]) -> rbac_pb2.Permission:
    return rbac_pb2.Permission(or_rules=rbac_pb2.Permission.Set(rules=list(given)))


def _principals(given: Iterable[Any]) -> rbac_pb2.Principal:
    return rbac_pb2.Principal(or_ids=rbac_pb2.Principal.Set(ids=list(given)))


def _not_permission(p: Any) -> rbac_pb2.Permission:
    return rbac_pb2.Permission(not_rule=p)


def _not_principal(p: Any) -> rbac_pb2.Principal:
    return rbac_pb2.Principal(not_id=p)


def _both(one: One, values: Iterable[str] | None, but: Iterable[str] | None, permission: bool) -> list[Any]:
    """One of the values, and none of the others."""
    join, negate = (_permissions, _not_permission) if permission else (_principals, _not_principal)
    out = [join(one(v) for v in values)] if values else []
    return [*out, negate(join(one(v) for v in but))] if but else out


def _operation(op: sec.Operation, scope: Scope) -> list[Any]:
    out: list[Any] = []
    denied, exempt = scope.kept_out(m.host, spellings.host)
    denied_path, exempt_path = scope.kept_out(m.path, spellings.path)
    http: tuple[tuple[One, Any, Any], ...] = (
        (denied, op.hosts, None),
        (exempt, None, op.not_hosts),
        (m.method, op.methods, op.not_methods),
        (denied_path, op.paths, None),
        (exempt_path, None, op.not_paths),
    )
    for one, values, but in http:
        if (values or but) and _left_out(scope):
            continue
        out += _both(one, values, but, True)
    return out + _both(m.port, op.ports, op.not_ports, True)


def _source(src: sec.Source, scope: Scope) -> list[Any]:
    account = partial(m.account, own_namespace=scope.namespace)
    namespace = partial(m.namespace, scheme=m.SCHEME if scope.spelled else "")
    out = _identities(src.principals or (), src.not_principals or (), scope)
    if (src.request_principals or src.not_request_principals) and not _left_out(scope):
        out += _tokens(src.request_principals, src.not_request_principals)
    out += _both(account, src.service_accounts, src.not_service_accounts, False)
    out += _trust_domains(src.trust_domains or (), src.not_trust_domains or (), scope)
    out += _both(namespace, src.namespaces, src.not_namespaces, False)
    out += _both(m.remote_ip, src.remote_ip_blocks, src.not_remote_ip_blocks, False)
    return out + _both(m.direct_ip, src.ip_blocks, src.not_ip_blocks, False)


def _tokens(values: Iterable[str] | None, but: Iterable[str] | None) -> list[Any]:
    """As ``_both`` for the principals of tokens; one alone stands for itself, as in Istio."""

    def any_one(given: Iterable[str]) -> rbac_pb2.Principal:
        found = [m.request_principal(v) for v in given]
        return found[0] if len(found) == 1 else _principals(found)

    return [*([any_one(values)] if values else []), *([_not_principal(any_one(but))] if but else [])]


def _identities(values: tuple[str, ...], but: tuple[str, ...], scope: Scope) -> list[Any]:
    spread = partial(m.in_every_domain, domains=scope.domains)
    return _both(m.identity, spread(values), spread(but), False)


def _trust_domains(values: tuple[str, ...], but: tuple[str, ...], scope: Scope) -> list[Any]:
    every = partial(m.with_aliases, domains=scope.domains)
    return _both(m.trust_domain, every(values), every(but), False)


def _left_out(scope: Scope) -> bool:
    """Whether a condition about requests is ignored here. Raises HttpOnly where its rule is dropped."""
    if scope.tcp and not scope.lenient:
        raise HttpOnly
    return scope.tcp


def _condition(c: sec.Condition, scope: Scope) -> tuple[list[Any], list[Any]]:
    """(permissions, principals)"""
    key = c.key
    if key == "connection.sni":
        one, but = scope.kept_out(m.sni, spellings.sni)
        return [*_both(one, c.values, None, True), *_both(but, None, c.not_values, True)], []
    permissions: dict[str, One] = {
        "destination.ip": m.destination_ip,
        "destination.port": m.port,
    }
    if key in permissions:
        return _both(permissions[key], c.values, c.not_values, True), []
    if key.startswith("experimental."):
        found = [m.filter_metadata(key, c.values)] if c.values else []
        return [*found, *([_not_permission(m.filter_metadata(key, c.not_values))] if c.not_values else [])], []
    principals: dict[str, One] = {
        "source.ip": m.direct_ip,
        "remote.ip": m.remote_ip,
        "source.namespace": partial(m.namespace, scheme=m.SCHEME if scope.spelled else ""),
        "source.serviceAccount": partial(m.account, own_namespace=scope.namespace),
    }
    if key in principals:
        return [], _both(principals[key], c.values, c.not_values, False)
    if key == "source.principal":
        return [], _identities(c.values, c.not_values, scope)
    if key == "source.trustDomain":
        return [], _trust_domains(c.values, c.not_values, scope)
    return [], [] if _left_out(scope) else _about_request(c, scope)


def _about_request(c: sec.Condition, scope: Scope) -> list[Any]:
    key = c.key
    if key.startswith("request.headers["):
        name = key[len("request.headers[") : -1]
        one, but = scope.kept_out(partial(m.request_header, name), partial(spellings.header, name))
        return [*_both(one, c.values, None, False), *_both(but, None, c.not_values, False)]
    if key.startswith(LISTED):
        name = key[len(LISTED) : -1]
        one, but = scope.kept_out(partial(m.listed_header, name), partial(spellings.listed_header, name))
        return [*_both(one, c.values, None, False), *_both(but, None, c.not_values, False)]
    if key == "request.auth.principal":
        return _tokens(c.values, c.not_values)
    path = {"request.auth.audiences": ("aud",), "request.auth.presenter": ("azp",)}.get(key) or claims.conditioned(key)
    held, exempt = scope.kept_out(m.claim, spellings.claim)
    out = [held(path, c.values)] if c.values else []
    return [*out, _not_principal(exempt(path, c.not_values))] if c.not_values else out


def policy(rule: sec.Rule, scope: Scope) -> rbac_pb2.Policy:
    """Raises HttpOnly where the rule cannot match on a TCP port."""
    permissions: list[Any] = []
    principals: list[Any] = []
    for c in rule.when:
        p, q = _condition(c, scope)
        permissions += p
        principals += q
    operations = [_operation(t.operation or sec.Operation(), scope) for t in rule.to or ()] or [[]]
    sources = [_source(f.source or sec.Source(), scope) for f in rule.from_ or ()] or [[]]
    out = rbac_pb2.Policy()
    for found in operations:
        every = [*found, *permissions] or [rbac_pb2.Permission(any=True)]
        out.permissions.add(and_rules=rbac_pb2.Permission.Set(rules=every))
    for found in sources:
        every = [*found, *principals] or [rbac_pb2.Principal(any=True)]
        out.principals.add(and_ids=rbac_pb2.Principal.Set(ids=every))
    return out


def several_hosts() -> rbac_pb2.Policy:
    """Requests with more than one Host line: a proxy and the server behind it may each take another one for granted
    (RFC 9112, section 3.2: a server must refuse them)."""
    out = rbac_pb2.Policy(permissions=[m.several_hosts()])
    out.principals.add(any=True)
    return out


def never() -> rbac_pb2.Policy:
    """The RBAC policy of an AuthorizationPolicy without rules: it matches nothing."""
    out = rbac_pb2.Policy()
    out.permissions.add(not_rule=rbac_pb2.Permission(any=True))
    out.principals.add(not_id=rbac_pb2.Principal(any=True))
    return out
