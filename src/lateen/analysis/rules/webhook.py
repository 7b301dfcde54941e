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

INJECTOR = "sidecar-injector.istio.io"
EXTERNAL = ("istio-validator-external", "istiod-default-validator", "istio-sidecar-injector-external")
_HOST = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*")


@analyzer("webhook.Analyzer", "Checks the validity of Istio webhooks")
def webhooks(snapshot: Snapshot) -> Iterator[Message]:
    hooks = [
        (config, i, hook)
        for config in snapshot.all(kinds.MUTATING_WEBHOOK)
        for i, hook in enumerate(config.obj.get("webhooks") or [])
        if str(hook.get("name", "")).endswith(INJECTOR)
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
            name = f"{service.get('name')}.{service.get('namespace')}"
            says = f"Injector refers to a control plane service that does not exist: {name}."
            yield message("IST0139", config, says, path=path)


def hooks_name(config: Source, i: int) -> str:
    return str(config.obj["webhooks"][i].get("name"))


def _matches(hook: Json, namespace: dict[str, str], labels: dict[str, str]) -> bool:
    return selectors.matches(hook.get("namespaceSelector") or {}, namespace) and selectors.matches(
        hook.get("objectSelector") or {}, labels
    )


def _situations(hooks: list[tuple[Source, int, Json]]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Every combination, on a namespace and on a pod, of the labels that injectors select by."""
    revisions = {"default"}
    for _, _, hook in hooks:
        for field in ("namespaceSelector", "objectSelector"):
            selector = hook.get(field) or {}
            if rev := (selector.get("matchLabels") or {}).get("istio.io/rev"):
                revisions.add(rev)
            for e in selector.get("matchExpressions") or []:
                if e.get("key") == "istio.io/rev":
                    revisions |= set(e.get("values") or [])
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
        if not config.name.startswith(EXTERNAL):
            continue
        for i, hook in enumerate(config.obj.get("webhooks") or []):
            client, name = hook.get("clientConfig") or {}, hook.get("name")
            if client.get("service"):
                continue
            path = ("webhooks", i, "clientConfig", "url")
            url = str(client.get("url") or "")
            host = urllib.parse.urlsplit(url).hostname or ""
            if not url:
                yield message("IST0163", config, url, name, "is blank", path=path)
            elif _address(host):
                yield message("IST0164", config, host, name, path=path)
            elif not _HOST.fullmatch(host):
                yield message("IST0163", config, url, name, "is an invalid hostname", path=path)


def _address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
