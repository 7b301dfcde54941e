"""The values of an installation (those of Istio's Helm charts), as far as they decide about pods: how they are kept and
merged, and what they may be. Values that are not named here may be anything.

Source: istio.io/istio ``manifests/charts/istio-control/istio-discovery/values.yaml`` and
``operator/pkg/apis/values_types.proto``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lateen.api.annotations import KNOWN
from lateen.api.mesh.reading import spoken
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json

_CONFIGURED = ("neverInjectSelector", "alwaysInjectSelector", "injectedAnnotations", "defaultTemplates", "aliases")
"""Keys of the injector's ``config`` that are values of ``sidecarInjectorWebhook``, ``templates`` apart."""
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_PLAIN = (str, int, float)


def read(config: str, values: str) -> Json:
    """The values of the ConfigMap ``istio-sidecar-injector``, in Istio's format: its keys ``config`` (YAML: policy,
    templates, selectors) and ``values`` (JSON or YAML). Raises ValueError."""
    found, given = _mapping(values, "values"), _mapping(config, "config")
    injector = {k: given[k] for k in (*_CONFIGURED, "templates") if k in given}
    if isinstance(injector.get("templates"), dict):
        injector["templates"] = {k: v for k, v in injector["templates"].items() if v}
    out: Json = overlay(found, {"sidecarInjectorWebhook": injector}) if injector else found
    if policy := given.get("policy"):
        out = overlay(out, {"global": {"proxy": {"autoInject": policy}}})
    if wrong := problems(out):
        raise ValueError("; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if wrong[3:] else ""))
    return out


def _mapping(text: str, name: str) -> Json:
    try:
        found = jsons.loads(text) if text.lstrip().startswith("{") else yamldoc.load(text) if text else {}
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from e
    if found is not None and not isinstance(found, dict):
        raise ValueError(f"{name}: expected a map, got {spoken(found)}")
    return found or {}


def overlay(base: Json, given: Json) -> Json:
    """A new mapping, by Helm's rules: mappings are merged, everything else is replaced, null removes."""
    out = jsons.copy(base)
    for key, value in given.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = overlay(out[key], value)
        else:
            out[key] = value
    return out


def problems(values: Any, path: str = "values") -> list[str]:
    """What is wrong with decoded values: one sentence each, which begins with the path of the value."""
    found = []
    for rule, check in RULES.items():
        for at, value in _at(values, rule.split(".") if rule else [], path):
            try:
                check(value)
            except ValueError as e:
                found.append(f"{at}: {e}")
    return found


def _at(value: Any, steps: list[str], path: str) -> Iterator[tuple[str, Any]]:
    """The values at a rule's path, except null: ``a.b``, a list's items (``a[]``), a map's values (``a{}``)."""
    if value is None:
        return
    if not steps:
        yield path, value
        return
    step, rest = steps[0], steps[1:]
    name, kind = (step[:-2], step[-2:]) if step[-2:] in ("[]", "{}") else (step, "")
    inner = value.get(name) if isinstance(value, dict) else None
    if kind == "[]" and isinstance(inner, list):
        for i, item in enumerate(inner):
            yield from _at(item, rest, f"{path}.{name}[{i}]")
    elif kind == "{}" and isinstance(inner, dict):
        for key, item in inner.items():
            yield from _at(item, rest, f"{path}.{name}.{key}")
    elif not kind:
        yield from _at(inner, rest, f"{path}.{name}")


# --- checks --------------------------------------------------------------------------------------------------------


def _expect(right: bool, wanted: str, value: Any) -> None:
    if not right:
        raise ValueError(f"expected {wanted}, got {spoken(value)}")


def _map(value: Any) -> None:
    _expect(isinstance(value, dict), "a map", value)


def _list(value: Any) -> None:
    _expect(isinstance(value, list), "a list", value)


def _flag(value: Any) -> None:
    _expect(isinstance(value, bool), "true or false", value)


def _text(value: Any) -> None:
    _expect(isinstance(value, _PLAIN) and not isinstance(value, bool), "text", value)


def _scalar(value: Any) -> None:
    _expect(isinstance(value, _PLAIN), "text", value)


def _number(value: Any) -> None:
    _expect(
        isinstance(value, int) and not isinstance(value, bool) and value >= 0, "a number that is not negative", value
    )


def _one_of(*known: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        _expect(value in known, " or ".join(k or '""' for k in known), value)

    return check


def _like(annotation: str) -> Callable[[Any], None]:
    """What an annotation of the same meaning may be."""
    allowed = KNOWN[annotation].check

    def check(value: Any) -> None:
        _scalar(value)
        if allowed and value != "":
            allowed(str(value).lower() if isinstance(value, bool) else str(value))

    return check


def _expression(value: Any) -> None:
    _map(value)
    if not value.get("key") or not value.get("operator"):
        raise ValueError("it needs a key and an operator")


def _selector(path: str) -> dict[str, Callable[[Any], None]]:
    """The rules of a list of LabelSelectors."""
    item = f"{path}[]"
    return {
        path: _list,
        item: _map,
        f"{item}.matchLabels": _map,
        f"{item}.matchLabels{{}}": _text,
        f"{item}.matchExpressions": _list,
        f"{item}.matchExpressions[]": _expression,
        f"{item}.matchExpressions[].key": _text,
        f"{item}.matchExpressions[].operator": _one_of(*_OPERATORS),
        f"{item}.matchExpressions[].values": _list,
    }


_PROXY, _WEBHOOK, _TRAFFIC = "global.proxy", "sidecarInjectorWebhook", "traffic.sidecar.istio.io"
RULES: dict[str, Callable[[Any], None]] = {
    "": _map,
    "global": _map,
    **{f"global.{name}": _text for name in ("hub", "tag", "network", "meshID", "caAddress", "istioNamespace")},
    **{f"global.{name}": _text for name in ("trustDomain", "remotePilotAddress")},
    "global.externalIstiod": _flag,
    "global.imagePullPolicy": _one_of("", "Always", "IfNotPresent", "Never"),
    "global.imagePullSecrets": _list,
    "global.imagePullSecrets[]": _text,
    "global.logAsJson": _flag,
    "global.logging": _map,
    "global.logging.level": _like("sidecar.istio.io/agentLogLevel"),
    "global.multiCluster": _map,
    "global.multiCluster.clusterName": _text,
    "global.proxy_init": _map,
    "global.proxy_init.image": _text,
    "global.proxy_init.forceApplyIptables": _flag,
    _PROXY: _map,
    **{f"{_PROXY}.{name}": _text for name in ("image", "clusterDomain", "outlierLogPath")},
    **{f"{_PROXY}.{name}": _flag for name in ("privileged", "enableCoreDump", "holdApplicationUntilProxyStarts")},
    f"{_PROXY}.capNetBindService": _like("sidecar.istio.io/capNetBindService"),
    f"{_PROXY}.autoInject": _one_of("enabled", "disabled"),
    f"{_PROXY}.logLevel": _like("sidecar.istio.io/logLevel"),
    f"{_PROXY}.componentLogLevel": _like("sidecar.istio.io/componentLogLevel"),
    f"{_PROXY}.statusPort": _like("status.sidecar.istio.io/port"),
    **{
        f"{_PROXY}.readiness{name[0].upper()}{name[1:]}": _like(f"readiness.status.sidecar.istio.io/{name}")
        for name in ("initialDelaySeconds", "periodSeconds", "failureThreshold")
    },
    f"{_PROXY}.includeIPRanges": _like(f"{_TRAFFIC}/includeOutboundIPRanges"),
    f"{_PROXY}.excludeIPRanges": _like(f"{_TRAFFIC}/excludeOutboundIPRanges"),
    **{
        f"{_PROXY}.{name}": _like(f"{_TRAFFIC}/{name}")
        for name in ("includeInboundPorts", "excludeInboundPorts", "includeOutboundPorts", "excludeOutboundPorts")
    },
    f"{_PROXY}.startupProbe": _map,
    f"{_PROXY}.startupProbe.enabled": _flag,
    f"{_PROXY}.startupProbe.failureThreshold": _number,
    f"{_PROXY}.lifecycle": _map,
    f"{_PROXY}.seccompProfile": _map,
    f"{_PROXY}.resources": _map,
    **{f"{_PROXY}.resources.{name}": _map for name in ("requests", "limits")},
    **{f"{_PROXY}.resources.{name}{{}}": _like("sidecar.istio.io/proxyCPU") for name in ("requests", "limits")},
    _WEBHOOK: _map,
    f"{_WEBHOOK}.rewriteAppHTTPProbe": _flag,
    f"{_WEBHOOK}.enableNamespacesByDefault": _flag,
    **_selector(f"{_WEBHOOK}.neverInjectSelector"),
    **_selector(f"{_WEBHOOK}.alwaysInjectSelector"),
    f"{_WEBHOOK}.injectedAnnotations": _map,
    f"{_WEBHOOK}.injectedAnnotations{{}}": _text,
    f"{_WEBHOOK}.templates": _map,
    f"{_WEBHOOK}.templates{{}}": _text,
    f"{_WEBHOOK}.defaultTemplates": _list,
    f"{_WEBHOOK}.defaultTemplates[]": _text,
    f"{_WEBHOOK}.aliases": _map,
    f"{_WEBHOOK}.aliases{{}}": _list,
    f"{_WEBHOOK}.aliases{{}}[]": _text,
    "gateways": _map,
    "gateways.securityContext": _map,
    "gateways.seccompProfile": _map,
    "pilot": _map,
    "pilot.env": _map,
    "pilot.env{}": _scalar,
    "pilot.cni": _map,
    "pilot.cni.enabled": _flag,
    "pilot.cni.provider": _text,
    "istio_cni": _map,
    "istio_cni.enabled": _flag,
    "istio_cni.chained": _flag,
    "cni": _map,
    "cni.cniBinDir": _text,
    "cni.cniConfDir": _text,
    "cni.excludeNamespaces": _list,
    "cni.excludeNamespaces[]": _text,
    "cni.repair": _map,
    "cni.repair.enabled": _flag,
    "istiodRemote": _map,
    "istiodRemote.injectionPath": _text,
    "istiodRemote.injectionURL": _text,
}
"""Path -> check, which raises ValueError. Null is always allowed: it removes a default."""
