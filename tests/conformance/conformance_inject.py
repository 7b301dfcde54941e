"""Injection: workloads as users write them, and as Istio injects them, compared in meaning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lateen.inject import manifest, pods
from lateen.install import operator
from lateen.kit import yamldoc

IMAGES = ["values.global.hub=registry.istio.io/testing", "values.global.tag=latest"]


def cases(folder: Path) -> Iterator[tuple[str, str | None]]:
    """``index.json``: {in, want, setFlags, iopFile, meshPatch, env, expectedError, expectedLog} for each case."""
    index = json.loads((folder / "index.json").read_text())
    data = folder / "testdata"
    seen: dict[str, int] = {}
    for case in index["cases"]:
        name = case["in"]
        seen[name] = seen.get(name, 0) + 1
        yield (name if seen[name] == 1 else f"{name} ({seen[name]})"), _wrong(case, data)


def _wrong(case: dict[str, Any], data: Path) -> str | None:
    told: list[str] = []
    given = list(yamldoc.objects((data / case["in"]).read_text()))
    try:
        settings = _settings(case, data)
        found = [manifest.into(o, "", settings, told) for o in given]
    except ValueError as e:
        return None if case.get("expectedError") else f"refused: {e}"
    if case.get("expectedError"):
        return f"expected the error {case['expectedError']!r}"
    if (log := case.get("expectedLog")) and not any(log in t for t in told):
        return f"expected to be told {log!r}, was told {told}"
    wanted = list(yamldoc.objects((data / case["want"]).read_text()))
    return _different(meaning([_plain(o) for o in wanted]), meaning([_plain(o) for o in found]), "")


def _plain(obj: dict[str, Any]) -> dict[str, Any]:
    """Around the pod, Go's types print some zeros and leave others out."""
    spec = {k: v for k, v in (obj.get("spec") or {}).items() if v not in (0, False)}
    return {**{k: v for k, v in obj.items() if k != "status"}, "spec": spec}


def _settings(case: dict[str, Any], data: Path) -> pods.Settings:
    """The installation that the case names: its IstioOperator file, its ``--set``, its mesh configuration."""
    files = [yamldoc.load((data / name).read_text()) for name in [case.get("iopFile")] if name]
    overlays, sets = [operator.specification(f) for f in files], [*IMAGES, *(case.get("setFlags") or [])]
    spec = operator.resolve("default", overlays, sets).spec
    mesh = dict(spec.get("meshConfig") or {})
    for key, value in (case.get("meshPatch") or {}).items():
        plain = key.removesuffix("+")
        mesh[plain] = [*(mesh.get(plain) or []), *value] if key.endswith("+") else value
    native = (case.get("env") or {}).get("ENABLE_NATIVE_SIDECARS", "true") == "true"
    return pods.settings(spec.get("values") or {}, mesh, native=native, revision=spec.get("revision") or "default")


def meaning(value: Any, key: str = "") -> Any:
    """Without what says nothing: empty values that Go's types always print; JSON in text as JSON; quantities equal
    that are written differently."""
    if isinstance(value, dict):
        if set(value) >= {"name", "value"} and isinstance(value["value"], str):
            value = {**value, "value": _text(value["value"])}
        out = {k: meaning(v, k) for k, v in value.items()}
        return {k: v for k, v in out.items() if not _empty(k, v)}
    if isinstance(value, list):
        return [meaning(v) for v in value]
    if isinstance(value, str) and key in ("cpu", "memory"):
        return _quantity(value)
    if isinstance(value, str) and key.startswith(("sidecar.istio.io/status", "proxy.istio.io/overrides")):
        return meaning(json.loads(value))
    return value


def _empty(key: str, value: Any) -> bool:
    go = ("resources", "strategy", "status", "creationTimestamp", "metadata", "templateGeneration", "updateStrategy")
    return (
        value is None or (key in go and value in ({}, None)) or (key in ("containers", "initContainers") and not value)
    )


def _text(value: str) -> Any:
    text = value.strip()
    if text[:1] in "[{" and text:
        try:
            return json.loads(text)
        except ValueError:
            pass
    return text


def _quantity(value: str) -> Any:
    return float(value[:-1]) / 1000 if value.endswith("m") else float(value) if value.isdigit() else value


def _different(wanted: Any, found: Any, path: str) -> str | None:
    """The first difference, with its path."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted(wanted.keys() | found.keys()):
            where = f"{path}.{key}" if path else key
            if key not in found or key not in wanted:
                side = ("missing", wanted) if key not in found else ("too much", found)
                return f"{where}: {side[0]}: {json.dumps(side[1][key])[:300]}"
            if says := _different(wanted[key], found[key], where):
                return says
        return None
    if isinstance(wanted, list) and isinstance(found, list):
        for i, (a, b) in enumerate(zip(wanted, found, strict=False)):
            label = a.get("name", i) if isinstance(a, dict) else i
            if says := _different(a, b, f"{path}[{label}]"):
                return says
        if len(wanted) != len(found):
            rest = (wanted if len(wanted) > len(found) else found)[min(len(wanted), len(found)) :]
            return f"{path}: {'missing' if len(wanted) > len(found) else 'too much'}: {json.dumps(rest)[:300]}"
        return None
    return None if wanted == found else f"{path}: expected {json.dumps(wanted)[:300]}, got {json.dumps(found)[:300]}"
