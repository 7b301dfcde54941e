"""The admission webhooks of revisions and tags, for injection and validation.

Selectors are Istio's (istio.io/istio, chart istio-discovery, ``templates/mutatingwebhook.yaml``), so that the injectors
of revisions and tags never select the same pod.
"""

from __future__ import annotations

from typing import Any

from lateen.api import kinds
from lateen.api.reading import INJECT, INJECTION
from lateen.inject.required import SKIPPED_NAMESPACES
from lateen.install.objects import NAMESPACE
from lateen.kit.jsons import Json
from lateen.wire.revision import DEFAULT, LABEL, TAG_LABEL, Revision, part_of

REGISTRATION = "admissionregistration.k8s.io"
SUFFIX = "sidecar-injector.istio.io"


def _is(key: str, value: str) -> Json:
    return {"key": key, "operator": "In", "values": [value]}


def _unset(key: str) -> Json:
    return {"key": key, "operator": "DoesNotExist"}


_NOT_OFF = {"key": INJECT, "operator": "NotIn", "values": ["false"]}
_NOT_SYSTEM = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": list(SKIPPED_NAMESPACES)}


def _hook(revision: Revision, name: str, path: str, rules: list[Json], **more: Any) -> Json:
    return {
        "name": name,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "timeoutSeconds": 10,
        "clientConfig": {"service": {"name": revision.istiod, "namespace": NAMESPACE, "path": path, "port": 443}},
        "rules": rules,
        **more,
    }


def injector(name: str, revision: Revision, tag: str = "") -> Json:
    """The MutatingWebhookConfiguration of a revision, or of a tag that points to it.

    Namespaces and pods select it with ``istio.io/rev``; those that only have ``istio-injection=enabled`` or
    ``sidecar.istio.io/inject=true`` belong to the revision or tag ``default``.
    """
    chosen = tag or revision.name
    selectors = [
        ("rev.namespace", [_is(LABEL, chosen), _unset(INJECTION)], [_NOT_OFF]),
        ("rev.object", [_unset(LABEL), _unset(INJECTION), _NOT_SYSTEM], [_NOT_OFF, _is(LABEL, chosen)]),
    ]
    if chosen == DEFAULT:
        selectors += [
            ("namespace", [_is(INJECTION, "enabled")], [_NOT_OFF]),
            ("object", [_unset(INJECTION), _unset(LABEL), _NOT_SYSTEM], [_is(INJECT, "true"), _unset(LABEL)]),
        ]
    on_pods = [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]
    labels = {"app": "sidecar-injector", **revision.label, "release": "istio", **part_of("Pilot", NAMESPACE)}
    return {
        "apiVersion": f"{REGISTRATION}/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name, "labels": labels | ({TAG_LABEL: tag} if tag else {})},
        "webhooks": [
            _hook(
                revision,
                f"{kind}.{SUFFIX}",
                "/inject",
                on_pods,
                namespaceSelector={"matchExpressions": namespaces},
                objectSelector={"matchExpressions": objects_},
            )
            for kind, namespaces, objects_ in selectors
        ],
    }


def validator(name: str, revision: Revision, default: bool, tag: str = "") -> Json:
    """Validates mesh objects that name the revision (for ``default`` also those that name none), and its mesh
    configuration."""
    checked = _written([g for g in kinds.groups() if g not in kinds.SHARED], ["*"])
    shared = [r for g in kinds.SHARED for r in _written([g], [k.plural for k in kinds.owned() if k.group == g])]
    maps = _written([""], ["configmaps"], "v1")
    hooks: list[tuple[str, list[Json], str, Json, list[Json]]] = []
    named, unnamed = [_is(LABEL, revision.name)], [_unset(LABEL)]
    for prefix, wanted, objects_ in (("rev.", not tag, named), ("", default, unnamed)):
        if wanted:
            hooks.append((f"{prefix}validation.istio.io", checked, "Fail", {}, objects_))
            # without istiod, other controllers must get on with their objects: cert-manager, other gateways
            hooks.append((f"{prefix}shared.validation.istio.io", shared, "Ignore", {}, objects_))
    if not tag:  # without istiod, the mesh configuration must still be editable
        of_mesh = {"matchExpressions": [_is("kubernetes.io/metadata.name", NAMESPACE)]}
        hooks.append(("mesh-config.validation.istio.io", maps, "Ignore", of_mesh, named))
    labels = {"app": "istiod", **revision.label, "release": "istio", **part_of("Pilot", NAMESPACE)}
    return {
        "apiVersion": f"{REGISTRATION}/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name, "labels": labels | ({TAG_LABEL: tag} if tag else {})},
        "webhooks": [
            _hook(
                revision,
                hook,
                "/validate",
                rules,
                failurePolicy=policy,
                namespaceSelector=namespaces,
                objectSelector={"matchExpressions": objects_},
            )
            for hook, rules, policy, namespaces, objects_ in hooks
        ],
    }


def _written(groups: list[str], plurals: list[str], version: str = "*") -> list[Json]:
    """The rules of a webhook that is asked about what is written, not about statuses."""
    verbs = ["CREATE", "UPDATE"]
    return [{"operations": verbs, "apiGroups": groups, "apiVersions": [version], "resources": plurals}]


def objects(revision: Revision) -> list[Json]:
    return [
        injector(revision.injector, revision),
        validator(revision.validator(NAMESPACE), revision, revision.is_default),
    ]


def tagged(tag: str, revision: Revision) -> list[Json]:
    """The objects of a tag; the tag ``default`` also validates objects that name no revision."""
    out = [injector(f"istio-revision-tag-{tag}", revision, tag)]
    return out + ([validator(DEFAULT_VALIDATOR, revision, True, tag)] if tag == DEFAULT else [])


DEFAULT_VALIDATOR = "istiod-default-validator"
