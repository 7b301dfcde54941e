"""The canonical name and revision of a workload, and the application and version that metrics have of it. Pure.

Source: https://istio.io/latest/docs/reference/config/labels/, and ``convertStructToWorkloadMetadata`` in istio/proxy,
``extensions/common/metadata_object.cc``, for the order of labels.
"""

from __future__ import annotations

from collections.abc import Mapping

CANONICAL_NAME = "service.istio.io/canonical-name"
CANONICAL_REVISION = "service.istio.io/canonical-revision"
WORKLOAD_NAME = "service.istio.io/workload-name"
APPS = ("app.kubernetes.io/name", "app")
"""The labels that tell a workload's application, the first one first."""
VERSIONS = ("app.kubernetes.io/version", "version")
NAMES = (CANONICAL_NAME, *APPS)
_NAMES = (*NAMES, WORKLOAD_NAME)
REVISIONS = (CANONICAL_REVISION, *VERSIONS)
LATEST = "latest"
"""The revision of workloads without such a label."""
MAX_LABEL = 63


def first(labels: Mapping[str, str], names: tuple[str, ...]) -> str:
    """The first of these labels that is there; empty if none is."""
    for name in names:  # not a generator: asked several times for each endpoint
        if found := labels.get(name):
            return str(found)
    return ""


def canonical_name(labels: Mapping[str, str], workload: str) -> str:
    """The canonical service name, truncated to the maximum length of a label value, without a trailing dash."""
    given = first(labels, _NAMES) or workload
    return given[:MAX_LABEL].rstrip("-._")


def canonical_revision(labels: Mapping[str, str]) -> str:
    return first(labels, REVISIONS) or LATEST
