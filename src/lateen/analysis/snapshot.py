"""The input of the analysis: objects as written, with their origins, and indexes over all of them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

from lateen.analysis.messages import CATALOGUE, Kind
from lateen.api import kinds
from lateen.api.kinds import GroupKind
from lateen.api.reading import cluster_domain, full_host, injector_values, is_gateway
from lateen.kit import yamldoc
from lateen.kit.jsons import Json, dig
from lateen.wire.revision import LABEL, named

T = TypeVar("T")
EVERYTHING = "*"
"""Stands for all kinds in the set of kinds read."""
Path = tuple[str | int, ...]
Key = tuple[str, str, str] | tuple[str, str, str, str]
"""(kind as ``kind_of`` spells it, namespace, name), and the cluster, if that is another one"""
SYSTEM = frozenset({"kube-system", "kube-public", "kube-node-lease", "local-path-storage"})
SUPPRESS = "galley.istio.io/analyze-suppress"
DEFAULT_EXPORT = {
    kinds.SERVICE.id: "defaultServiceExportTo",
    kinds.SERVICE_ENTRY.id: "defaultServiceExportTo",
    kinds.VIRTUAL_SERVICE.id: "defaultVirtualServiceExportTo",
    kinds.DESTINATION_RULE.id: "defaultDestinationRuleExportTo",
}
"""The mesh configuration's field with the default ``exportTo`` of a kind."""


def _nowhere(_: Path) -> tuple[int, int]:
    return 0, 0


