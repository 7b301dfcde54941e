"""The rules of the kinds of security.istio.io between their fields."""

from __future__ import annotations

import json
import re
import urllib.parse
from typing import Any

from lateen.api import security as sec
from lateen.api.validate import scalars as s
from lateen.api.validate.common import selector, target_refs
from lateen.api.validate.findings import Findings, no, warn
from lateen.kit.jsons import Json

DRY_RUN = "istio.io/dry-run"
CONDITIONS = {
    "source.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "remote.ip",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
}
MAP_CONDITIONS = re.compile(r"(request\.headers|request\.auth\.claims)(\[[^\[\]]+\])+")
FILTER_CONDITION = re.compile(r"experimental\.envoy\.filters\.[a-z0-9_.]+\[[^\[\]]+\]")
L7_CONDITIONS = ("request.headers", "request.auth.")
TEMPLATE = re.compile(r"\{[^{}]*\}")


def peer_authentication(pa: sec.PeerAuthentication, _: Json) -> Findings:
    yield from selector(pa.selector)
    empty = pa.selector is None or not pa.selector.match_labels
    if pa.port_level_mtls and empty:
        yield no("spec.portLevelMtls", "port level mTLS needs a selector with labels")
    for key in pa.port_level_mtls:
        if not key.isdigit():
            yield no(f"spec.portLevelMtls[{key}]", "the key must be a port number")
        else:
            yield from s.port(int(key), f"spec.portLevelMtls[{key}]")


def request_authentication(ra: sec.RequestAuthentication, _: Json) -> Findings:
    yield from selector(ra.selector)
    yield from target_refs(ra.target_ref, ra.target_refs, ra.selector is not None)
    for i, rule in enumerate(ra.jwt_rules):
        yield from _jwt(rule, f"spec.jwtRules[{i}]")


def _jwt(r: sec.JWTRule, at: str) -> Findings:
    if not r.issuer:
        yield no(f"{at}.issuer", "issuer must be set")
    for i, audience in enumerate(r.audiences):
        if not audience:
            yield no(f"{at}.audiences[{i}]", "audience must be non-empty string")
    yield from _keys(r, at)
    yield from _claims(r, at)
    for i, h in enumerate(r.from_headers):
        if not h.name:
            yield no(f"{at}.fromHeaders[{i}].name", "location header name must be non-empty string")
    for field, values in (("fromParams", r.from_params), ("fromCookies", r.from_cookies)):
        for i, v in enumerate(values):
            if not v:
                yield no(f"{at}.{field}[{i}]", "must be non-empty string")
    yield from s.duration(r.timeout, f"{at}.timeout")


def _keys(r: sec.JWTRule, at: str) -> Findings:
    uri = r.jwks_uri or r.jwks_uri_old
    if uri and r.jwks:
        yield no(at, "only one of jwksUri and jwks can be set")
    if uri:
        parts = urllib.parse.urlsplit(uri)
        try:
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1)
        except ValueError:
            known = False
        if not known:
            yield no(f"{at}.jwksUri", f'"{uri}" is not a URL of http or https')
    if r.jwks:
        yield from _jwks(r.jwks, f"{at}.jwks")


def _claims(r: sec.JWTRule, at: str) -> Findings:
    for i, c in enumerate(r.output_claim_to_headers):
        if not c.header or not c.claim:
            yield no(f"{at}.outputClaimToHeaders[{i}]", "header and claim must both be set")
        elif not s._HEADER.fullmatch(c.header):
            yield no(f"{at}.outputClaimToHeaders[{i}].header", f'"{c.header}" is not a valid header name')
    for i, claim in enumerate(r.space_delimited_claims):
        if not claim:
            yield no(f"{at}.spaceDelimitedClaims[{i}]", "must be non-empty string")


def _jwks(text: str, at: str) -> Findings:
    try:
        found = json.loads(text)
        if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
            raise ValueError("there is no list of keys")
    except ValueError as e:
        yield no(at, f"is not a JSON Web Key Set: {e}")


def authorization_policy(ap: sec.AuthorizationPolicy, meta: Json) -> Findings:
    yield from selector(ap.selector)
    yield from target_refs(ap.target_ref, ap.target_refs, ap.selector is not None)
    yield from _dry_run(ap, meta)
    if ap.action == "CUSTOM":
        if ap.provider is None or not ap.provider.name:
            yield no("spec.provider.name", "CUSTOM action needs provider.name")
    elif ap.provider is not None:
        yield no("spec.provider", f"provider must not be set with action {ap.action}")
    if ap.action in ("DENY", "CUSTOM") and not ap.rules:
        yield no(
            "spec.rules", f"{ap.action} without rules never matches; add an empty rule {{}} to match every request"
        )
    for i, rule in enumerate(ap.rules):
        yield from _rule(ap, rule, f"spec.rules[{i}]")


