"""What is analysed: objects as written, with where each came from; and lookups over all of them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lateen.analysis.messages import CATALOGUE, Kind
from lateen.kit.jsons import Json, dig

Path = tuple[str | int, ...]
SYSTEM = frozenset({"kube-system", "kube-public", "kube-node-lease", "local-path-storage"})
SUPPRESS = "galley.istio.io/analyze-suppress"
K8S_GATEWAY = "KubernetesGateway"
"""How Gateway of gateway.networking.k8s.io is called here, to tell it from Istio's."""


@dataclass(frozen=True, eq=False)
class Source:
    """One object and its origin; ``file`` is empty for objects of a live cluster."""

    obj: Json
    file: str = ""
    position: Callable[[Path], tuple[int, int]] = field(default=lambda _: (0, 0), repr=False)
    cluster: str = ""

    @property
    def kind(self) -> str:
        return str(self.obj.get("kind") or "")

    @cached_property
    def meta(self) -> Json:
        return self.obj.get("metadata") or {}

    @property
    def name(self) -> str:
        return str(self.meta.get("name") or "")

    @property
    def namespace(self) -> str:
        return str(self.meta.get("namespace") or "")

    @property
    def full(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def ref(self) -> str:
        return f"{self.kind} {self.full}"

    @property
    def labels(self) -> Mapping[str, str]:
        return self.meta.get("labels") or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        return self.meta.get("annotations") or {}

    @property
    def spec(self) -> Json:
        found = self.obj.get("spec")
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Message:
    """One finding about one object."""

    kind: Kind
    source: Source
    text: str
    path: Path = ()

    @property
    def reference(self) -> str:
        """``file:line:column``; empty for a live object."""
        if not self.source.file:
            return ""
        line, column = self.source.position(self.path)
        return f"{self.source.file}:{line}:{column}" if line else self.source.file


class Snapshot:
    """All objects by kind and name. ``mesh`` and ``networks`` are the mesh's configuration as written."""

    def __init__(
        self,
        sources: Iterable[Source],
        mesh: Json | None = None,
        networks: Json | None = None,
        root: str = "istio-system",
    ) -> None:
        self._by_kind: dict[str, list[Source]] = {}
        self._by_name: dict[tuple[str, str, str], Source] = {}
        self.root = root
        for s in sources:
            if s.namespace in SYSTEM:
                continue
            kind = kind_of(s.obj)
            key = (kind, s.namespace, s.name)
            if before := self._by_name.get(key):  # a file's object stands for the live one of the same name
                self._by_kind[kind].remove(before)
            self._by_kind.setdefault(kind, []).append(s)
            self._by_name[key] = s
        self.mesh = mesh if mesh is not None else self._configured("mesh")
        self.networks = networks if networks is not None else self._configured("meshNetworks")

    def _configured(self, key: str) -> Json:
        from lateen.kit import yamldoc

        source = self.get("ConfigMap", self.root, "istio")
        try:
            found = yamldoc.load(dig(source.obj, "data", key, default="")) if source else None
        except yamldoc.YamlError:
            found = None
        return found if isinstance(found, dict) else {}

    def all(self, *kinds: str) -> list[Source]:
        return [s for kind in kinds for s in self._by_kind.get(kind, ())]

    def everything(self) -> Iterable[Source]:
        for sources in self._by_kind.values():
            yield from sources

    def get(self, kind: str, namespace: str, name: str) -> Source | None:
        return self._by_name.get((kind, namespace, name))

    @cached_property
    def pods_by_namespace(self) -> dict[str, list[Source]]:
        out: dict[str, list[Source]] = {}
        for pod in self.all("Pod"):
            out.setdefault(pod.namespace, []).append(pod)
        return out

    @cached_property
    def namespace_labels(self) -> dict[str, Mapping[str, str]]:
        return {n.name: n.labels for n in self.all("Namespace")}

    @cached_property
    def services_by_host(self) -> dict[str, Source]:
        return {f"{s.name}.{s.namespace}.svc.{self.domain}": s for s in self.all("Service")}

    @property
    def domain(self) -> str:
        return "cluster.local"

    def fqdn(self, host: str, namespace: str) -> str:
        """A short name is of the namespace of the rule that has it."""
        if "." in host or host == "*":
            return host
        return f"{host}.{namespace}.svc.{self.domain}"

    def visible(self, source: Source, export_to: Iterable[str]) -> set[str]:
        """Namespaces that an object is exported to; ``*`` for all."""
        given = list(export_to) or ["*"]
        return {source.namespace if to == "." else to for to in given}


def kind_of(obj: Json) -> str:
    kind = str(obj.get("kind") or "")
    group = str(obj.get("apiVersion") or "").partition("/")[0]
    return K8S_GATEWAY if kind == "Gateway" and group == "gateway.networking.k8s.io" else kind


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """An empty selector selects everything."""
    return all(labels.get(k) == v for k, v in (selector or {}).items())


def selector_text(selector: Mapping[str, Any]) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted(selector.items()))


def message(code: str, source: Source, *args: object, path: Path = ()) -> Message:
    kind = CATALOGUE[code]
    return Message(kind, source, kind.text.format(*args), path)


def suppressed(m: Message, given: Iterable[tuple[str, str]]) -> bool:
    """By the object's own annotation, or by ``CODE=glob`` over "Kind ns/name" (``Kind name.ns`` as well)."""
    own = m.source.annotations.get(SUPPRESS)
    if own and (own == "*" or m.kind.code in [c.strip() for c in own.split(",")]):
        return True
    other = f"{m.source.kind} {m.source.name}.{m.source.namespace}"
    return any(
        code in (m.kind.code, "*") and (fnmatch.fnmatchcase(m.source.ref, glob) or fnmatch.fnmatchcase(other, glob))
        for code, glob in given
    )