def _mapping(value: Json, key: str) -> Json:
    """Empty for what is no mapping, as files may have it."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


class Source:
    """One object and its origin; ``file`` is empty for objects of a live cluster.

    The parts that nearly every analyzer needs are extracted once, here: lookups on demand took a quarter of an
    analysis.
    """

    __slots__ = (
        "__dict__",
        "annotations",
        "cluster",
        "file",
        "id",
        "labels",
        "memo",
        "meta",
        "name",
        "namespace",
        "obj",
        "position",
        "spec",
    )

    def __init__(
        self, obj: Json, file: str = "", position: Callable[[Path], tuple[int, int]] = _nowhere, cluster: str = ""
    ) -> None:
        """``position``: line and column of a path in the file."""
        self.obj, self.file, self.position, self.cluster = obj, file, position, cluster
        self.id: GroupKind = kinds.group_kind(obj)
        self.meta: Json = _mapping(obj, "metadata")
        self.name, self.namespace = str(self.meta.get("name") or ""), str(self.meta.get("namespace") or "")
        self.labels: Mapping[str, str] = _mapping(self.meta, "labels")
        self.annotations: Mapping[str, str] = _mapping(self.meta, "annotations")
        self.spec: Json = _mapping(obj, "spec")
        self.memo: dict[str, Any] = {}
        """Values that analyzers have computed from this object alone."""

    @property
    def kind(self) -> str:
        return self.id.kind

    @property
    def full(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @cached_property
    def ref(self) -> str:
        """Its identity as text: ``Gateway default/web``, and ``Service default/web@east`` in another cluster."""
        return str(kinds.Ref(*self.id, self.namespace, self.name, self.cluster))


@dataclass(frozen=True)
class Message:
    """One finding about one object."""

    kind: Kind
    source: Source
    text: str
    path: Path = ()
    each: bool = False
    """Whether the same text at another line of a file is another finding, as where Istio names the line of a field."""

    @property
    def place(self) -> tuple[str, str, str, int]:
        """Findings with equal places are reported once."""
        line = self.source.position(self.path)[0] if self.each else 0
        return self.kind.code, self.source.ref, self.text, line

    @property
    def reference(self) -> str:
        """``file:line:column``; empty for a live object."""
        if not self.source.file:
            return ""
        line, column = self.source.position(self.path)
        return f"{self.source.file}:{line}:{column}" if line else self.source.file


class Snapshot:
    """All objects by kind and name, and indexes over them that are built on first use.

    ``mesh`` and ``networks`` are the mesh's configuration as written. ``read`` collects the kinds that were looked at
    since it was last cleared, through whichever index, so that an analyzer's inputs need not be listed by hand.
    ``unread`` names kinds whose objects could not be read: nothing can be concluded from their absence. ``secrets`` are
    the namespaces whose Secrets are included; None stands for all. ``revision`` is the one whose istiod reads the
    objects, so those of others are left out; with an empty one, nothing is, and the configuration is the default one's.
    ``planned`` are pods that are still to be made: selectors select them, and nothing else is said of them.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        mesh: Json | None = None,
        networks: Json | None = None,
        root: str = "istio-system",
        unread: Iterable[str] = (),
        secrets: frozenset[str] | None = None,
        revision: str = "",
        planned: Iterable[Source] = (),
    ) -> None:
        self._by_kind: dict[str, dict[tuple[str, str, str], Source]] = {}
        """By namespace, name and cluster."""
        self._made: dict[str, tuple[Any, frozenset[str]]] = {}
        self._given = {"mesh": mesh, "meshNetworks": networks}
        self.root, self.unread, self.secrets, self.revision = root, frozenset(unread), secrets, revision
        self._planned = list(planned)
        self.read: set[str] = set()
        self.kept: dict[str, Any] = {}
        """Values that are passed on to the next snapshot (``replaced``)."""
        self.incomplete: dict[str, list[str]] = {}
        """Analyzers that could not run, and the kinds that each lacks."""
        for s in sources:
            if self._takes(s):  # an object from a file replaces the live one of the same name
                self._by_kind.setdefault(str(s.id), {})[s.namespace, s.name, s.cluster] = s

    def replaced(self, changes: Mapping[Key, Source | None], secrets: frozenset[str] | None = None) -> Snapshot:
        """A snapshot with some objects replaced or (None) removed. Indexes over other kinds are kept."""
        given = self._given["mesh"], self._given["meshNetworks"]
        out = Snapshot((), *given, self.root, self.unread, secrets, self.revision)
        out.kept = self.kept
        touched = {key[0] for key in changes}
        out._by_kind = {k: dict(v) if k in touched else v for k, v in self._by_kind.items()}
        for (kind, namespace, name, *of), source in changes.items():
            found, at = out._by_kind.setdefault(kind, {}), (namespace, name, of[0] if of else "")
            if source is not None and self._takes(source):
                found[at] = source
            else:
                found.pop(at, None)
        out._made = {n: (v, read) for n, (v, read) in self._made.items() if not read & touched}
        return out

    def _takes(self, s: Source) -> bool:
        return s.namespace not in SYSTEM and (not self.revision or revision_of(s) in ("", self.revision))

    def index(self, name: str, make: Callable[[], T]) -> T:
        """The result of ``make``, computed once; the kinds that it reads count as read by every caller."""
        if name not in self._made:
            outer, self.read = self.read, set()
            try:
                made = make()
                self._made[name] = (made, frozenset(self.read))
            finally:
                self.read = outer
        found, read = self._made[name]
        self.read |= read
        return cast(T, found)

    @property
    def mesh(self) -> Json:
        return self._configured("mesh")

    @property
    def networks(self) -> Json:
        return self._configured("meshNetworks")

    @property
    def domain(self) -> str:
        """The cluster's DNS domain, according to the installation's values."""
        return self.index("domain", self._domain)

    def _domain(self) -> str:
        source = self.get("ConfigMap", self.root, named("istio-sidecar-injector", self.revision))
        return cluster_domain(injector_values(source.obj if source else None))

    def full_host(self, host: object, namespace: str) -> str:
        """A host as a rule of ``namespace`` writes it, in full; empty for None."""
        return full_host(str(host or ""), namespace, self.domain)

    def _configured(self, key: str) -> Json:
        given = self._given[key]
        return given if given is not None else self.index(f"configuration {key}", lambda: self._written(key))

    def _written(self, key: str) -> Json:
        source = self.get(kinds.CONFIG_MAP, self.root, named("istio", self.revision))
        try:
            found = yamldoc.load(dig(source.obj, "data", key, default="")) if source else None
        except yamldoc.YamlError:
            found = None
        return found if isinstance(found, dict) else {}

    def all(self, *wanted: kinds.Kind | str) -> list[Source]:
        """All objects of some kinds in the analyzed cluster; a kind is a row of the table or spelled as by
        ``kind_of``."""
        return [s for kind in wanted for s in self.everywhere(kind) if not s.cluster]

    def everywhere(self, kind: kinds.Kind | str) -> Iterable[Source]:
        """All objects of a kind in all clusters of the mesh, which define its hosts."""
        spelled = _spelled(kind)
        self.read.add(spelled)
        return self._by_kind.get(spelled, {}).values()

    def of_unknown_kinds(self) -> Iterable[Source]:
        """Objects whose kind is not in the table, which only files can contain."""
        known = {str(kind) for kind in kinds.TABLE}
        return [s for name, found in self._by_kind.items() if name not in known for s in found.values()]

    def everything(self) -> Iterable[Source]:
        self.read.add(EVERYTHING)
        for sources in self._by_kind.values():
            yield from (s for s in sources.values() if not s.cluster)

    def get(self, kind: kinds.Kind | str, namespace: str, name: str) -> Source | None:
        spelled = _spelled(kind)
        self.read.add(spelled)
        return self._by_kind.get(spelled, {}).get((namespace, name, ""))

    def of_namespace(self, kind: kinds.Kind, namespace: str) -> list[Source]:
        def make() -> dict[str, list[Source]]:
            out: dict[str, list[Source]] = {}
            for s in self.all(kind):
                out.setdefault(s.namespace, []).append(s)
            return out

        return self.index(f"{kind.id} by namespace", make).get(namespace, [])

    def pods(self, selector: Mapping[str, Any] | None, namespace: str = "") -> list[Source]:
        """The pods that a selector selects, in one namespace or (with "") in all; an empty selector selects all."""
        if not selector:
            planned = [p for p in self._planned if namespace in ("", p.namespace)]
            return [*(self.of_namespace(kinds.POD, namespace) if namespace else self.all(kinds.POD)), *planned]
        by = self.index("pods by label", self._by_label)
        few = min((by.get((namespace, str(k), str(v)), []) for k, v in selector.items()), key=len)
        return few if len(selector) == 1 else [p for p in few if selects(selector, p.labels)]

    def gateway_pods(self, gateway: Source) -> list[Source]:
        """The pods that an Istio Gateway selects; without a selector, those of all gateways."""
        if selector := gateway.spec.get("selector"):
            return self.pods(selector)
        return self.index("gateways' pods", lambda: [p for p in self.pods(None) if is_gateway(p.obj)])

    def _by_label(self) -> dict[tuple[str, str, str], list[Source]]:
        out: dict[tuple[str, str, str], list[Source]] = {}
        for pod in self.pods(None):
            for k, v in pod.labels.items():
                out.setdefault((pod.namespace, k, v), []).append(pod)
                out.setdefault(("", k, v), []).append(pod)
        return out

    def services_of(self, namespace: str, labels: Mapping[str, str]) -> list[Source]:
        """The Services of a namespace whose selector selects these labels, in the analyzed cluster."""

        def make() -> dict[tuple[str, str, str], list[Source]]:
            """Services by the first label of their selector: a workload only needs to check a few."""
            out: dict[tuple[str, str, str], list[Source]] = {}
            for s in self.all(kinds.SERVICE):
                for k, v in list((s.spec.get("selector") or {}).items())[:1]:
                    out.setdefault((s.namespace, str(k), str(v)), []).append(s)
            return out

        by = self.index("services by selector", make)
        found = [s for k, v in labels.items() for s in by.get((namespace, k, v), ())]
        return [s for s in found if selects(s.spec["selector"], labels)]

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        found = self.get(kinds.NAMESPACE, "", name)
        return found.labels if found else {}

    @property
    def services_by_host(self) -> dict[str, Source]:
        """Of a Service of several clusters, the analyzed cluster's."""

        def make() -> dict[str, Source]:
            found = sorted(self.everywhere(kinds.SERVICE), key=lambda s: not s.cluster)
            return {self.full_host(s.name, s.namespace): s for s in found}

        return self.index("services by host", make)

    def in_other_clusters(self, service: Source) -> bool:
        """Whether other clusters have a Service, too: its pods there are unknown."""

        def make() -> set[tuple[str, str]]:
            return {(s.namespace, s.name) for s in self.everywhere(kinds.SERVICE) if s.cluster}

        found = self.index("services of other clusters", make)
        return service.id == kinds.SERVICE.id and (service.namespace, service.name) in found

    def visible(self, source: Source, export_to: Iterable[str]) -> set[str]:
        """Namespaces that an object is exported to; ``*`` for all."""
        given = list(export_to) or self.mesh.get(DEFAULT_EXPORT.get(source.id, "")) or ["*"]
        return {source.namespace if to == "." else to for to in given}


