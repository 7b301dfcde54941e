"""Merged metrics: Prometheus scrapes the agent, which adds the application's own metrics.

Source: https://istio.io/latest/docs/ops/integrations/prometheus/ ("Option 1: Metrics merging")
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lateen.kit import jsons
from lateen.kit.digits import digits
from lateen.kit.jsons import Json

VARIABLE = "ISTIO_PROMETHEUS_ANNOTATIONS"
TARGETS = "prometheus.istio.io/scrape-targets"
MERGE = "prometheus.istio.io/merge-metrics"
_PART = re.compile(r"[^a-zA-Z0-9_]")
_NAMES = ("scrape", "port", "path")
PATH = "/stats/prometheus"
TRUE, FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")


def given(annotations: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """``scrape``, ``port``, ``path`` -> (annotation, value), in any form that is equivalent for Prometheus
    (``prometheus.io/port``, ``prometheus.io.port``)."""
    out = {}
    for name, value in annotations.items():
        plain = _PART.sub("_", name)
        for part in _NAMES:
            if plain == f"prometheus_io_{part}":
                out[part] = (name, str(value))
    return out


def targets(annotations: Mapping[str, str]) -> list[Json]:
    """Parse ``8080:/metrics,9100:/custom``. Raises ValueError."""
    out = []
    for part in str(annotations.get(TARGETS, "")).split(","):
        if not part.strip():
            continue
        port, _, path = part.strip().partition(":")
        if not (digits(port) and 0 < int(port) < 65536) or not path.startswith("/"):
            raise ValueError(f'annotation {TARGETS}: "{part.strip()}" is not port:/path')
        out.append({"port": port, "path": path})
    return out


def merged(annotations: Mapping[str, str], mesh: Json) -> bool:
    found = given(annotations)
    if "scrape" in found and found["scrape"][1] in FALSE:
        return False
    said = annotations.get(MERGE)
    if said is not None:
        return str(said) in TRUE
    return mesh.get("enablePrometheusMerge") is not False


def apply(pod: Json, proxy: Json | None, mesh: Json, status_port: int) -> None:
    """Move the pod's annotations into the proxy's environment, and point them at the agent. Modifies the pod."""
    annotations = pod.setdefault("metadata", {}).setdefault("annotations", {})
    if not merged(annotations, mesh):
        return
    found = given(annotations)
    if "port" in found and found["port"][1] == str(status_port):
        return
    scrape: Json = {k: found[k][1] if k in found else "" for k in ("scrape", "path", "port")}
    if more := targets(annotations):
        scrape["targets"] = more
    if proxy is not None and any(scrape.values()):
        proxy.setdefault("env", []).append({"name": VARIABLE, "value": jsons.dumps(scrape).decode()})
    clear(annotations)
    annotations |= {"prometheus.io/port": str(status_port), "prometheus.io/path": PATH, "prometheus.io/scrape": "true"}


def clear(annotations: Json) -> None:
    for name, _ in given(annotations).values():
        annotations.pop(name, None)
