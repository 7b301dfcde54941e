"""How rules name gateways: ``namespace/name``, or ``name`` for one of the rule's own namespace."""

from __future__ import annotations

from lateen.api.validate import scalars as s
from lateen.api.validate.findings import Findings, no, warn


def gateways(given: tuple[str, ...], path: str) -> Findings:
    for i, name in enumerate(given):
        yield from _gateway(name, f"{path}[{i}]")


def _gateway(text: str, at: str) -> Findings:
    namespace, slash, name = text.partition("/")
    if not slash:
        yield from s.fqdn(text, at)
        if "." in text:  # name.namespace.svc.cluster.local
            name, _, rest = text.partition(".")
            better = f'"{rest.partition(".")[0]}/{name}"'
            says = f'using legacy gatewayName format "{text}"; prefer the <namespace>/<name> format: {better}'
            yield warn(at, says)
        return
    if not namespace or not name:
        yield no(at, f'config namespace and gateway name cannot be empty, as in "{text}"')
    if not s.is_label(namespace):
        yield no(at, f'invalid value for namespace: "{namespace}"')
    if not s.is_label(name):
        yield no(at, f'invalid value for gateway name: "{name}"')