def kind_of(obj: Json) -> str:
    """``Gateway`` for Istio's, ``Gateway.gateway.networking.k8s.io`` for the Gateway API's (``kinds.GroupKind``)."""
    return str(kinds.group_kind(obj))


def _spelled(kind: kinds.Kind | str) -> str:
    return kind if isinstance(kind, str) else str(kind.id)


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """An empty selector selects everything."""
    return all(labels.get(k) == v for k, v in (selector or {}).items())


def revision_of(s: Source) -> str:
    """The only revision that reads an object; empty if all do."""
    if not (revision := s.labels.get(LABEL, "")):
        return ""
    kind = kinds.of(s.obj)
    return revision if kind and kind.owned and kind not in kinds.EVERYBODYS else ""


def selector_text(selector: Mapping[str, Any]) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted(selector.items()))


def message(code: str, source: Source, *args: object, path: Path = (), each: bool = False) -> Message:
    kind = CATALOGUE[code]
    return Message(kind, source, kind.text.format(*args), path, each)


def suppressed(m: Message, given: Iterable[tuple[str, str]]) -> bool:
    """Suppressed by the object's own annotation, or by ``CODE=glob`` over its name: as findings spell it, as
    ``istioctl`` does (no group), or ``Kind name.namespace``."""
    own = {c.strip() for c in str(m.source.annotations.get(SUPPRESS, "")).split(",")}
    if own & {m.kind.code, "*"}:
        return True
    s = m.source
    names = (s.ref, f"{s.kind} {s.full}", f"{s.kind} {s.name}.{s.namespace}")
    return any(
        code in (m.kind.code, "*") and any(fnmatch.fnmatchcase(name, glob) for name in names) for code, glob in given
    )
