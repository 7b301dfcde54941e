"""The rules of locality load balancing, in DestinationRules and in the mesh configuration.

Source: istio.io/istio ``pkg/config/validation/agent/validation.go``, ValidateLocalityLbSetting.
"""

from __future__ import annotations

from collections.abc import Sequence

from lateen.api import networking as n
from lateen.api.validate.findings import Findings, hint, no, warn

TOPOLOGY = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")


def locality_lb(lb: n.LocalityLb | None, at: str, outlier: n.OutlierDetection | None) -> Findings:
    if lb is None:
        return
    if lb.distribute and lb.failover:
        yield no(at, "can not simultaneously specify 'distribute' and 'failover'")
    elif lb.distribute and lb.failover_priority:
        yield hint(f"{at}.failoverPriority", "it has no effect beside distribute, which says where requests go")
    for label in lb.failover_priority if lb.failover else ():
        if label in TOPOLOGY:
            says = f"can not simultaneously set 'failover' and topology label '{label}' in 'failover_priority'"
            yield no(f"{at}.failoverPriority", says)
    if (lb.failover or lb.failover_priority) and outlier is None:
        says = (
            "outlier detection policy must be provided for failover, as in outlierDetection: {consecutive5xxErrors: 5}"
        )
        yield warn(at, says)
    yield from _localities([d.from_ for d in lb.distribute], f"{at}.distribute", ordered=True)
    for i, d in enumerate(lb.distribute):
        where = f"{at}.distribute[{i}].to"
        if any(not 1 <= w <= 100 for w in d.to.values()):
            yield no(where, "locality weight must be in range [1, 100]")
        elif sum(d.to.values()) != 100:
            yield no(where, f"total locality weight {sum(d.to.values())} != 100")
        yield from _localities(list(d.to), where, ordered=False)
    for i, f in enumerate(lb.failover):
        yield from _failover(f, f"{at}.failover[{i}]")


def zone_aware_lb(lb: n.ZoneAwareLb | None, at: str, outlier: n.OutlierDetection | None) -> Findings:
    """Regions, zones and subzones are weighed by themselves there, so that priorities cannot name them."""
    if lb is None:
        return
    for label in lb.failover_priority:
        if label in TOPOLOGY:
            says = f"'failover_priority' for zone aware lb must not use topology label '{label}'"
            yield no(f"{at}.failoverPriority", f"{says}; region- and zone-level routing are handled automatically")
    if (lb.failover or lb.failover_priority) and outlier is None:
        yield warn(at, "outlier detection policy must be provided for failover")
    for i, f in enumerate(lb.failover):
        yield from _failover(f, f"{at}.failover[{i}]", "zone aware")


def _failover(f: n.Failover, at: str, which: str = "locality") -> Findings:
    if f.from_ == f.to:
        yield no(at, f'{which} lb failover settings must specify different regions, both are "{f.from_}"')
    for side in (f.from_, f.to):
        if "*" in side:
            yield no(at, f"{which} lb failover region should not contain '*' wildcard, is \"{side}\"")
        if "/" in side:
            only = "only specify region" if which == "locality" else "only specifies region"
            yield no(at, f'{which} lb failover {only}, is "{side}"')


def _localities(given: Sequence[str], at: str, ordered: bool) -> Findings:
    """region/zone/subzone, a wildcard only at the end; none may lie in another. Where the first that fits counts
    (``ordered``), a wildcard may stand for the rest, after them."""
    for i, text in enumerate(given):
        parts = text.split("/")
        if any(not p for p in parts) or len(parts) > 3:
            says = "must not contain empty region/zone/subzone info"
            yield no(at, f'locality "{text}" {says}; write region/zone/subzone')
        if "*" in text and (text.count("*") > 1 or not text.endswith("*")):
            yield no(at, f"locality {text} wildcard '*' number can not exceed 1 and must be in the end")
        for earlier in given[:i]:
            rest = ordered and text.endswith("*") and not earlier.endswith("*")
            if text == earlier or _inside(earlier, text) or (_inside(text, earlier) and not rest):
                yield no(at, f"locality {text} overlap with previous specified ones: {earlier}")


def _inside(wide: str, narrow: str) -> bool:
    prefix = wide.removesuffix("*").removesuffix("/")
    return narrow == prefix or narrow.startswith(f"{prefix}/") if prefix else True
