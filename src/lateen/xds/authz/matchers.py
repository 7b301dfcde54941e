"""Single conditions of an authorization rule as permissions and principals of Envoy's RBAC.

They follow Istio: which field becomes which condition, how ``*`` is interpreted, how trust domain aliases multiply
principals. ``*`` alone means "any value, but there must be one".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import address_pb2, extension_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.extensions.path.match.uri_template.v3 import uri_template_match_pb2
from envoy.type.matcher.v3 import metadata_pb2, path_pb2, regex_pb2, string_pb2, value_pb2

from lateen.api.domain import TRUST_DOMAIN
from lateen.xds import claims, pb

SCHEME = "spiffe://"
IDENTITY = 4
"""The slashes of ``domain/ns/NAMESPACE/sa/ACCOUNT``"""
_META = frozenset("\\.+*?()|[]{}^$")
STAR = re.compile(r"\{\*\*?\}")
"""What stands for segments in a path"""
ANYTHING = r"\C+"
"""Any non-empty value. Istio uses ``.+``, but RE2's ``.`` matches neither line ends nor invalid UTF-8, so a path, an
SNI or a claim with such a byte would count as absent."""


def quoted(text: str) -> str:
    """The text with RE2's metacharacters escaped."""
    return "".join(f"\\{c}" if c in _META else c for c in text)


def regex(text: str) -> string_pb2.StringMatcher:
    return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=text))


def string(value: str, ignore_case: bool = False) -> Any:
    if value == "*":
        return regex(ANYTHING)
    if value.startswith("*"):
        return string_pb2.StringMatcher(suffix=value[1:], ignore_case=ignore_case)
    if value.endswith("*"):
        return string_pb2.StringMatcher(prefix=value[:-1], ignore_case=ignore_case)
    return string_pb2.StringMatcher(exact=value, ignore_case=ignore_case)


def _exact(value: str) -> Any:
    return string_pb2.StringMatcher(exact=value)


def header(name: str, value: str, ignore_case: bool = False) -> rc.HeaderMatcher:
    if value == "*":
        return rc.HeaderMatcher(name=name, present_match=True)
    return rc.HeaderMatcher(name=name, string_match=string(value, ignore_case))


def block(text: str) -> address_pb2.CidrRange:
    net = ipaddress.ip_network(text, strict=False)
    prefix = text.partition("/")[0]
    return address_pb2.CidrRange(address_prefix=prefix, prefix_len=pb.u32(net.prefixlen))


# --- permissions -------------------------------------------------------------------------------------------------


def path(value: str) -> rbac_pb2.Permission:
    if STAR.search(value):
        template = value.replace("{**}", "**").replace("{*}", "*")
        config = uri_template_match_pb2.UriTemplateMatchConfig(path_template=template)
        named = extension_pb2.TypedExtensionConfig(name="uri-template", typed_config=pb.any_of(config))
        return rbac_pb2.Permission(uri_template=named)
    return rbac_pb2.Permission(url_path=path_pb2.PathMatcher(path=string(value)))


def method(value: str) -> rbac_pb2.Permission:
    return rbac_pb2.Permission(header=header(":method", value))


def host(value: str) -> rbac_pb2.Permission:
    return rbac_pb2.Permission(header=header(":authority", value, ignore_case=value != "*"))


def several_hosts() -> rbac_pb2.Permission:
    """Several Host headers, which Envoy joins by commas; no host name contains one."""
    contains = string_pb2.StringMatcher(contains=",")
    return rbac_pb2.Permission(header=rc.HeaderMatcher(name=":authority", string_match=contains))


def port(value: str) -> rbac_pb2.Permission:
    return rbac_pb2.Permission(destination_port=int(value))


def destination_ip(value: str) -> rbac_pb2.Permission:
    return rbac_pb2.Permission(destination_ip=block(value))


def sni(value: str) -> rbac_pb2.Permission:
    return rbac_pb2.Permission(requested_server_name=string(value))


def filter_metadata(key: str, values: Iterable[str]) -> rbac_pb2.Permission:
    """``experimental.envoy.filters.NAME[KEY]``; a value in brackets is an item of a list."""
    name, _, rest = key.removeprefix("experimental.").partition("[")
    segment = metadata_pb2.MetadataMatcher.PathSegment(key=rest.rstrip("]"))
    value = claims.any_of([_item(v) for v in values])
    return rbac_pb2.Permission(metadata=metadata_pb2.MetadataMatcher(filter=name, path=[segment], value=value))


def _item(value: str) -> value_pb2.ValueMatcher:
    if value.startswith("[") and value.endswith("]"):
        return value_pb2.ValueMatcher(
            list_match=value_pb2.ListMatcher(one_of=value_pb2.ValueMatcher(string_match=string(value[1:-1])))
        )
    return value_pb2.ValueMatcher(string_match=string(value))


# --- principals --------------------------------------------------------------------------------------------------


def _named(matcher: Any) -> rbac_pb2.Principal:
    return rbac_pb2.Principal(authenticated=rbac_pb2.Principal.Authenticated(principal_name=matcher))


def identity(value: str) -> Any:
    """``trust-domain/ns/NAMESPACE/sa/ACCOUNT``, without the scheme."""
    if value == "*":
        return _named(regex(ANYTHING))
    if value.startswith("*"):
        return _named(regex(f"{SCHEME}.*{quoted(value[1:])}"))
    if value.endswith("*"):
        return _named(string_pb2.StringMatcher(prefix=f"{SCHEME}{value[:-1]}"))
    return _named(string_pb2.StringMatcher(exact=f"{SCHEME}{value}"))


