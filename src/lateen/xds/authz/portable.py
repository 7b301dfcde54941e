"""RBAC as gRPC's servers evaluate it, which know fewer conditions than Envoy and refuse a whole listener for one that
they do not know. Source: https://github.com/grpc/proposal/blob/master/A41-xds-rbac.md

A condition that gRPC cannot evaluate counts as met where that denies, and as not met where that would allow.
"""

from __future__ import annotations

import re
from typing import Any

from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.path.match.uri_template.v3 import uri_template_match_pb2

from lateen.xds.authz import matchers

_SETS = {"and_rules": "rules", "or_rules": "rules", "and_ids": "ids", "or_ids": "ids"}
_NEGATED = ("not_rule", "not_id")
_KNOWN = ("any", "destination_ip", "destination_port", "direct_remote_ip", "remote_ip")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_WILDCARD = re.compile(r"\*\*?")


def portable(rules: rbac_pb2.RBAC) -> rbac_pb2.RBAC:
    out = rbac_pb2.RBAC()
    out.CopyFrom(rules)
    denies = out.action == rbac_pb2.RBAC.DENY
    for policy in out.policies.values():
        for permission in policy.permissions:
            _mend(permission, "rule", denies)
        for principal in policy.principals:
            _mend(principal, "identifier", denies)
    return out


def _mend(one: Any, choice: str, met: bool) -> None:
    """``met``: whether the condition counts as met if gRPC cannot evaluate it."""
    chosen = one.WhichOneof(choice)
    if chosen in _SETS:
        for member in getattr(getattr(one, chosen), _SETS[chosen]):
            _mend(member, choice, met)
    elif chosen in _NEGATED:
        _mend(getattr(one, chosen), choice, not met)
    elif chosen == "header" and _has(one.header.name):
        _spell(one.header.string_match)
    elif chosen == "url_path":
        _spell(one.url_path.path)
    elif chosen == "authenticated":
        _spell(one.authenticated.principal_name)
    elif chosen == "uri_template":
        template = uri_template_match_pb2.UriTemplateMatchConfig()
        one.uri_template.typed_config.Unpack(template)
        one.url_path.path.safe_regex.regex = _pattern(template.path_template)
    elif chosen not in _KNOWN:
        one.any = True
        if not met:
            one.CopyFrom(type(one)(**{"not_rule" if choice == "rule" else "not_id": one}))


def _has(header: str) -> bool:
    """Whether gRPC compares this header; it refuses conditions about others."""
    return header != ":scheme" and not header.startswith("grpc-")


def _pattern(template: str) -> str:
    """The regular expression of a template: ``*`` is one segment of a path, ``**`` any number of them."""
    out, end = "", 0
    for found in _WILDCARD.finditer(template):
        out += matchers.quoted(template[end : found.start()]) + ("[^/]+" if found[0] == "*" else ".*")
        end = found.end()
    return out + matchers.quoted(template[end:])


def _spell(matcher: Any) -> None:
    r"""Without ``\C`` (any byte), which gRPC's regular expressions have only in some languages."""
    if matcher.WhichOneof("match_pattern") == "safe_regex":
        spelled = _ESCAPED.sub(lambda m: "(?s:.)" if m[1] == "C" else m[0], matcher.safe_regex.regex)
        matcher.safe_regex.regex = spelled
