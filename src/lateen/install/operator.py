"""Merges a profile, IstioOperator files and ``--set`` into one specification, validated before anything is changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lateen.api import values
from lateen.api.canonical import MAX_LABEL
from lateen.api.config import fields
from lateen.api.mesh import MeshConfig, effect
from lateen.api.mesh.networks import MeshNetworks
from lateen.api.mesh.reading import Invalid, canonical, problems, read, spoken, type_at
from lateen.inject.deployment import OVERLAYS
from lateen.install import effects, options, paths, pod_rules, remote, service_rules
from lateen.install.profiles import PROFILES
from lateen.kit import jsons
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig
from lateen.wire.revision import Revision

API_VERSION = "install.istio.io/v1alpha1"
_CLASS = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""A GatewayClass's name, which is also a label's value and a part of a ConfigMap's name."""


class OperatorError(ValueError):
    """An invalid specification; the message names the field and says what to write instead."""


@dataclass
class Operator:
    """The merged specification, its sources, and which of its fields have no effect."""

    spec: Json
    profile: str = "default"
    overlays: list[Json] = field(default_factory=list)
    """The ``spec`` of each file, in order."""
    settings: list[str] = field(default_factory=list)
    """The ``path=value`` of each ``--set``, in order."""
    refused: str = ""
    """What is wrong with a recorded specification, if an earlier version has accepted it."""

    @property
    def revision(self) -> Revision:
        return Revision(self.spec.get("revision") or "default")

    @property
    def records(self) -> bool:
        """Whether it is an installation of its own, which keeps its settings, and not gateways beside one."""
        return bool(dig(self.spec, "components", "pilot", "enabled")) or remote.wanted(self.spec)

    @property
    def warnings(self) -> list[str]:
        """One sentence for each field without an effect."""
        return [
            *effects.ineffective(self.spec),
            *effect.ineffective(self.spec.get("meshConfig") or {}, "spec.meshConfig"),
        ]


def specification(document: Json) -> Json:
    """The ``spec`` of an IstioOperator document. Raises OperatorError."""
    if not isinstance(document, dict):
        raise OperatorError("expected an IstioOperator, got something that is not an object")
    found = document.get("apiVersion"), document.get("kind")
    if found != (API_VERSION, "IstioOperator"):
        said = ", ".join("nothing" if value is None else str(value) for value in found)
        raise OperatorError(f"expected apiVersion {API_VERSION}, kind IstioOperator; found {said}")
    spec = document.get("spec") or {}
    _check(spec)
    return dict(spec)


def resolve(
    profile: str, overlays: list[Json], settings: list[str], mesh_config: Json | None = None, recorded: bool = False
) -> Operator:
    """A profile with overlays (``spec`` of files), then ``path=value`` settings applied.

    ``mesh_config`` replaces the profile's. ``recorded``: it has been installed already, so that ``refused`` has what is
    wrong with it. Raises OperatorError.
    """
    pairs = [_setting(s) for s in settings]
    name = next((str(v) for path, v in reversed(pairs) if path == ["profile"] and v), None) or next(
        (str(o["profile"]) for o in reversed(overlays) if o.get("profile")), profile
    )
    if name not in PROFILES:
        raise OperatorError(f'there is no profile "{name}"; there are: {", ".join(sorted(PROFILES))}')
    spec = jsons.copy(PROFILES[name])
    if mesh_config is not None:
        spec["meshConfig"] = mesh_config
    for overlay in overlays:
        spec = _merge(spec, overlay)
    spec = jsons.copy(spec)  # settings are put into it, not into the overlays
    for (path, value), text in zip(pairs, settings, strict=True):
        if path != ["profile"]:
            try:
                paths.put(spec, path, value)
            except ValueError as e:
                raise OperatorError(f"--set {text}: {e}") from None
    spec["profile"] = name
    try:
        return Operator(_complete(spec), name, overlays, settings)
    except OperatorError as e:
        if not recorded:
            raise
        return Operator(spec, name, overlays, settings, str(e))


def _complete(spec: Json) -> Json:
    """A whole specification, checked, with values of the right types. Raises OperatorError."""
    _check(spec)
    if remote.wanted(spec) and (says := remote.problem(spec)):
        raise OperatorError(says)
    spec = _typed(spec)
    _refuse([*service_rules.problems(spec), *pod_rules.problems(spec)])
    plugin = dig(spec, "components", "cni", "enabled")
    if plugin and dig(spec, "values", "pilot", "cni", "enabled") is None:  # pods are injected for it
        spec["values"] = values.overlay(spec.get("values") or {}, {"pilot": {"cni": {"enabled": True}}})
    return spec