def _dry_run(ap: sec.AuthorizationPolicy, meta: Json) -> Findings:
    given = (meta.get("annotations") or {}).get(DRY_RUN)
    if given is None:
        return
    at = f"metadata.annotations[{DRY_RUN}]"
    if str(given) not in ("true", "false", "1", "0", "t", "f", "T", "F", "TRUE", "FALSE", "True", "False"):
        yield no(at, f'"{given}" is neither true nor false')
    if ap.action not in ("ALLOW", "DENY"):
        yield no(at, f"the annotation is not supported with action {ap.action}")


def _rule(ap: sec.AuthorizationPolicy, rule: sec.Rule, at: str) -> Findings:
    if rule.from_ is not None and not rule.from_:
        yield no(f"{at}.from", "from cannot be empty, must have at least one source")
    for i, f in enumerate(rule.from_ or ()):
        where = f"{at}.from[{i}].source"
        if f.source is None:
            yield no(where, "source cannot be nil")
        else:
            yield from _source(ap, f.source, where)
    if rule.to is not None and not rule.to:
        yield no(f"{at}.to", "to cannot be empty, must have at least one operation")
    for i, t in enumerate(rule.to or ()):
        where = f"{at}.to[{i}].operation"
        if t.operation is None:
            yield no(where, "operation cannot be nil")
        else:
            yield from _operation(t.operation, where)
    for i, c in enumerate(rule.when):
        yield from _condition(ap, c, f"{at}.when[{i}]")
    yield from _literal_wildcards(rule, at)
    if ap.action == "DENY":
        yield from _tcp_warning(rule, at)
        yield from _ports_of_hosts(rule, at)


def _given(value: Any) -> dict[str, tuple[str, ...]]:
    """Field on the wire -> values, for the fields that are written down."""
    names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
    return {wire: v for name, wire in names if (v := getattr(value, name)) is not None}


def _lists(value: Any, at: str, what: str) -> Findings:
    given = _given(value)
    if not given:
        yield no(at, f"{what} must have at least one field")
    for field, values in given.items():
        if not values:
            yield no(f"{at}.{field}", f"{field} must not be empty")
        for i, v in enumerate(values):
            if not v:
                yield no(f"{at}.{field}[{i}]", "value must not be empty")


def _source(ap: sec.AuthorizationPolicy, src: sec.Source, at: str) -> Findings:
    yield from _lists(src, at, "source")
    if ap.action == "CUSTOM":
        for field in (
            "namespaces",
            "notNamespaces",
            "principals",
            "notPrincipals",
            "requestPrincipals",
            "notRequestPrincipals",
            "serviceAccounts",
            "notServiceAccounts",
        ):
            if field in _given(src):
                yield no(f"{at}.{field}", f"{field} is not supported with CUSTOM")
    for field in ("ip_blocks", "not_ip_blocks", "remote_ip_blocks", "not_remote_ip_blocks"):
        for i, block in enumerate(getattr(src, field) or ()):
            yield from s.cidr(block, f"{at}.{src.__struct_encode_fields__[src.__struct_fields__.index(field)]}[{i}]")
    accounts = (*(src.service_accounts or ()), *(src.not_service_accounts or ()))
    others = (src.principals, src.not_principals, src.namespaces, src.not_namespaces)
    if accounts and any(o is not None for o in others):
        yield no(at, "cannot set serviceAccounts with namespaces or principals")
    for account in accounts:
        if account.count("/") > 1 or "*" in account or account.startswith("/") or account.endswith("/"):
            yield no(
                f"{at}.serviceAccounts", f'"{account}" must be written as namespace/name or name, without wildcards'
            )
        if len(account) > 320:
            yield no(f"{at}.serviceAccounts", "a service account has at most 320 characters")
    if len(src.service_accounts or ()) > 16 or len(src.not_service_accounts or ()) > 16:
        yield no(f"{at}.serviceAccounts", "at most 16 service accounts")


def _operation(op: sec.Operation, at: str) -> Findings:
    yield from _lists(op, at, "operation")
    for field, values in (("ports", op.ports), ("notPorts", op.not_ports)):
        for i, p in enumerate(values or ()):
            if not p.isdigit():
                yield no(f"{at}.{field}[{i}]", f'"{p}" is not a port number')
            else:
                yield from s.port(int(p), f"{at}.{field}[{i}]")
    for field, values in (("paths", op.paths), ("notPaths", op.not_paths)):
        for i, p in enumerate(values or ()):
            yield from _path(p, f"{at}.{field}[{i}]")


def _path(path: str, at: str) -> Findings:
    """``{*}`` stands for one segment, ``{**}`` for any number of them; only plain text may follow it
    (https://istio.io/latest/docs/reference/config/security/authorization-policy/#Operation)."""
    found = TEMPLATE.findall(path)
    bare = TEMPLATE.sub("", path)
    if "{" in bare or "}" in bare:
        yield no(at, f'"{path}": "{{" and "}}" are for the templates {{*}} and {{**}} only')
        return
    if not found:
        return
    if "*" in bare:
        yield no(at, f'"{path}": a path with templates cannot have a wildcard too')
        return
    rest = False
    for segment in path.split("/"):
        if TEMPLATE.search(segment) and segment not in ("{*}", "{**}"):
            yield no(at, f'"{path}": a template must be a whole segment, {{*}} or {{**}}')
            return
        if TEMPLATE.search(segment) and rest:
            yield no(at, f'"{path}": no template may follow {{**}}')
            return
        rest = rest or segment == "{**}"


