"""A pod in, an injected pod out. Pure; the webhook and ``kube-inject`` share it.

The steps are Istio's: render the templates, merge them over the pod, merge the user's own ``istio-proxy`` container
over the result, then handle metrics, probes, status and the order of containers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lateen.api.annotations import BEFORE_PROXY, problems
from lateen.api.decoding import NETWORK
from lateen.inject import environment, gateway, gotemplate, grpc, probes, prometheus, sidecar
from lateen.inject.context import PROXY, Context, proxy_config, text
from lateen.inject.merge import merge
from lateen.inject.required import INJECT, SKIPPED_NAMESPACES, wanted
from lateen.inject.settings import Settings, settings
from lateen.inject.workload import Workload, of_pod
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig

__all__ = ["INJECT", "SKIPPED_NAMESPACES", "Settings", "inject", "patch", "settings", "wanted"]

STATUS, OVERRIDES, TEMPLATES = "sidecar.istio.io/status", "proxy.istio.io/overrides", "inject.istio.io/templates"
AUTO_IMAGE = "auto"
_LISTS = ("containers", "initContainers")
_BUILT_IN: dict[str, Callable[[Context], Json]] = {
    "sidecar": sidecar.template,
    "gateway": gateway.template,
    grpc.AGENT: grpc.agent,
    grpc.SIMPLE: grpc.simple,
}


def inject(pod: Json, namespace: str, settings: Settings, workload: Workload | None = None) -> Json:
    """The injected pod; the given one is not modified. Raises ValueError for invalid annotations, with their names, and
    for templates that do not exist or fail."""
    original = jsons.copy(pod)
    for part in ("metadata", "spec"):
        original[part] = original.get(part) or {}
    if wrong := [str(p) for p in problems(_annotations(original)) if p.error]:
        raise ValueError("; ".join(wrong))
    context = _context(original, namespace, settings, workload)
    merged, template = _templates(original, context)
    before = STATUS in _annotations(original)
    merged = _own_containers(merged, original, template)
    _user_id(merged, original, context)
    _finish(merged, template, context, before)
    return merged


def _annotations(pod: Json) -> Json:
    return dict(dig(pod, "metadata", "annotations", default={}))


def _context(pod: Json, namespace: str, settings: Settings, workload: Workload | None) -> Context:
    plain = _stripped(pod, settings.status_port)
    config = proxy_config(pod, settings)
    return Context(plain, namespace, workload or of_pod(pod, namespace), settings, config)


def _status(pod: Json) -> dict[str, list[str]]:
    """The containers that an earlier injection added: kind of container -> names."""
    if not (given := _annotations(pod).get(STATUS)):
        return {}
    try:
        found = jsons.loads(given)
    except ValueError:
        return {}
    return {k: list(found.get(k) or []) for k in _LISTS} if isinstance(found, dict) else {}


def _overrides(pod: Json) -> dict[str, list[Json]]:
    """The user's own containers, as saved by an earlier injection."""
    if not (given := _annotations(pod).get(OVERRIDES)):
        return {k: [] for k in _LISTS}
    try:
        found = jsons.loads(given)
        return {k: [dict(c) for c in found.get(k) or []] for k in _LISTS}
    except (ValueError, AttributeError, TypeError) as e:
        raise ValueError(f"annotation {OVERRIDES}: {e}") from e


def _stripped(pod: Json, status_port: int) -> Json:
    """The pod as the user wrote it: without the additions of an earlier injection."""
    out = jsons.copy(pod)
    added = _status(pod)
    if not added:
        return out
    annotations = out["metadata"]["annotations"]
    for kind, names in added.items():
        if kind in out["spec"]:
            out["spec"][kind] = [c for c in out["spec"][kind] or [] if c.get("name") not in names]
    for kind, containers in _overrides(pod).items():
        there = {c.get("name") for c in out["spec"].get(kind) or []}
        if more := [c for c in containers if c.get("name") not in there]:
            out["spec"][kind] = [*(out["spec"].get(kind) or []), *more]
    port = prometheus.given(annotations).get("port")
    if port and port[1] == str(status_port):
        prometheus.clear(annotations)
    annotations.pop(STATUS)
    return out


def chosen(pod: Json, settings: Settings) -> list[str]:
    """The names of the pod's templates, aliases resolved."""
    injector = settings.injector
    given = _annotations(pod).get(TEMPLATES)
    if given is not None:
        names = [n.strip() for n in str(given).split(",")]
    else:
        names = list(injector.get("defaultTemplates") or []) or ["sidecar"]
    aliases = injector.get("aliases") or {}
    return [n for name in names for n in aliases.get(name, [name])]