def _check(spec: Any) -> None:
    """Raises OperatorError with all errors in a specification."""
    try:
        read(options.Operator, spec, "spec")
    except Invalid as e:
        raise OperatorError(str(e)) from None
    if found := problems(spec.get("meshConfig"), "spec.meshConfig"):
        raise OperatorError(str(Invalid(found)))
    _refuse([*values.problems(spec.get("values"), "spec.values"), *effects.refused(spec)])
    _check_values(spec)
    _refuse([*_of_classes(dig(spec, "values", "gatewayClasses", default={}))])
    networks = dig(spec, "values", "global", "meshNetworks", default={})
    try:
        read(MeshNetworks, {"networks": networks}, "spec.values.global.meshNetworks")
    except Invalid as e:
        raise OperatorError(str(e)) from None
    try:
        Revision(spec.get("revision") or "default")
    except ValueError as e:
        raise OperatorError(f"spec.revision: {e}") from None


def _of_classes(given: Any) -> Iterator[str]:
    """What is wrong with the parameters of GatewayClasses."""
    at = "spec.values.gatewayClasses"
    if not isinstance(given, dict):
        yield f"{at}: expected a map, got {spoken(given)}"
        return
    for name, overlays in given.items():
        if len(str(name)) > MAX_LABEL or not _CLASS.fullmatch(str(name)):
            says = f"use at most {MAX_LABEL} lower-case letters, digits, hyphens and dots"
            yield f'{at}: "{name}" is not the name of a class that can have parameters; {says}'
        elif not isinstance(overlays, dict):
            yield f"{at}.{name}: expected a map, got {spoken(overlays)}"
        else:
            for key, overlay in overlays.items():
                if key not in OVERLAYS:
                    yield f"{at}.{name}.{key}: there is no such object; there are: {', '.join(OVERLAYS)}"
                elif not isinstance(overlay, dict):
                    yield f"{at}.{name}.{key}: expected a map, got {spoken(overlay)}"


def _refuse(wrong: list[str]) -> None:
    if wrong:
        raise OperatorError("; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if wrong[3:] else ""))


def _typed(spec: Json) -> Json:
    """A specification whose numbers are numbers, though they may be written as text."""
    out = jsons.copy(spec)
    if out.get("components"):
        out["components"] = canonical(options.Components, out["components"], "spec.components")
    for name, kind in options.PODS.items():
        given = dig(out, "values", *name.split("."), default={})
        given |= canonical(kind, {k: v for k, v in given.items() if k in fields(kind)}, f"spec.values.{name}")
    return out


def _check_values(spec: Json) -> None:
    """Raises OperatorError about the values that become fields of Kubernetes' objects."""
    for name, kind in options.PODS.items():
        given = dig(spec, "values", *name.split("."), default={})
        if not isinstance(given, dict):
            raise OperatorError(f"spec.values.{name}: expected a map, got {json.dumps(given)}")
        known = {k: v for k, v in given.items() if k in fields(kind)}
        try:
            read(kind, known, f"spec.values.{name}")
        except Invalid as e:
            raise OperatorError(str(e)) from None


def _setting(text: str) -> tuple[list[paths.Step], Any]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise OperatorError(f"--set {text}: write it as path=value, as in --set profile=demo")
    try:
        path = paths.parse(key.removeprefix("spec."))
    except ValueError as e:
        raise OperatorError(f"--set {text}: {e}") from None
    return path, _literal(path, value)


def _literal(path: list[paths.Step], text: str) -> Any:
    """Read null as nothing; true, false and numbers as such, unless the field is a string, or a tag (which may begin
    with 0)."""
    if text == "null":
        return None
    if _type(path) is str or path[-1] == "tag":
        return text
    if text in ("true", "false"):
        return text == "true"
    return int(text) if digits(text.removeprefix("-")) else text


def _type(path: list[paths.Step]) -> Any:
    """The type of a field, if it has one."""
    if path[:1] == ["meshConfig"]:
        return type_at(MeshConfig, path[1:])
    for name, kind in options.PODS.items():
        where = ["values", *name.split(".")]
        if path[: len(where)] == where:
            return type_at(kind, path[len(where) :])
    return type_at(options.Operator, path)


def _merge(base: Any, over: Any) -> Any:
    """Maps are merged, gateways merged by name; other lists are replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{k: _merge(base.get(k), v) for k, v in over.items()}}
    if _named(base) and _named(over) and any("enabled" in v for v in base):
        given = {v["name"]: v for v in over}
        merged = [_merge(v, given.pop(v["name"], {})) for v in base]
        return merged + list(given.values())
    return over


def _named(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) and "name" in v for v in value)


def enabled(spec: Json, kind: str) -> list[Json]:
    """``kind``: ingressGateways or egressGateways."""
    return [g for g in dig(spec, "components", kind, default=[]) if g.get("enabled")]
