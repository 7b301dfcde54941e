"""The type ``Kind`` and lookups in the table of kinds; the rows are in ``api.kinds``."""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from lateen.kit.jsons import Json

if TYPE_CHECKING:
    from lateen.api.config import Config

    Rules = Callable[[Any, Json], Iterator[Any]]
    """(spec, metadata) -> findings (``api.validate.findings``)."""


class GroupKind(NamedTuple):
    """A kind without its version: ``Gateway`` of networking.istio.io is not the Gateway API's."""

    group: str
    kind: str

    def __str__(self) -> str:
        """``Gateway`` for the first kind of that name in the table, ``Gateway.group`` for all others."""
        return self.kind if _first(self.kind) == self.group else f"{self.kind}.{self.group}"


@dataclass(frozen=True)
class Ref:
    """The identity of an object. ``cluster`` is empty for the cluster that istiod runs in."""

    group: str
    kind: str
    namespace: str
    name: str
    cluster: str = ""

    @cached_property
    def _text(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.group_kind} {where}{f'@{self.cluster}' if self.cluster else ''}"

    def __str__(self) -> str:
        """``Gateway default/web``: readable and unambiguous."""
        return self._text

    @property
    def group_kind(self) -> GroupKind:
        return GroupKind(self.group, self.kind)


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the table. The fields after ``namespaced`` are for kinds that the mesh reads."""

    group: str
    version: str
    """The version that is stored and that our programs use."""
    plural: str
    kind: str
    namespaced: bool = True
    versions: tuple[str, ...] = field(default=(), compare=False)
    """All versions that are served."""
    short: tuple[str, ...] = field(default=(), compare=False)
    spec_at: str = field(default="", compare=False)
    rules_at: str = field(default="", compare=False)
    columns: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """(title, JSON path) for ``kubectl get``."""
    owned: bool = field(default=False, compare=False)
    """Whether the kind belongs to the mesh, which installs its CRD, validates its objects and writes their status."""
    watched: bool = field(default=False, compare=False)
    """Whether istiod watches it in all namespaces."""
    idle: str = field(default="", compare=False)
    """Why the whole kind has no effect in this version; empty if it has one."""
    experimental: bool = field(default=False, compare=False)
    """Whether its CRD is only in the experimental channel of the Gateway API."""
    pending: tuple[str, ...] = field(default=(), compare=False)
    """Conditions that its CRD sets to Unknown by default, until a controller has processed the object."""
    id: GroupKind = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", GroupKind(self.group, self.kind))

    def __eq__(self, other: object) -> bool:
        """Compares the first five fields, after a check of identity: rows of the table are compared with every
        event."""
        if self is other:
            return True
        return isinstance(other, Kind) and self.id == other.id and self._compared == other._compared

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def _compared(self) -> tuple[object, ...]:
        return self.group, self.version, self.plural, self.kind, self.namespaced

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def spec(self) -> type[Config] | None:
        """The type of ``spec``; None for kinds with a decoder of their own and for those that are not read."""
        found: type[Config] | None = _resolve(self.spec_at)
        return found

    @property
    def rules(self) -> Rules | None:
        """The validation rules between fields."""
        found: Rules | None = _resolve(self.rules_at)
        return found

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The object's path in the API. Names are escaped, so each stays one path segment."""
        namespace, name = quote(namespace, safe=":"), quote(name, safe=":")
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        where = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return "/".join(p for p in (f"{base}{where}/{self.plural}", name, subresource) if p)

    def typed(self, obj: Json) -> Json:
        """The object with ``apiVersion`` and ``kind``, which lists leave out."""
        return {"apiVersion": self.api_version, "kind": self.kind, **obj}

    def ref(self, namespace: str, name: str, cluster: str = "") -> Ref:
        return Ref(self.group, self.kind, namespace, name, cluster)


TABLE: dict[GroupKind, Kind] = {}
_FIRST: dict[str, str] = {}
"""The group of the first kind of each name."""


def row(kind: Kind) -> Kind:
    """Add a kind to the table."""
    TABLE[kind.id] = kind
    _FIRST.setdefault(kind.kind, kind.group)
    return kind


@cache
def _resolve(at: str) -> Any:
    return pkgutil.resolve_name(at) if at else None


def _first(kind: str) -> str:
    """The group of the first kind of this name in the table; the core group for unknown names."""
    return _FIRST.get(kind, "")


def find(group: str, kind: str) -> Kind | None:
    return TABLE.get(GroupKind(group, kind))


def named(text: str) -> Kind | None:
    """The kind with this spelling (``GroupKind.__str__``): ``Gateway``, ``Gateway.gateway.networking.k8s.io``."""
    kind, dot, group = text.partition(".")
    return find(group if dot else _first(kind), kind)


def group_kind(obj: Json) -> GroupKind:
    """The kind named by an object's ``apiVersion`` and ``kind``."""
    return _group_kind(str(obj.get("apiVersion") or ""), str(obj.get("kind") or ""))


@lru_cache(maxsize=1024)
def _group_kind(api_version: str, kind: str) -> GroupKind:
    group, slash, _ = api_version.partition("/")
    return GroupKind(group if slash else "", kind)


def of(obj: Json) -> Kind | None:
    """The table's row for an object's kind; None for unknown kinds."""
    return TABLE.get(group_kind(obj))


def owned() -> tuple[Kind, ...]:
    """The mesh's own kinds."""
    return tuple(k for k in TABLE.values() if k.owned)


def groups() -> list[str]:
    """The API groups of the mesh's own kinds, sorted."""
    return sorted({k.group for k in owned()})


def watched() -> Iterator[Kind]:
    return (k for k in TABLE.values() if k.watched)


def stranger(obj: Json) -> str:
    """Why the kind or version of an object in one of our groups is unknown; empty if it is known, and for other
    groups."""
    group, name = group_kind(obj)
    known = TABLE.get(GroupKind(group, name))
    if known is not None and known.owned:
        version = str(obj.get("apiVersion")).partition("/")[2]
        served = ", ".join(known.versions)
        return "" if version in known.versions else f'{group} has no version "{version}" of {name}; it has {served}'
    if group not in groups():
        return ""
    elsewhere = next((k for k in owned() if k.kind == name), None)
    if elsewhere is not None:
        return f"{name} is a kind of {elsewhere.group}, not of {group}; write apiVersion: {elsewhere.api_version}"
    near = difflib.get_close_matches(name, [k.kind for k in owned() if k.group == group], 1)
    return f'{group} has no kind "{name}"' + (f"; did you mean {near[0]}?" if near else "")
