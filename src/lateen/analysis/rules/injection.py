"""Injection: namespaces, pods without sidecars, old sidecars, ``image: auto``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import SYSTEM, Message, Path, Snapshot, Source, message, selects
from lateen.api import kinds
from lateen.api.annotations import PROXY_CONFIG
from lateen.api.reading import (
    INJECT,
    INJECTION,
    PROXY,
    REVISION,
    containers,
    has_proxy,
    is_finished,
    is_terminating,
    opted,
)
from lateen.kit import jsons, selectors, yamldoc
from lateen.kit.jsons import Json, dig

MODE = "istio.io/dataplane-mode"
WEBHOOKS = "istio.io"
"""The suffix of the names of Istio's webhooks."""
CONFIG = "istio-sidecar-injector"


def _values(snapshot: Snapshot, revision: str = "") -> Json:
    """The values that the injector of a revision was installed with."""
    name = CONFIG if revision in ("", "default") else f"{CONFIG}-{revision}"
    for config in snapshot.all(kinds.CONFIG_MAP):
        if config.name == name:
            try:
                found = jsons.loads(dig(config.obj, "data", "values", default="{}"))
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    return {}


def _wants(pod: Source) -> bool:
    return opted(pod.labels, pod.annotations) is not False and not pod.spec.get("hostNetwork")


@analyzer("injection.Analyzer", "Checks conditions related to Istio sidecar injection")
def injection(snapshot: Snapshot) -> Iterator[Message]:
    by_default = dig(_values(snapshot), "sidecarInjectorWebhook", "enableNamespacesByDefault") is True
    enabled: set[str] = set()
    for ns in snapshot.all(kinds.NAMESPACE):
        if ns.name in SYSTEM or ns.name == snapshot.root:
            continue
        if len(several := _labels(ns)) > 1:
            yield message("IST0123", ns, f"[{' '.join(several)}]", path=("metadata", "labels"))
        if ns.labels.get(MODE) == "ambient":
            continue
        injection_label, revision = ns.labels.get(INJECTION) or None, REVISION in ns.labels
        if injection_label == "enabled":
            enabled.add(ns.name)
        elif injection_label is None and not revision and by_default:
            yield message("IST0148", ns, path=("metadata", "name"))
        elif injection_label is None and not revision:
            yield message("IST0102", ns, ns.name, ns.name, path=("metadata", "name"))
    for pod in snapshot.all(kinds.POD):
        if pod.namespace not in enabled or not _wants(pod):
            continue
        if not is_finished(pod.obj) and not is_terminating(pod.obj) and not has_proxy(pod.obj):
            yield message("IST0103", pod, pod.full, path=("metadata", "name"))


@analyzer("injection.AmbientAnalyzer", "Checks for labels that ask for ambient mode, which is not implemented")
def ambient(snapshot: Snapshot) -> Iterator[Message]:
    at = ("metadata", "labels", MODE)
    for ns in snapshot.all(kinds.NAMESPACE):
        if ns.labels.get(MODE) == "ambient" and ns.labels.get(INJECTION) != "enabled" and REVISION not in ns.labels:
            yield message("LAT0118", ns, "its pods are", "the namespace", path=at)
    for pod in snapshot.all(kinds.POD):
        if pod.labels.get(MODE) == "ambient" and not has_proxy(pod.obj) and not is_finished(pod.obj):
            yield message("LAT0118", pod, "the pod is", "its namespace", path=at)


@analyzer("injection.LabelAnalyzer", "Checks for values of injection labels that nobody reads")
def labels(snapshot: Snapshot) -> Iterator[Message]:
    for ns in snapshot.all(kinds.NAMESPACE):
        if ns.labels.get(INJECTION, "enabled") not in ("enabled", "disabled"):
            so = "the namespace's pods get a sidecar only if their own label asks for one"
            yield _ignored(ns, INJECTION, ns.labels[INJECTION], "enabled", "disabled", so)
    so = "the labels of the namespace decide"
    for pod in snapshot.all(kinds.POD):
        if pod.labels.get(INJECT, "") not in ("", "true", "false"):
            yield _ignored(pod, INJECT, pod.labels[INJECT], "true", "false", so)
    for deployment in snapshot.all(kinds.DEPLOYMENT):
        said = str(dig(deployment.spec, "template", "metadata", "labels", default={}).get(INJECT, ""))
        if said not in ("", "true", "false"):
            at = ("spec", "template", "metadata", "labels")
            yield _ignored(deployment, INJECT, said, "true", "false", so, at=at)


def _ignored(source: Source, label: str, *words: str, at: Path = ("metadata", "labels")) -> Message:
    return message("LAT0125", source, label, *words, path=(*at, label))


