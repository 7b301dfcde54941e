"""Validation rules of AuthorizationPolicy.

Source: istio.io/istio ``pkg/config/validation/validation.go``, ValidateAuthorizationPolicy, and
``pkg/config/security/security.go``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lateen.api import security as sec
from lateen.api.validate import dead_patterns
from lateen.api.validate import scalars as s
from lateen.api.validate.common import selector, target_refs
from lateen.api.validate.findings import Findings, hint, no, warn
from lateen.kit.jsons import Json

DRY_RUN = "istio.io/dry-run"
BOOLEANS = ("1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False")
IPS = ("source.ip", "remote.ip", "destination.ip")
CONDITIONS = {
    *IPS,
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "destination.port",
    "connection.sni",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
}
REPLACED = {
    "destination.namespace": "attribute destination.namespace is replaced by the metadata.namespace",
    "destination.labels": "attribute destination.labels is replaced by the workload selector",
    "destination.name": "deprecated attribute destination.name: only supported in v1alpha1",
    "destination.user": "deprecated attribute destination.user: only supported in v1alpha1",
}
MAPS = (
    "request.headers",
    "request.experimental.inline.headers",
    "request.auth.claims",
    "experimental.envoy.filters.",
)
MAP_KEY = re.compile(
    r"request\.(experimental\.inline\.)?headers\[.+\]|request\.auth\.claims(\[[^\[\]]+\])+|experimental\.envoy\.filters\.[^\[]+\[.+\]"
)
NOT_CUSTOM = ("namespaces", "serviceAccounts", "trustDomains", "principals", "requestPrincipals")
"""Source fields that CUSTOM does not support; the same holds for their ``not`` forms."""
NOT_CUSTOM_KEYS = ("source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal")
MAX_ACCOUNTS, MAX_ACCOUNT = 16, 320
TEMPLATES = ("{*}", "{**}")
LITERAL = re.compile(r"[a-zA-Z0-9-._~%!$&'()+,;:@=]+")
"""Characters allowed outside of templates (RFC 3986, pchar)."""
MEANINGLESS = (
    "action without `rules` is meaningless as it will never be triggered, add an empty rule `{}` if you want it be "
    "triggered for every request"
)
DENIES_TCP = (
    "configured AuthorizationPolicy will deny all traffic to TCP ports under its scope due to the use of only HTTP "
    "attributes in a DENY rule; it is recommended to explicitly specify the port"
)


def authorization_policy(ap: sec.AuthorizationPolicy, meta: Json) -> Findings:
    yield from selector(ap.selector)
    yield from target_refs(ap.target_ref, ap.target_refs, ap.selector is not None)
    yield from _dry_run(ap, meta)
    if ap.action == "CUSTOM":
        if ap.provider is None or not ap.provider.name:
            yield no("spec.provider.name", "`provider.name` must not be empty: CUSTOM asks an extension provider")
    elif ap.provider is not None:
        yield no("spec.provider", f"`provider` must not be with non CUSTOM action, found {ap.action}")
    if ap.action in ("DENY", "CUSTOM") and not ap.rules:
        yield no("spec.rules", f"{ap.action} {MEANINGLESS}")
    for i, rule in enumerate(ap.rules):
        yield from _rule(ap, rule, f"spec.rules[{i}]")


def _dry_run(ap: sec.AuthorizationPolicy, meta: Json) -> Findings:
    given = (meta.get("annotations") or {}).get(DRY_RUN)
    if given is None:
        return
    at = f"metadata.annotations[{DRY_RUN}]"
    if ap.action not in ("ALLOW", "DENY"):
        says = f"the annotation {DRY_RUN} currently only supports action ALLOW/DENY, found action {ap.action}"
        yield no(at, says)
    elif str(given) not in BOOLEANS:
        yield no(at, f"has annotation {DRY_RUN} with invalid value ({given}): it is neither true nor false")


def _rule(ap: sec.AuthorizationPolicy, rule: sec.Rule, at: str) -> Findings:
    if rule.from_ is not None and not rule.from_:
        yield no(f"{at}.from", "`from` must not be empty: leave it out to match every source")
    for i, f in enumerate(rule.from_ or ()):
        where = f"{at}.from[{i}].source"
        if f.source is None:
            yield no(where, "`from.source` must not be nil")
        else:
            yield from _source(ap, f.source, where)
    if rule.to is not None and not rule.to:
        yield no(f"{at}.to", "`to` must not be empty: leave it out to match every operation")
    for i, t in enumerate(rule.to or ()):
        where = f"{at}.to[{i}].operation"
        if t.operation is None:
            yield no(where, "`to.operation` must not be nil")
        else:
            yield from _operation(t.operation, where)
    for i, c in enumerate(rule.when):
        yield from _condition(ap, c, f"{at}.when[{i}]")
    yield from dead_patterns.in_rule(rule, at)
    yield from _passing_paths(ap, rule, at)
    if ap.action == "DENY":
        yield from _tcp_warning(rule, at)


def _given(value: Any) -> dict[str, tuple[str, ...]]:
    """Field on the wire -> values, for the fields that are set."""
    names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
    return {wire: v for name, wire in names if (v := getattr(value, name)) is not None}


def _plain(field: str) -> str:
    """``notPaths`` -> ``paths``"""
    return field[3].lower() + field[4:] if field.startswith("not") else field


def _capital(field: str) -> str:
    return field[0].upper() + field[1:]


def _lists(value: Any, at: str, what: str) -> Findings:
    given = _given(value)
    if not any(given.values()):
        yield no(at, f"`{what}` must not be empty")
        return
    for field, values in given.items():
        if not values:
            yield no(f"{at}.{field}", f"{field} must not be empty: leave it out")
        for i, v in enumerate(values):
            if not v:
                yield no(f"{at}.{field}[{i}]", f"empty value not allowed, found in {_capital(field)}")
            yield from s.compared(v, f"{at}.{field}[{i}]")


def _source(ap: sec.AuthorizationPolicy, src: sec.Source, at: str) -> Findings:
    yield from _lists(src, at, "from.source")
    for field, values in _given(src).items():
        plain = _plain(field)
        if ap.action == "CUSTOM" and plain in NOT_CUSTOM:
            says = f"From.{_capital(field)} is currently not supported with CUSTOM action"
            yield no(f"{at}.{field}", says)
        if plain in ("ipBlocks", "remoteIpBlocks"):
            for i, block in enumerate(values):
                yield from _block(block, f"{at}.{field}[{i}]")
        elif plain == "serviceAccounts":
            yield from _accounts(values, f"{at}.{field}", _capital(field))
        elif plain == "trustDomains":
            yield from _trust_domains(values, f"{at}.{field}", _capital(field))
    others = (src.principals, src.not_principals, src.namespaces, src.not_namespaces)
    if (src.service_accounts or src.not_service_accounts) and any(others):
        yield no(at, "cannot set serviceAccounts with namespaces or principals")


def _block(text: str, at: str) -> Findings:
    for _ in s.cidr(text, at) if text else ():
        what = "CIDR range" if "/" in text else "IP address"
        yield no(at, f"bad {what} ({text[:80]}); write an address, or a range such as 10.0.0.0/8")


def _accounts(values: Iterable[str], at: str, field: str) -> Findings:
    values = list(values)
    if len(values) > MAX_ACCOUNTS:
        yield no(at, f"may not have more than {MAX_ACCOUNTS} values")
    for i, account in enumerate(filter(None, values)):
        where = f"{at}[{i}]"
        if "*" in account:
            yield no(where, f"wildcard not allowed, found in {field}")
        elif account.count("/") > 1 or not all(account.split("/")):
            says = (
                f"expected format 'serviceAccount' or 'namespace/serviceAccount', found \"{account[:80]}\" in {field}"
            )
            yield no(where, says)
        elif len(account) > MAX_ACCOUNT:
            yield no(where, f"value cannot exceed {MAX_ACCOUNT} characters, found in {field}")


def _trust_domains(values: Iterable[str], at: str, field: str) -> Findings:
    """Trust domains: a domain, ``*`` for any, or a single ``*`` at the beginning or the end."""
    for i, domain in enumerate(values):
        if "/" in domain:
            says = f"trust domain must not contain '/', found in {field}"
            yield no(f"{at}[{i}]", f'{says}: "{domain[:80]}"; it is what precedes /ns/')
        elif domain.count("*") > 1:
            yield no(f"{at}[{i}]", f'at most one wildcard is allowed, found in {field}: "{domain[:80]}"')
        elif "*" in domain[1:-1]:
            yield no(f"{at}[{i}]", f'wildcard is only allowed at the start or end, found in {field}: "{domain[:80]}"')


def _operation(op: sec.Operation, at: str) -> Findings:
    yield from _lists(op, at, "to.operation")
    for field, values in _given(op).items():
        for i, v in enumerate(values):
            if _plain(field) == "ports" and v:
                yield from s.port_text(v, f"{at}.{field}[{i}]")
            elif _plain(field) == "paths":
                yield from _path(v, f"{at}.{field}[{i}]", _capital(field))


def _path(path: str, at: str, field: str) -> Findings:
    """``{*}`` stands for one segment, ``{**}`` for any number of them; only plain text may follow it
    (https://istio.io/latest/docs/reference/config/security/authorization-policy/#Operation)."""
    rest = False
    bad = f"invalid or unsupported path {path[:80]}, found in {field}."
    for segment in path.strip("/").split("/"):
        if segment in TEMPLATES:
            if rest:
                yield no(at, f"{bad} {{**}} is not the last operator")
                return
            rest = segment == "{**}"
        elif "{" in segment or "}" in segment:
            says = "Contains '{' or '}' beyond a supported path template: a segment can be {*} or {**} as a whole"
            yield no(at, f"{bad} {says}")
            return
        elif any(t in path for t in TEMPLATES) and not LITERAL.fullmatch(segment):
            yield no(at, f"{bad} Contains segment {segment} with invalid string literal")
            return


def _condition(ap: sec.AuthorizationPolicy, c: sec.Condition, at: str) -> Findings:
    if not c.key:
        yield no(f"{at}.key", "`key` must not be empty")
        return
    if not c.values and not c.not_values:
        yield no(at, f"at least one of `values` or `notValues` must be set for key {c.key}")
    if why := _strange(c.key):
        yield no(f"{at}.key", why)
        return
    if ap.action == "CUSTOM" and (c.key in NOT_CUSTOM_KEYS or c.key.startswith("request.auth.")):
        yield no(f"{at}.key", f"{c.key} is currently not supported with CUSTOM action")
    for field, values in (("values", c.values), ("notValues", c.not_values)):
        where = f"{at}.{field}"
        for i, v in enumerate(values):
            yield from s.compared(v, f"{where}[{i}]")
            if not v:
                yield no(f"{where}[{i}]", f"empty value not allowed, found in {c.key}")
            elif c.key in IPS:
                yield from _block(v, f"{where}[{i}]")
            elif c.key == "destination.port":
                yield from s.port_text(v, f"{where}[{i}]")
        if c.key == "source.serviceAccount":
            yield from _accounts(values, where, c.key)
        elif c.key == "source.trustDomain":
            yield from _trust_domains(values, where, c.key)


def _strange(key: str) -> str:
    """Why a condition's key is invalid; empty if it is valid."""
    if key in CONDITIONS or MAP_KEY.fullmatch(key):
        return ""
    if key.startswith(MAPS):
        return f"bad key ({key[:80]}): should have format a[b]"
    known = REPLACED.get(key.partition("[")[0])
    return known or f"unknown attribute: {key[:80]}; known are {', '.join(sorted(CONDITIONS))}, {', '.join(MAPS)}[…]"


# --- accepted, but probably not what was meant ------------------------------------------------------------------------


def _passing_paths(ap: sec.AuthorizationPolicy, rule: sec.Rule, at: str) -> Findings:
    """Warnings about denied paths that have other spellings, which some servers treat as the same path. Variants of
    slashes, dots and encodings are not reported: ``meshConfig.pathNormalization`` handles them."""
    for i, t in enumerate(rule.to or ()):
        operation = t.operation or sec.Operation()
        kept_out = {"DENY": ("paths", operation.paths), "ALLOW": ("notPaths", operation.not_paths)}
        field, given = kept_out.get(ap.action, ("", ()))
        p = next(
            (p for p in given or () if not {"*", "{", "?", "#"} & set(p) and p != "/" and f"{p}*" not in (given or ())),
            "",
        )
        if p:
            yield hint(
                f"{at}.to[{i}].operation.{field}",
                f"{p}/, {p};x, {p}%20 and {p.swapcase()} are different paths from {p} and are let through; if the "
                f"server treats them as the same, list {p}* as well, or allow only the open paths with an ALLOW policy",
            )


def _tcp_warning(rule: sec.Rule, at: str) -> Findings:
    """On a TCP port, the HTTP conditions of a DENY rule count as met, so it denies more than it says. Istio has
    no such warning for a rule that has only ``when``."""
    operations = [t.operation or sec.Operation() for t in rule.to or ()]
    sources = [x.source or sec.Source() for x in rule.from_ or ()]
    if any(o.ports or o.not_ports for o in operations):
        return
    if not operations and any("equestPrincipals" not in f for src in sources for f in _given(src)):
        return
    found = [f for o in operations for f in _given(o)]
    found += [f for src in sources for f in _given(src) if "equestPrincipals" in f]
    found += [c.key for c in rule.when if c.key.startswith("request.")]
    if found and not any(c.key == "destination.port" for c in rule.when):
        tell = warn if operations or sources else hint
        yield tell(at, f"{DENIES_TCP}. The attributes are {', '.join(dict.fromkeys(found))}")
