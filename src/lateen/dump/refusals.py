"""The user's objects that may have refused a request: Envoy's log names authorization policies, but neither the rules
of tokens nor those of rate limits. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.reading import is_gateway
from lateen.dump import handshakes
from lateen.dump.config import ConfigDump
from lateen.dump.origins import route_of
from lateen.dump.outcomes import LOGIN, told
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig
from lateen.mesh.reading import mesh_of
from lateen.wire import names, quotas

LIMITED = ("local_rate_limited", "rate_limited_by_quota")
"""The details of requests that limits of ours have refused."""
KINDS = {
    "jwt_authn_access_denied": (kinds.REQUEST_AUTHENTICATION, kinds.SERVICE, kinds.SERVICE_ENTRY),
    "filter_chain_not_found": (kinds.PEER_AUTHENTICATION,),
    handshakes.DETAILS: (kinds.GATEWAY,),
    "request_rate_limited": (kinds.ENVOY_FILTER,),
}
"""Details -> the kind of policies that have the say, then those of their targets. Without a filter chain for plain
text, mutual TLS is STRICT."""


_LIMITING = ("lateen.rate_limit", "lateen.quota")
"""How the names of the filters begin that have limits of ours, in this version and earlier ones."""
_ASKS = "envoy.filters.http.ratelimit"
PARTS = {
    names.KEYS: re.compile(r"(missing|unknown)_api_key"),
    names.BASIC: re.compile(r"\w+_for_basic_auth"),
    names.LOGIN: LOGIN,
}
"""The part of a SecurityPolicy whose filter gives these details."""


def asked(details: str) -> tuple[kinds.Kind, ...]:
    """The kinds of objects that ``refused_by`` needs."""
    return next((found for prefix, found in KINDS.items() if details.startswith(prefix)), ())


def refused_by(
    seen: Json, dump: ConfigDump | None, objects: Mapping[kinds.Kind, Iterable[Json]], pod: Json, root: str
) -> tuple[str, ...]:
    """``BackendTrafficPolicy limits.default, rule 0``; of several candidates all. ``seen``: a parsed line of a log;
    ``objects``: all of the kinds that are ``asked``; ``root``: the root namespace."""
    details = told(seen)[1]
    if details.startswith(handshakes.DETAILS):
        return tuple(dict.fromkeys(handshakes.asking(details, seen, objects.get(kinds.GATEWAY, ()), pod)))
    if wanted := asked(details):
        refs = _refusing(wanted[0], seen, objects, pod, root)
        return tuple(sorted(f"{ref.kind} {ref.name}.{ref.namespace}" for ref in refs))
    if details.startswith(LIMITED) and dump is not None:
        return tuple(sorted({*_limits(dump)}))
    part = next((part for part, pattern in PARTS.items() if pattern.match(details)), None)
    return tuple(sorted(_secured(part, dump, seen))) if part and dump is not None else ()


def _secured(part: str, dump: ConfigDump, seen: Json) -> set[str]:
    """The SecurityPolicies with a part: at gateways those of the request's route, which turns their slots on."""
    config = [*dump.extensions(), *(dump.listeners() if part == names.LOGIN else ())]
    found = {name.split("~")[0].split("/", 1)[1] for name in _filters(config) if name.startswith(f"{part}/")}
    slots = dig(route_of(dump, seen) or {}, "typed_per_filter_config", default={})
    here = {policy for policy in found if f"{names.SECURITY}/{policy}" in {"/".join(s.split("/")[:3]) for s in slots}}
    policies = (policy.split("/") for policy in here or found)
    return {f"{kinds.SECURITY_POLICY.kind} {name}.{namespace}" for namespace, name in policies}


def _filters(config: object) -> Iterator[str]:
    """The names of filters inside others."""
    if isinstance(config, list):
        for each in config:
            yield from _filters(each)
    elif isinstance(config, dict):
        if isinstance(config.get("name"), str):
            yield config["name"]
        yield from _filters([*config.values()])


def _refusing(
    kind: kinds.Kind, seen: Json, objects: Mapping[kinds.Kind, Iterable[Json]], pod: Json, root: str
) -> Iterable[o.Ref]:
    namespace, labels = pod["metadata"].get("namespace"), pod["metadata"].get("labels") or {}
    mesh = mesh_of(((k, obj) for k, some in objects.items() for obj in some), root)
    if kind is kinds.ENVOY_FILTER:
        return _limiting(objects.get(kind, ()), namespace, labels, root)
    if kind is kinds.REQUEST_AUTHENTICATION:
        return [p.ref for p in mesh.token_rules(namespace, labels)]
    port = str(seen.get("local") or "").rpartition(":")[2]
    # PeerAuthentications have no say at gateways
    return [] if is_gateway(pod) else mesh.strict_by(namespace, labels, int(port) if digits(port) else 0)


def _limiting(filters: Iterable[Json], namespace: str, labels: Json, root: str) -> Iterator[o.Ref]:
    """The EnvoyFilters of a pod that have a rate limit service asked."""
    for found in filters:
        meta, selector = found["metadata"], dig(found, "spec", "workloadSelector", "labels", default={})
        here = meta.get("namespace") in (namespace, root) and selector.items() <= labels.items()
        if here and any(p.get("applyTo") == "HTTP_FILTER" and _ASKS in str(p) for p in found["spec"]["configPatches"]):
            yield kinds.ENVOY_FILTER.ref(str(meta.get("namespace", "")), str(meta["name"]))


def _limits(dump: ConfigDump) -> Iterator[str]:
    """Of sidecars, which have them in filters, and of gateways, which have them at routes."""
    yield from _rules([f for f in dump.extensions() if str(f.get("name")).startswith(_LIMITING)])
    yield from _rules([*dump.routes()])


def _rules(config: object) -> Iterator[str]:
    """The names of rules in a filter's configuration, ``NAMESPACE/NAME/RULE``: values of the descriptor ``rule``, or of
    the key of that name in a quota's bucket."""
    if isinstance(config, list):
        for each in config:
            yield from _rules(each)
    elif isinstance(config, dict):
        one = dig(config, quotas.RULE, "string_value", default="")
        text = config.get("value") if config.get("key") == quotas.RULE else one
        namespace, _, rest = str(text or "").partition("/")
        name, _, rule = rest.partition("/")
        if rule:
            yield f"BackendTrafficPolicy {name}.{namespace}, rule {rule}"
        for value in config.values():
            yield from _rules(value)
