"""Sources from files, folders, standard input."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from lateen.analysis.snapshot import Source, selects
from lateen.api import kinds
from lateen.kit import yamldoc
from lateen.kit.jsons import Json

SUFFIXES = (".yaml", ".yml", ".json")
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job")


class LoadError(ValueError):
    """A file that cannot be read or parsed: one sentence with file, line and column."""


def files(given: list[str], recursive: bool) -> Iterator[Path | None]:
    """The files that the arguments name; None is standard input. Raises LoadError."""
    for text in given:
        if text == "-":
            yield None
            continue
        path = Path(text)
        if path.is_dir():
            found = sorted(path.rglob("*") if recursive else path.iterdir())
            yield from (f for f in found if f.is_file() and f.suffix in SUFFIXES)
        elif path.exists():
            yield path
        else:
            raise LoadError(f"{text}: no such file or folder")


def sources(path: Path | None, namespace: str = "") -> Iterator[Source]:
    """The objects in a file. Raises LoadError.

    Objects of namespaced kinds without a namespace get ``namespace``.
    """
    for part in parts(path, namespace):
        if isinstance(part, LoadError):
            raise part
        yield part


def parts(path: Path | None, namespace: str = "") -> Iterator[Source | LoadError]:
    """The objects in a file as ``sources`` yields them, and in the place of each document without any, why."""
    name = "stdin" if path is None else str(path)
    try:
        text = sys.stdin.read() if path is None else path.read_text()
    except UnicodeDecodeError:
        yield LoadError(f"{name}: is not UTF-8 text")
        return
    except OSError as e:
        yield LoadError(f"{name}: {e.strerror}")
        return
    for document in yamldoc.each(text):
        if isinstance(document, yamldoc.Document):
            yield from _objects(document, name, namespace)
        else:
            at = f":{document.line}:{document.column}" if document.line else ""
            yield LoadError(f"{name}{at}: {document.says}")


def _objects(document: yamldoc.Document, name: str, namespace: str) -> Iterator[Source | LoadError]:
    value = document.value
    if not isinstance(value, dict) or not value.get("kind"):
        line, column = document.position(())
        yield LoadError(f"{name}:{line}:{column}: expected a Kubernetes object (a mapping with apiVersion and kind)")
    elif str(value["kind"]).endswith("List") and isinstance(value.get("items"), list):
        for i, item in enumerate(value["items"]):
            yield _source(item, document, name, namespace, ("items", i))
    else:
        yield _source(value, document, name, namespace, ())


def _source(
    obj: object, document: yamldoc.Document, name: str, namespace: str, base: tuple[str | int, ...]
) -> Source | LoadError:
    if not isinstance(obj, dict):
        line, column = document.position(base)
        return LoadError(f"{name}:{line}:{column}: expected a Kubernetes object")
    known, meta = kinds.of(obj), obj.get("metadata")
    if isinstance(meta, dict):
        changed: Json = {k: _texts(meta[k]) for k in ("labels", "annotations") if isinstance(meta.get(k), dict)}
        if namespace and not meta.get("namespace") and (known is None or known.namespaced):
            changed["namespace"] = namespace
        obj = {**obj, "metadata": {**meta, **changed}}
    return Source(obj, name, lambda path: document.position((*base, *path)))


def _texts(given: Json) -> Json:
    """Labels or annotations as Kubernetes reads them: a null is an empty text."""
    return {k: "" if v is None else v for k, v in given.items()}


def planned(given: Collection[Source]) -> Iterator[Source]:
    """A pod for each workload in a file whose pods are not among the objects, as its template has it."""
    pods: dict[str, list[Source]] = {}
    for s in given:
        if s.id == kinds.POD.id:
            pods.setdefault(s.namespace, []).append(s)
    for s in given:
        template = s.spec.get("template")
        if not s.file or s.kind not in WORKLOADS or not isinstance(template, dict):
            continue
        meta = {**(template.get("metadata") or {}), "namespace": s.namespace, "name": s.name}
        pod = Source({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template.get("spec") or {}}, s.file)
        if pod.labels and not any(selects(pod.labels, p.labels) for p in pods.get(pod.namespace, ())):
            yield pod


def default_ingress() -> list[Source]:
    """Objects that files analyzed without a cluster may refer to: an installation's ingress gateway."""
    meta = {"name": "istio-ingressgateway", "namespace": "istio-system", "labels": {"istio": "ingressgateway"}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [{"name": "istio-proxy"}]}}
    ports = [(80, "http2"), (443, "https"), (31400, "tcp"), (15443, "tls")]
    spec = {
        "selector": {"istio": "ingressgateway"},
        "ports": [{"name": name, "port": port, "targetPort": port, "protocol": "TCP"} for port, name in ports],
    }
    service = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
    return [Source(pod), Source(service)]
