"""The user's objects that may have refused a request: Envoy's log names authorization policies, but neither the rules
of tokens nor those of rate limits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lateen.api import kinds
from lateen.dump.config import ConfigDump
from lateen.kit.jsons import Json, dig
from lateen.wire import quotas

LIMITED = ("local_rate_limited", "rate_limited_by_quota")
"""The details of requests that limits of ours have refused."""
KINDS = {"jwt_authn_access_denied": kinds.REQUEST_AUTHENTICATION, "filter_chain_not_found": kinds.PEER_AUTHENTICATION}
"""Details -> the kind of policies that have the say. Without a filter chain for plain text, mutual TLS is STRICT."""


def asked(details: str) -> kinds.Kind | None:
    """The kind of objects that ``refused_by`` needs."""
    return next((kind for prefix, kind in KINDS.items() if details.startswith(prefix)), None)


def refused_by(
    details: str, dump: ConfigDump | None, policies: Iterable[Json], pod: Json, root: str
) -> tuple[str, ...]:
    """``BackendTrafficPolicy limits.default, rule 0``; of several candidates all. ``policies``: all of the kind that is
    ``asked``; ``root``: the root namespace."""
    if kind := asked(details):
        if kind is kinds.PEER_AUTHENTICATION:
            policies = [p for p in policies if _strict(p)] if not _is_gateway(pod) else []
        return tuple(f"{kind.kind} {name}" for name in sorted(_selecting(policies, pod, root)))
    if details.startswith(LIMITED) and dump is not None:
        return tuple(sorted({*_limits(dump)}))
    return ()


def _selecting(policies: Iterable[Json], pod: Json, root: str) -> Iterator[str]:
    namespace, labels = pod["metadata"].get("namespace"), pod["metadata"].get("labels") or {}
    for one in policies:
        own, wanted = one["metadata"], dig(one, "spec", "selector", "matchLabels", default={}) or {}
        if own["namespace"] in (namespace, root) and wanted.items() <= labels.items():
            yield f"{own['name']}.{own['namespace']}"


def _strict(policy: Json) -> bool:
    modes = [dig(policy, "spec", "mtls", "mode", default="")]
    modes += [p.get("mode") for p in dig(policy, "spec", "portLevelMtls", default={}).values() if isinstance(p, dict)]
    return "STRICT" in modes


def _is_gateway(pod: Json) -> bool:
    """PeerAuthentications have no say at gateways."""
    return any("router" in (c.get("args") or []) for c in dig(pod, "spec", "containers", default=[]))


def _limits(dump: ConfigDump) -> Iterator[str]:
    """Of sidecars, which have them in filters, and of gateways, which have them at routes."""
    yield from _rules([f for f in dump.extensions() if "rate_limit" in str(f.get("name"))])
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