def _condition(ap: sec.AuthorizationPolicy, c: sec.Condition, at: str) -> Findings:
    if not c.key:
        yield no(f"{at}.key", "key must not be empty")
        return
    if not c.values and not c.not_values:
        yield no(at, "at least one of values and notValues must be set")
    if c.key not in CONDITIONS and not MAP_CONDITIONS.fullmatch(c.key) and not FILTER_CONDITION.fullmatch(c.key):
        yield no(f"{at}.key", f'unknown attribute "{c.key}"')
        return
    if ap.action == "CUSTOM" and c.key.startswith(
        ("source.namespace", "source.principal", "source.serviceAccount", "request.auth")
    ):
        yield no(f"{at}.key", f"{c.key} is not supported with CUSTOM")
    for field, values in (("values", c.values), ("notValues", c.not_values)):
        for i, v in enumerate(values):
            where = f"{at}.{field}[{i}]"
            if not v and not c.key.startswith("request.headers"):
                yield no(where, "value must not be empty")
            if c.key in ("source.ip", "remote.ip", "destination.ip"):
                yield from s.cidr(v, where)
            elif c.key == "destination.port":
                if not v.isdigit():
                    yield no(where, f'"{v}" is not a port number')
                else:
                    yield from s.port(int(v), where)
            elif v.startswith("[") and v.endswith("]") and c.key.startswith("experimental.") and "[" in v[1:-1]:
                yield no(where, f'"{v}" is not a valid list match')


PATTERNS = ("principals", "requestPrincipals", "namespaces", "hosts", "methods", "paths")


def _literal_wildcards(rule: sec.Rule, at: str) -> Findings:
    """Patterns are exact, ``prefix*``, ``*suffix`` or ``*``; anything else is text that nothing is equal to."""
    places: list[tuple[str, Any]] = [
        (f"{at}.from[{i}].source", f.source) for i, f in enumerate(rule.from_ or ()) if f.source
    ]
    places += [(f"{at}.to[{i}].operation", t.operation) for i, t in enumerate(rule.to or ()) if t.operation]
    for where, given in places:
        for field, values in _given(given).items():
            plain = field[3].lower() + field[4:] if field.startswith("not") else field
            for i, v in enumerate(values if plain in PATTERNS else ()):
                if plain == "principals" and v.startswith("spiffe://"):
                    yield warn(
                        f"{where}.{field}[{i}]", f'"{v}" matches nothing: write it without spiffe://, as in {v[9:]}'
                    )
                elif "*" in v[1:-1] and "{" not in v:
                    yield warn(
                        f"{where}.{field}[{i}]",
                        f'"{v}" is taken literally and matches nothing: "*" is a wildcard only at the beginning or the '
                        "end, and only once",
                    )
                elif len(v) > 1 and v.startswith("*") and v.endswith("*"):
                    yield warn(
                        f"{where}.{field}[{i}]",
                        f'"{v}": only the "*" at the beginning is a wildcard; the last one is text',
                    )


def _ports_of_hosts(rule: sec.Rule, at: str) -> Findings:
    """The Host header may have a port: a DENY rule that lists a name alone is passed by with ``name:80``."""
    for i, t in enumerate(rule.to or ()):
        hosts = (t.operation.hosts if t.operation else None) or ()
        bare = [h for h in hosts if ":" not in h and not h.endswith("*") and f"{h}:*" not in hosts]
        if bare:
            yield warn(
                f"{at}.to[{i}].operation.hosts",
                f"requests whose Host header has a port are not denied; also list {', '.join(f'{h}:*' for h in bare)}",
            )


def _tcp_warning(rule: sec.Rule, at: str) -> Findings:
    """On a TCP port a DENY rule's HTTP conditions are taken as met, so that it denies more than it says."""
    ports = any(t.operation and t.operation.ports for t in rule.to or ()) or any(
        c.key == "destination.port" for c in rule.when
    )
    if ports:
        return
    http = [
        f
        for t in rule.to or ()
        for f in _given(t.operation or sec.Operation())
        if f in ("hosts", "notHosts", "methods", "notMethods", "paths", "notPaths")
    ]
    http += [f for x in rule.from_ or () for f in _given(x.source or sec.Source()) if "equestPrincipals" in f]
    http += [c.key for c in rule.when if c.key.startswith(L7_CONDITIONS)]
    if http:
        yield warn(
            at,
            f"configured HTTP-only fields ({', '.join(http)}) are ignored on TCP ports, where the rule denies "
            "every request; add ports to the rule",
        )
