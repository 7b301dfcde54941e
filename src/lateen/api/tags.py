"""Names of tags as labels of Prometheus, which has no others than ``[a-zA-Z_][a-zA-Z0-9_]*``.

Source: https://prometheus.io/docs/concepts/data_model/, and ``sanitizeName`` in envoy ``source/server/admin/
prometheus_stats.cc``, which replaces characters and leaves a digit at the start, with which Prometheus refuses all
metrics of the proxy.
"""

from __future__ import annotations

import re

_UNSUITED = re.compile("[^a-zA-Z0-9_]")
_RESERVED = {"le": "the limits of histograms", "quantile": "summaries"}
JOINED = "lateen_labels"
"""The label by which proxies pass all others to their agents (``wire.labels``), which take it apart."""


def label(name: str) -> str:
    """What a tag is called in metrics."""
    return _UNSUITED.sub("_", name)


def problem(name: str) -> str | None:
    """Why a tag cannot be a label; None if it can."""
    if "0" <= name[:1] <= "9":
        return "a label cannot begin with a digit: Prometheus would refuse all metrics of the proxy"
    if label(name).startswith("__"):
        return "names that begin with two underscores (or characters that become some) are Prometheus' own"
    if label(name) in _RESERVED:
        return f"is Prometheus' label of {_RESERVED[label(name)]}; choose another name"
    if label(name) == JOINED:
        return "is the name under which proxies pass their labels to the agent; choose another name"
    return None
