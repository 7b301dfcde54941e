"""Webhooks: whether injectors exist and do not overlap, and the addresses of external control planes."""

from __future__ import annotations

import ipaddress
import itertools
import re
import urllib.parse
from collections.abc import Iterator

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Snapshot, Source, message
from lateen.api import kinds
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig

REVISION = "istio.io/rev"
CONFIGURATIONS = ("istio-validator", "istiod-default-validator", "istio-sidecar-injector")
"""Prefixes of the names of an installation's webhook configurations."""
SCHEME, IMPOSSIBLE = re.compile("[A-Za-z][A-Za-z0-9+.-]*"), re.compile(r"[\x00-\x20\x7f%^`{|}\\]")
_LABEL = "(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
NAME, NAME_LENGTH = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?"), 254
"""What names in the DNS look like (RFC 1035, section 2.3.4, and the underscores of RFC 8552)."""


@analyzer("webhook.Analyzer", "Checks the validity of Istio webhooks")
def webhooks(snapshot: Snapshot) -> Iterator[Message]:
    hooks = [
        (config, i, hook)
        for config in snapshot.all(kinds.MUTATING_WEBHOOK)
        if _injects(config)
        for i, hook in enumerate(config.obj.get("webhooks") or [])
    ]
    overlaps: dict[tuple[str, int], set[str]] = {}
    for namespace, labels in _situations(hooks):
        hit = [(c, i) for c, i, h in hooks if _matches(h, namespace, labels)]
        for config, i in hit:
            others = {f"{c.name}/{hooks_name(c, j)}" for c, j in hit if (c, j) != (config, i)}
            if others:
                overlaps.setdefault((config.name, i), set()).update(others)
    for config, i, hook in hooks:
        path = ("webhooks", i)
        if (config.name, i) in overlaps:
            shown = "[" + " ".join(sorted(overlaps[config.name, i])) + "]"
            yield message(
                "IST0139",
                config,
                f"Webhook overlaps with others: {shown}. This may cause injection to occur twice.",
                path=path,
            )
        service = dig(hook, "clientConfig", "service")
        if service and snapshot.get(kinds.SERVICE, str(service.get("namespace")), str(service.get("name"))) is None:
            name = f"{service.get('namespace')}/{service.get('name')}"
            says = f"Injector refers to a control plane service that does not exist: {name}."
            yield message("IST0139", config, says, path=path)


def _injects(config: Source) -> bool:
    """Whether it belongs to an injector, by its webhooks' names or its revision label."""
    hooks = config.obj.get("webhooks") or []
    return any(str(h.get("name", "")).endswith("istio.io") for h in hooks) or bool(_revisions(config))


def _revisions(config: Source) -> set[str]:
    """The revisions that a configuration's label and its webhooks' selectors name."""
    out = {config.labels[REVISION]} if REVISION in config.labels else set()
    for hook in config.obj.get("webhooks") or []:
        for field in ("namespaceSelector", "objectSelector"):
            selector = hook.get(field) or {}
            if rev := (selector.get("matchLabels") or {}).get(REVISION):
                out.add(rev)
            for e in selector.get("matchExpressions") or []:
                if e.get("key") == REVISION:
                    out |= set(e.get("values") or [])
    return out


def hooks_name(config: Source, i: int) -> str:
    return str(config.obj["webhooks"][i].get("name"))


def _matches(hook: Json, namespace: dict[str, str], labels: dict[str, str]) -> bool:
    return selectors.matches(hook.get("namespaceSelector") or {}, namespace) and selectors.matches(
        hook.get("objectSelector") or {}, labels
    )


def _situations(hooks: list[tuple[Source, int, Json]]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Every combination, on a namespace and on a pod, of the labels that injectors select by."""
    revisions = {rev for config in {c.name: c for c, _, _ in hooks}.values() for rev in _revisions(config)}
    injection = [None, "enabled", "disabled"]
    for ns, ns_rev, inject, rev in itertools.product(
        injection, [None, *sorted(revisions)], [None, "true", "false"], [None, *sorted(revisions)]
    ):
        yield (
            _labels({"istio-injection": ns, "istio.io/rev": ns_rev}),
            _labels({"sidecar.istio.io/inject": inject, "istio.io/rev": rev}),
        )


def _labels(given: dict[str, str | None]) -> dict[str, str]:
    return {k: v for k, v in given.items() if v is not None}


@analyzer(
    "externalcontrolplane.ExternalControlPlaneAnalyzer",
    "Checks that the remote IstioOperator resources reference an external control plane",
)
def external_control_plane(snapshot: Snapshot) -> Iterator[Message]:
    for config in snapshot.all(kinds.VALIDATING_WEBHOOK, kinds.MUTATING_WEBHOOK):
        if not config.name.startswith(CONFIGURATIONS):
            continue
        for i, hook in enumerate(config.obj.get("webhooks") or []):
            client, name = hook.get("clientConfig") or {}, hook.get("name")
            path = ("webhooks", i, "clientConfig")
            if client.get("url") is None:
                if not client.get("service"):
                    yield message("IST0163", config, "", name, "is blank", path=path)
                continue
            url = str(client["url"])
            host = _hostname(url)
            if host and _address(host):
                yield message("IST0164", config, url, name, path=(*path, "url"))
            elif says := _wrong(host):
                yield message("IST0163", config, url, name, says, path=(*path, "url"))


def _wrong(host: str | None) -> str:
    """Why a host cannot be reached; empty if it may be. Nothing is looked up, but some names cannot exist."""
    if host is None:
        return "was provided in an invalid format"
    exists = NAME.fullmatch(host) and len(host) <= NAME_LENGTH and not host.lower().endswith(".invalid")
    return "" if exists else "cannot be resolved via a DNS lookup"


def _hostname(url: str) -> str | None:
    """The host of a URL, empty if it names none; None if the URL is invalid to Go's ``net/url``, which reads it."""
    scheme, colon, rest = url.partition(":")
    if not (colon and SCHEME.fullmatch(scheme)):
        scheme, rest = "", url
    if not rest.startswith("//"):
        return None if not scheme and ":" in rest.partition("/")[0] else ""
    authority = re.split("[/?#]", rest[2:], maxsplit=1)[0]
    try:
        parts = urllib.parse.urlsplit(f"//{authority}")
        _ = parts.port
    except ValueError:
        return None
    return None if IMPOSSIBLE.search(authority) else parts.hostname or ""


def _address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