def _labels(ns: Source) -> list[str]:
    """The labels that enable injection; empty if another one disables it."""
    out = [f"{INJECTION}={ns.labels[INJECTION]}"] if INJECTION in ns.labels else []
    if ns.labels.get(INJECTION, "enabled") == "enabled":
        out += [f"{name}={ns.labels[name]}" for name in (REVISION, MODE) if name in ns.labels]
    return out


@analyzer(
    "injection.ImageAnalyzer",
    "Checks the image of auto-injection configured with the running proxies on pods",
)
def images(snapshot: Snapshot) -> Iterator[Message]:
    of: dict[str, str] = {}
    """Revision -> the image that its injector sets."""
    old: dict[str, list[str]] = {}
    for pod in snapshot.all(kinds.POD):
        labels = snapshot.namespace_labels(pod.namespace)
        if labels.get(INJECTION) != "enabled" and REVISION not in labels:
            continue
        if pod.annotations.get("sidecar.istio.io/proxyImage"):
            continue
        revision = labels.get(REVISION, "default")
        if revision not in of:
            of[revision] = _image(snapshot, revision)
        if not (wanted := of[revision]):
            continue
        right = {wanted, f"{wanted}-{variant}"} if (variant := _variant(snapshot, pod)) else {wanted}
        for c in containers(pod.spec):
            if c.get("name") == PROXY and str(c.get("image") or "") not in right:
                old.setdefault(pod.namespace, []).append(pod.name)
    for namespace, names in sorted(old.items()):
        source = snapshot.get(kinds.NAMESPACE, "", namespace)
        if source:
            yield message("IST0158", source, "[" + " ".join(sorted(names)) + "]", path=("metadata", "name"))


def _image(snapshot: Snapshot, revision: str) -> str:
    """The injector's image; empty if the revision's injector is unknown."""
    values = dig(_values(snapshot, revision), "global", default={})
    image = str(dig(values, "proxy", "image", default=""))
    return image if "/" in image or not image else f"{values.get('hub')}/{image}:{values.get('tag')}"


def _variant(snapshot: Snapshot, pod: Source) -> str:
    """The image variant in the pod's configuration, the most specific first; empty for the default."""
    try:
        own = yamldoc.load(pod.annotations.get(PROXY_CONFIG, "")) or {}
    except yamldoc.YamlError:
        own = {}
    given = [own, *_proxy_configs(snapshot, pod), dig(snapshot.mesh, "defaultConfig", default={})]
    found = next((t for config in given if (t := _image_type(config))), "")
    return "" if found == "default" else found


def _image_type(config: object) -> str:
    return str(dig(config, "image", "imageType") or "") if isinstance(config, dict) else ""


def _proxy_configs(snapshot: Snapshot, pod: Source) -> list[Json]:
    """The specs of the ProxyConfigs for a pod: of its workload, of its namespace, of the mesh."""
    mine = snapshot.of_namespace(kinds.PROXY_CONFIG, pod.namespace)
    chosen = [p.spec for p in mine if (labels := _selected(p)) and selects(labels, pod.labels)]
    root = str(snapshot.mesh.get("rootNamespace") or snapshot.root)
    general = [p.spec for ns in (pod.namespace, root) for p in snapshot.of_namespace(kinds.PROXY_CONFIG, ns)]
    return [*chosen, *(spec for spec in general if not dig(spec, "selector", "matchLabels"))]


def _selected(config: Source) -> Mapping[str, str]:
    found: Mapping[str, str] = dig(config.spec, "selector", "matchLabels", default={})
    return found


@analyzer(
    "injection.ImageAutoAnalyzer", "Makes sure that Pods and Deployments with `image: auto` are going to be injected"
)
def image_auto(snapshot: Snapshot) -> Iterator[Message]:
    for pod in snapshot.all(kinds.POD):
        if _auto(pod.spec):  # the injector has run and skipped it
            yield message("IST0147", pod, "Pod", pod.name, path=("spec", "containers"))
    hooks = [
        hook
        for config in snapshot.all(kinds.MUTATING_WEBHOOK)
        for hook in config.obj.get("webhooks") or []
        if str(hook.get("name", "")).endswith(WEBHOOKS)
    ]
    for d in snapshot.all(kinds.DEPLOYMENT):
        template = d.spec.get("template") or {}
        if not _auto(template.get("spec") or {}):
            continue
        of = snapshot.namespace_labels(d.namespace or "default")
        labels: Mapping[str, str] = dig(template, "metadata", "labels", default={})
        if not any(
            selectors.matches(h.get("namespaceSelector") or {}, of)
            and selectors.matches(h.get("objectSelector") or {}, labels)
            for h in hooks
        ):
            yield message("IST0146", d, "Deployment", d.name, path=("spec", "template"))


def _auto(spec: Json) -> bool:
    return any(c.get("name") == PROXY and c.get("image") == "auto" for c in containers(spec))