def _templates(pod: Json, c: Context) -> tuple[Json, Json]:
    """(pod with the templates over it, the templates alone)"""
    merged: Json = pod
    template: Json = {}
    for name in chosen(pod, c.settings):
        found = _filled(name, c)
        template = merge(template, found)
        _agree(template, found)
        if _find(template, "initContainers") and (own := _find(merged, "containers")):
            merged = jsons.copy(merged)
            _move(merged, own)
        merged = merge(merged, found)
    return merged, template


def _filled(name: str, c: Context) -> Json:
    if text := c.settings.templates.get(name):
        try:
            return gotemplate.render_pod(text, c)
        except ValueError as e:
            raise ValueError(f'the template "{name}": {e}') from e
    if name not in _BUILT_IN:
        known = sorted({*_BUILT_IN, *c.settings.templates})
        raise ValueError(f'annotation {TEMPLATES}: there is no template "{name}"; there are {", ".join(known)}')
    return _BUILT_IN[name](c)


def _agree(template: Json, found: Json) -> None:
    """Move a template's ``istio-proxy`` under ``containers`` to the native sidecar if the pod has one: the API server
    would reject two containers of the same name. Modifies both."""
    if not _find(template, "initContainers") or not (more := _find(found, "containers")):
        return
    for pod in (template, found):
        if _find(pod, "containers"):
            pod["spec"]["containers"] = [i for i in pod["spec"]["containers"] if i.get("name") != PROXY]
    found["spec"]["initContainers"] = [*(found["spec"].get("initContainers") or []), more]
    template["spec"] = merge(template["spec"], {"initContainers": [more]})


def _find(pod: Json, kind: str, name: str = PROXY) -> Json | None:
    return next((c for c in dig(pod, "spec", kind, default=[]) if c.get("name") == name), None)


def proxy_of(pod: Json) -> Json | None:
    return _find(pod, "containers") or _find(pod, "initContainers")


def _move(pod: Json, container: Json) -> None:
    pod["spec"]["containers"] = [c for c in pod["spec"]["containers"] if c.get("name") != container["name"]]
    there = [c for c in pod["spec"].get("initContainers") or [] if c.get("name") != container["name"]]
    pod["spec"]["initContainers"] = [*there, container]


def _own_containers(merged: Json, original: Json, template: Json) -> Json:
    """Merge the user's containers over those of the same names: the user's values take precedence over the
    templates'. They are saved in an annotation for a later injection; containers added by an earlier injection are
    not the user's."""
    added, kept = _status(original), _overrides(original)
    own: dict[str, list[Json]] = {}
    for kind in _LISTS:
        for c in dig(template, "spec", kind, default=[]):
            name = str(c.get("name"))
            if name in added.get(kind, ()):
                continue
            match = next((k for k in kept[kind] if k.get("name") == name), None) or _find(original, kind, name)
            if match is None and kind == "initContainers":
                match = _find(original, "containers", name)
            if match is None:
                continue
            user = {k: v for k, v in match.items() if k != "image" or v not in (AUTO_IMAGE, "")}
            own.setdefault(kind, []).append(user)
            merged = merge(merged, {"spec": {kind: [user]}})
    if own and not added:
        merged["metadata"].setdefault("annotations", {})[OVERRIDES] = jsons.dumps(own).decode()
    return merged


def _user_id(merged: Json, original: Json, c: Context) -> None:
    """The redirection identifies the proxy by its user id, so a user's own ``runAsUser`` must be passed to it. In
    TPROXY mode the proxy stays root. Modifies ``merged``."""
    security = dig(proxy_of(original), "securityContext", default={})
    user, group = security.get("runAsUser"), security.get("runAsGroup")
    proxy = proxy_of(merged)
    if (user is None and group is None) or proxy is None:
        return
    if c.mode == "TPROXY":
        if user is not None:
            proxy["securityContext"]["runAsUser"] = 0
    elif validation := _find(merged, "initContainers", sidecar.VALIDATION):
        ids = (("runAsUser", user), ("runAsGroup", group))
        validation.setdefault("securityContext", {}).update({k: v for k, v in ids if v is not None})
    init = _find(merged, "initContainers", sidecar.INIT) or _find(merged, "initContainers", sidecar.VALIDATION)
    if init and user and "-u" in init.get("args", []):
        init["args"][init["args"].index("-u") + 1] = str(user)