def trust_domain(value: str) -> Any:
    """A trust domain, possibly with ``*`` at one end; ``*`` alone matches any."""
    if value == "*":
        return _named(string_pb2.StringMatcher(prefix="spiffe://"))
    if "*" not in value:
        return identity(f"{value}/*")
    pattern = "[^/]*".join(quoted(part) for part in value.split("*"))
    return _named(regex(f"spiffe://{pattern}/.*"))


def namespace(value: str, scheme: str = "") -> Any:
    """``scheme``: with which an identity begins. A certificate without one, such as that of a gateway's client, is
    known by its subject, which may be ``CN=a/ns/b/c``; Istio takes that for the namespace b."""
    pattern = ".*".join(quoted(part) for part in value.split("*"))
    return _named(regex(f"{scheme}.*/ns/{pattern}/.*"))


def account(value: str, own_namespace: str) -> Any:
    """``namespace/name``, or a name of the policy's own namespace."""
    where, _, name = value.rpartition("/")
    return _named(regex(f"spiffe://.+/ns/{quoted(where or own_namespace)}/(.+/|)sa/{quoted(name)}(/.+)?"))


def direct_ip(value: str) -> rbac_pb2.Principal:
    return rbac_pb2.Principal(direct_remote_ip=block(value))


def remote_ip(value: str) -> rbac_pb2.Principal:
    return rbac_pb2.Principal(remote_ip=block(value))


def request_header(name: str, value: str) -> rbac_pb2.Principal:
    return rbac_pb2.Principal(header=header(name, value))


def listed_header(name: str, value: str) -> rbac_pb2.Principal:
    """A header whose value is a comma-separated list with ``value`` as one item.

    A star at an end may as well take the other items on its side: something of the list matches just the same. So it
    takes any bytes, while a star in between must not take commas, for which RE2 has nothing but characters of UTF-8.
    What is let in by such a match is valid there; ``spellings.listed_header`` is for what is kept out.
    """
    return request_header(name, value) if value == "*" else one_of_list(name, listed(value, "[^,]*"))


def listed(value: str, between: str) -> str:
    """The regular expression of an item of a list. ``between``: that of a star inside."""
    inner = between.join(quoted(part) for part in value.strip("*").split("*"))
    return (r"\C*" if value.startswith("*") else "") + inner + (r"\C*" if value.endswith("*") else "")


def one_of_list(name: str, item: str) -> rbac_pb2.Principal:
    """A header with a list that has an item (a regular expression). ``\\C`` is any byte; ``.`` would be one of valid
    UTF-8, which clients need not send."""
    matcher = rc.HeaderMatcher(name=name, string_match=regex(rf"(?:\C*,)?[ \t]*{item}[ \t]*(?:,\C*)?"))
    return rbac_pb2.Principal(header=matcher)


def request_principal(value: str) -> rbac_pb2.Principal:
    """``issuer/subject`` of a verified token. ``*`` counts at the beginning of the issuer or at the end of the subject,
    not at both."""
    issuer, slash, subject = value.rpartition("/")
    if value == "*":
        iss = sub = string("*")
    elif value.startswith("*"):
        iss, sub = (string(issuer), _exact(subject)) if slash else (string("*"), string(value))
    elif value.endswith("*"):
        iss, sub = (_exact(issuer), string(subject)) if slash else (string(value), string("*"))
    else:
        iss, sub = (_exact(issuer), _exact(subject)) if slash else (_exact(value), _exact(""))
    parts = [
        rbac_pb2.Principal(metadata=claims.matcher([key], value_pb2.ValueMatcher(string_match=text)))
        for key, text in (("iss", iss), ("sub", sub))
    ]
    return rbac_pb2.Principal(and_ids=rbac_pb2.Principal.Set(ids=parts))


def claim(keys: Iterable[str], values: Iterable[str]) -> rbac_pb2.Principal:
    return rbac_pb2.Principal(metadata=claims.one_of(keys, map(string, values)))


def in_every_domain(values: Iterable[str], domains: tuple[str, ...]) -> list[str]:
    """Principals of one of the mesh's trust domains are principals of all of them; ``cluster.local`` stands for
    whichever the mesh has. As in Istio, that holds for whole identities, not for patterns such as ``domain/*``."""
    out: list[str] = []
    for value in values:
        domain, _, rest = value.partition("/")
        if not domains or value.count("/") != IDENTITY or domain == "*" or not _of_mesh(domain, domains):
            out.append(value)
            continue
        for known in domains:
            kept = domain.startswith("*") and known.endswith(domain[1:])
            made = value if kept else f"{known}/{rest}"
            if made not in out:
                out.append(made)
    return out


def with_aliases(values: Iterable[str], domains: tuple[str, ...]) -> list[str]:
    """Trust domains, expanded: each of the mesh's own stands for all of them."""
    found = (known for value in values for known in (domains if value in domains else (value,)))
    return list(dict.fromkeys(found))


def _of_mesh(domain: str, domains: tuple[str, ...]) -> bool:
    """Whether it is one of the mesh's trust domains; ``domain`` may have a ``*`` at one end."""
    if domain.startswith("*"):
        return any(d.endswith(domain[1:]) for d in domains)
    if domain.endswith("*"):
        return any(d.startswith(domain[:-1]) for d in domains)
    return domain in domains or domain == TRUST_DOMAIN
