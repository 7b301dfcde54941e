"""Pod Security admission: the labels of a namespace say at which level its pods are refused, or warned of.

Source: https://kubernetes.io/docs/concepts/security/pod-security-admission/ and k8s.io/pod-security-admission, without
a configuration of its own: no defaults and no exemptions. ``audit`` is a line in the cluster's log, as with policies.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from lateen.cluster.apiserver import pod_standards, pod_warnings
from lateen.cluster.apiserver.errors import Cause, forbidden, invalid
from lateen.cluster.apiserver.matching import Review
from lateen.cluster.apiserver.pod_standards import LATEST, LEVELS, PRIVILEGED, RESTRICTED
from lateen.cluster.apiserver.validation.fields import Causes, bad
from lateen.cluster.store.objects import Store
from lateen.kit.jsons import Json, dig

audit = logging.getLogger("lateen.audit")

LABEL = "pod-security.kubernetes.io/"
CHECKED = 3000
"""How many of a namespace's pods are looked at when its level is raised."""
_VERSION = re.compile(r"v1\.([0-9]|[1-9][0-9]{1,8})")
_LIVE = ("", "ephemeralcontainers", "resize")
"""Parts of a pod that are written with its spec."""


class Level(NamedTuple):
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    def violated(self, meta: Json, spec: Json) -> list[pod_standards.Violation]:
        minor = LATEST if self.version == "latest" else int(self.version.removeprefix("v1."))
        return pod_standards.violations(self.name, minor, meta, spec)


class Policy(NamedTuple):
    enforce: Level
    audit: Level
    warn: Level


def policy(labels: Json) -> tuple[Policy, Causes]:
    """What a namespace's labels say, and what is wrong with them."""
    found: dict[str, Level] = {}
    causes: Causes = []
    for mode in ("enforce", "audit", "warn"):
        name, version = labels.get(LABEL + mode, PRIVILEGED), labels.get(f"{LABEL}{mode}-version", "latest")
        if name not in LEVELS:
            causes.append(_wrong(mode, name, f"must be one of {', '.join(LEVELS)}"))
            name = RESTRICTED if mode == "enforce" else PRIVILEGED
        if version != "latest" and not _VERSION.fullmatch(version):
            causes.append(_wrong(f"{mode}-version", version, 'must be "latest" or "v1.x"'))
            version = "latest"
        found[mode] = Level(name, version)
    if f"{LABEL}warn" not in labels and labels.get(f"{LABEL}enforce") in LEVELS:
        version = found["warn" if f"{LABEL}warn-version" in labels else "enforce"].version
        if found["enforce"].name != PRIVILEGED:
            found["warn"] = Level(found["enforce"].name, version)
    return Policy(**found), causes


def _wrong(label: str, value: str, says: str) -> Cause:
    return bad(f"metadata.labels[{LABEL}{label}]", value, says)


def check(store: Store, review: Review) -> None:
    """Raises ApiError; adds warnings."""
    r = review.resource
    if review.obj is None or review.operation not in ("CREATE", "UPDATE"):
        return
    if (r.group, r.kind) == ("", "Namespace"):
        if not review.subresource:
            _namespace(store, review, review.obj)
        return
    if r.custom or r.kind not in pod_warnings.WHERE or review.subresource not in (_LIVE if r.kind == "Pod" else ("",)):
        return
    namespace = store.get("namespaces", "", review.namespace)
    labels = dig(namespace.obj, "metadata", "labels", default={}) if namespace else {}
    if any(label.startswith(LABEL) for label in labels):
        _pod(review, review.obj, policy(labels)[0])


def _pod(review: Review, obj: Json, asked: Policy) -> None:
    r = review.resource
    if r.kind == "Pod" and review.old is not None and _images(obj) == _images(review.old):
        return
    template = dig(obj, *pod_warnings.WHERE[r.kind])
    spec = dig(template or {}, "spec")
    if spec is None:
        return
    meta = template.get("metadata") or {}
    if r.kind == "Pod" and (found := asked.enforce.violated(meta, spec)):
        says = f'{r.qualified} "{review.name}" is forbidden: violates PodSecurity "{asked.enforce}": {_listed(found)}'
        raise forbidden(says, r.plural, review.name, r.group)
    if found := asked.audit.violated(meta, spec):
        where = f"{review.operation} {r.qualified} {review.namespace}/{review.name}"
        audit.info('%s would violate PodSecurity "%s": %s', where, asked.audit, _listed(found))
    if found := asked.warn.violated(meta, spec):
        review.warnings.append(f'would violate PodSecurity "{asked.warn}": {_listed(found)}')


def _listed(found: Iterable[pod_standards.Violation]) -> str:
    return ", ".join(map(str, found))


def _images(pod: Json) -> list[tuple[str, str, str]]:
    """All that may change in what the standards are about."""
    keys = ("initContainers", "containers", "ephemeralContainers")
    return [(k, str(c.get("name")), str(c.get("image"))) for k in keys for c in pod["spec"].get(k) or []]


def _namespace(store: Store, review: Review, obj: Json) -> None:
    """Labels have to be valid where they are written; pods that violate a higher level are named."""
    asked, causes = policy(dig(obj, "metadata", "labels", default={}))
    before, wrong = policy(dig(review.old or {}, "metadata", "labels", default={}))
    if causes and causes != wrong:
        raise invalid(review.resource.kind, "", review.name, causes)
    relaxed = LEVELS.index(asked.enforce.name) <= LEVELS.index(before.enforce.name)
    if review.old is None or (asked.enforce.version == before.enforce.version and relaxed):
        return
    by_reasons: dict[str, list[str]] = defaultdict(list)
    pods = store.list("pods", review.name)
    for entry in pods[:CHECKED]:
        if found := asked.enforce.violated(entry.obj["metadata"], entry.obj["spec"]):
            by_reasons[", ".join(v.reason for v in found)].append(entry.name)
    if len(pods) > CHECKED:
        says = f"new PodSecurity enforce level only checked against the first {CHECKED} of {len(pods)} existing pods"
        review.warnings.append(says)
    if by_reasons:
        says = f'existing pods in namespace "{review.name}" violate the new PodSecurity enforce level "{asked.enforce}"'
        review.warnings.append(says)
    review.warnings.extend(sorted(f"{_some(names)}: {reasons}" for reasons, names in by_reasons.items()))


def _some(names: list[str]) -> str:
    more = len(names) - 1
    return min(names) + (f" (and {more} other pod{'s' if more > 1 else ''})" if more else "")