def _finish(pod: Json, template: Json, c: Context, before: bool) -> None:
    """Changes that templates cannot express. Modifies the pod."""
    annotations = pod["metadata"].setdefault("annotations", {})
    port = (
        int(annotations.get("status.sidecar.istio.io/port", 0)) or c.config.get("statusPort") or c.settings.status_port
    )
    proxy = proxy_of(pod)
    if proxy is not None and (given := environment.ordered(proxy.get("env") or [], c)):
        proxy["env"] = given
    prometheus.apply(pod, proxy, c.settings.mesh, port)
    rewrite = probes.wanted(annotations, bool(c.settings.injector.get("rewriteAppHTTPProbe", True)))
    if proxy is not None and rewrite and c.status_port != "0":  # with port 0, the agent does not listen
        probes.tell(proxy, probes.probers(pod, port), before)
        probes.rewrite(pod, port)
    spec = template.get("spec") or {}

    def names(kind: str) -> list[str] | None:
        return [i["name"] for i in spec.get(kind) or []] or None

    annotations[STATUS] = jsons.dumps(
        {
            "initContainers": names("initContainers"),
            "containers": names("containers"),
            "volumes": names("volumes"),
            "imagePullSecrets": names("imagePullSecrets"),
            "revision": c.settings.revision,
        }
    ).decode()
    annotations |= {k: text(v) for k, v in (c.settings.injector.get("injectedAnnotations") or {}).items()}
    if network := environment.network(c):
        pod["metadata"].setdefault("labels", {})[NETWORK] = network
    _order(pod["spec"], c)


def _order(spec: Json, c: Context) -> None:
    """Order the containers: the proxy is last, or first if it holds the application back. The agent of a gRPC library
    always does: an application without a bootstrap file would serve plain text, whatever policies say.

    Native sidecars: redirection, proxy, then the user's init containers, which are then in the mesh, except those that
    an annotation puts before the proxy. Otherwise the redirection is last, so that it does not cut off other init
    containers.
    """

    def move(kind: str, name: str, first: bool) -> None:
        found = [i for i in spec.get(kind) or [] if i.get("name") == name]
        if found:
            rest = [i for i in spec[kind] if i.get("name") != name]
            spec[kind] = [*found, *rest] if first else [*rest, *found]

    move("containers", PROXY, c.hold or grpc.AGENT in chosen(c.pod, c.settings))
    if any(i.get("name") == PROXY for i in spec.get("initContainers") or []):
        before = [name.strip() for name in c.annotations.get(BEFORE_PROXY, "").split(",")]
        for name in (sidecar.CORE_DUMP, PROXY, *reversed(before), sidecar.VALIDATION, sidecar.INIT):
            move("initContainers", name, True)
    else:
        move("initContainers", sidecar.VALIDATION, True)
        move("initContainers", sidecar.INIT, False)
        move("initContainers", sidecar.CORE_DUMP, False)


def patch(before: Json, after: Json) -> list[Json]:
    """The JSON patch between a pod and its injected form: whole top-level parts, which is short and exact."""
    out: list[Json] = []
    for part in ("metadata", "spec"):
        if part not in before:
            out.append({"op": "add", "path": f"/{part}", "value": after[part]})
            continue
        for key, value in after[part].items():
            if before[part].get(key) != value:
                out.append(
                    {"op": "replace" if key in before[part] else "add", "path": f"/{part}/{key}", "value": value}
                )
        out += [{"op": "remove", "path": f"/{part}/{key}"} for key in before[part] if key not in after[part]]
    return out


def url_environment(path: str) -> dict[str, str]:
    """The settings in the path of the webhook's URL: ``/inject/cluster/east/net/n1`` or ``/inject/:ENV:cluster=east``.
    A slash in a value is written ``--slash--``; unknown names become variables."""
    rest = path.rstrip("/").split("/", 2)[2:] or [""]
    known = {"cluster": "ISTIO_META_CLUSTER_ID", "net": "ISTIO_META_NETWORK"}
    if rest[0].startswith(":ENV:"):
        pairs = [p.partition("=")[::2] for p in rest[0].split(":ENV:")[1:] if "=" in p]
    else:
        items = rest[0].split("/")
        pairs = [(k, v.replace("--slash--", "/")) for k, v in zip(items[::2], items[1::2], strict=False)]
    return {known.get(k, k.upper()): v for k, v in pairs if k}


def with_cluster(settings: Settings, environment: dict[str, str]) -> Settings:
    """The installation's settings, overridden by cluster, network and variables from the webhook's URL."""
    values = jsons.copy(settings.values)
    if cluster := environment.get("ISTIO_META_CLUSTER_ID"):
        values["global"].setdefault("multiCluster", {})["clusterName"] = cluster
    if network := environment.get("ISTIO_META_NETWORK"):
        values["global"]["network"] = network
    rest = {k: v for k, v in environment.items() if k not in ("ISTIO_META_CLUSTER_ID", "ISTIO_META_NETWORK")}
    return replace(settings, values=values, environment={**settings.environment, **rest})
