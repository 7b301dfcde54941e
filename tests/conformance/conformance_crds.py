"""Istio's CRDs (``*.yaml``): whatever their schemas and rules refuse, Lateen refuses, too.

The values are those of the golden files, changed one at a time: numbers beyond bounds, texts that are too long or
malformed, lists and maps that are empty or too large, fields that are missing or exclude each other. Each is asked of
two API servers, one with Istio's definitions and one with Lateen's, and of the validation.
"""

from __future__ import annotations

import copy
import itertools
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

UNIT = Path(__file__).parents[1] / "unit"
sys.path.insert(0, str(UNIT))

from apiserver import Cluster  # noqa: E402

from lateen.api import crds, kinds, validate  # noqa: E402
from lateen.kit import yamldoc  # noqa: E402

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TEXTS = ("", "a" * 64, "a" * 300, "a" * 2050, "*", "a*", "x y", "-a", "A_b", "a/b", "unix:///a/", "unix://a")
TEXTS = (*TEXTS, "http://", "ftp://x", "0s", "500us", "1x", "1.2.3.0/24", "TCP")
NUMBERS = (-1, 0, 1, 101, 65536, 70000, 2**32)
KEYS = ("", "*", "a*", "a b", "x" * 64, "99999", "0")
MOST = 600
"""Longer lists are not tried."""
UNCHECKED = "some validation rules were not checked"
MORE = """
kind: WorkloadGroup
spec:
  metadata: {labels: {a: b}, annotations: {c: d}}
  template: {serviceAccount: a, ports: {http: 80}, labels: {a: b}, network: n, locality: r/z, weight: 3, address: ""}
  probe: {httpGet: {path: /, port: 80, host: h, scheme: HTTP, httpHeaders: [{name: a, value: b}]}, periodSeconds: 3}
---
kind: WorkloadEntry
spec: {address: 1.2.3.4, ports: {http: 80}, labels: {a: b}, network: n, locality: r/z, weight: 3, serviceAccount: a}
---
kind: ProxyConfig
spec: {selector: {matchLabels: {a: b}}, concurrency: 1, environmentVariables: {A: b}}
"""
"""Kinds of which no golden file has enough."""
_numbers = itertools.count()
Path_ = tuple[str | int, ...]


class Definition:
    """A kind as Istio's CRD has it."""

    def __init__(self, crd: dict[str, Any]) -> None:
        spec = crd["spec"]
        version = next(v for v in spec["versions"] if v.get("storage"))
        self.kind, self.group, self.version = spec["names"]["kind"], spec["group"], version["name"]
        self.url = f"/apis/{self.group}/{self.version}/namespaces/default/{spec['names']['plural']}?dryRun=All"
        self.schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]

    def refused(self, cluster: Cluster, spec: Any) -> list[str]:
        """Why an API server refuses a spec: what it says of each place; empty where it does not."""
        meta = {"name": f"x{next(_numbers)}"}
        obj = {"apiVersion": f"{self.group}/{self.version}", "kind": self.kind, "metadata": meta, "spec": spec}
        code, answer = cluster.ask("POST", self.url, obj)
        if code < 300:
            return []
        causes = (answer.get("details") or {}).get("causes") or [answer]
        return [f"{c.get('field', '')}: {c['message']}" for c in causes]


def cases(folder: Path) -> Iterator[tuple[str, str | None]]:
    logging.disable()
    given = [d for f in sorted(folder.glob("*.yaml")) for d in yamldoc.objects(f.read_text())]
    known = [d for d in given if d["kind"] == "CustomResourceDefinition"]
    theirs, ours = (_cluster(found) for found in (known, crds.crds()))
    defined = {d.kind: d for d in map(Definition, known)}
    samples = [(d, s) for d, s in _samples(defined) if not d.refused(theirs, s) and not _refused(d, ours, s)]
    seen: set[tuple[str, str, str]] = set()
    for d, spec in samples:
        for path, changed in _changes(d, spec):
            where = _general(path)
            why = d.refused(theirs, changed)
            # one case for each reason, whatever the position in a list and the value
            reason = (d.kind, where, _reasons(why))
            if why and reason not in seen:
                seen.add(reason)
                wrong = None if _refused(d, ours, changed) else f"accepted, but {'; '.join(why)[:300]}"
                yield f"{d.kind}{where} {reason[2]}", wrong


def _reasons(why: list[str]) -> str:
    """Without values, and without the remark that rules come after the schema, which would make all reasons one."""
    texts = [text.rpartition(": ")[2][:60] for text in why if UNCHECKED not in text]
    return "; ".join(dict.fromkeys(texts))


def _cluster(definitions: list[dict[str, Any]]) -> Cluster:
    out = Cluster()
    for crd in definitions:
        out.must("POST", CRDS, crd)
    return out


def _refused(d: Definition, ours: Cluster, spec: Any) -> bool:
    meta = {"name": "x", "namespace": "default"}
    obj = {"apiVersion": f"{d.group}/{d.version}", "kind": d.kind, "metadata": meta, "spec": spec}
    return bool(d.refused(ours, spec) or validate.problems(obj))


def _samples(defined: dict[str, Definition]) -> Iterator[tuple[Definition, Any]]:
    texts = [f.read_text() for f in sorted((UNIT / "golden").glob("*.yaml"))]
    for doc in (d for text in (*texts, MORE) for d in yamldoc.objects(text)):
        kind = kinds.of(doc) if "apiVersion" in doc else kinds.named(doc["kind"])
        if kind and kind.kind in defined and kind.group == defined[kind.kind].group:
            yield defined[kind.kind], doc.get("spec") or {}


def _changes(d: Definition, spec: Any) -> Iterator[tuple[Path_, Any]]:
    """(where, the spec with another value there)"""
    for path, value, schema in _walk(spec, d.schema, ()):
        for other in _others(value, schema):
            yield path, _put(spec, path, other)


def _walk(value: Any, schema: Any, path: Path_) -> Iterator[tuple[Path_, Any, Any]]:
    yield path, value, schema
    if isinstance(value, dict):
        for key, inner in value.items():
            found = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            if isinstance(found, dict):
                yield from _walk(inner, found, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value[:2]):
            yield from _walk(inner, schema.get("items") or {}, (*path, i))


def _others(value: Any, schema: Any) -> Iterator[Any]:
    kind = schema.get("type")
    if kind == "string":
        yield from schema.get("enum") or TEXTS
    elif kind in ("integer", "number"):
        yield from NUMBERS
    elif isinstance(value, list):
        yield []
        if value:
            yield [*value, copy.deepcopy(value[0])]
            if (most := schema.get("maxItems", MOST)) < MOST:
                yield [copy.deepcopy(value[i % len(value)]) for i in range(most + 1)]
    elif isinstance(value, dict) and "additionalProperties" in schema:
        yield {}
        for key in KEYS if value else ():
            yield {**value, key: next(iter(value.values()))}
    elif isinstance(value, dict):
        yield from ({k: v for k, v in value.items() if k != name} for name in value)
        yield from ({**value, name: _any(s)} for name, s in schema.get("properties", {}).items() if name not in value)


def _any(schema: Any) -> Any:
    """Some value of a type."""
    if schema.get("enum"):
        return schema["enum"][-1]
    return {"string": "a", "integer": 1, "number": 1, "boolean": True, "array": []}.get(schema.get("type"), {})


def _put(spec: Any, path: Path_, value: Any) -> Any:
    if not path:
        return value
    out = at = copy.deepcopy(spec)
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    return json.loads(json.dumps(out))


def _general(path: Path_) -> str:
    return "".join("[]" if isinstance(p, int) else f".{p}" for p in path)
