"""What the server knows about a kind apart from its schema: how it is addressed, and what may be done with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lateen.kit.jsons import Json

CRDS = "customresourcedefinitions.apiextensions.k8s.io"
METRICS, API_SERVICES = "metrics.k8s.io", "apiregistration.k8s.io"
"""Groups whose objects are computed on request."""
PARTS = ("status", "approval", "ephemeralcontainers", "resize")
"""Subresources that are a part of the object: a write through one of them changes nothing else."""
CORE_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class ScalePaths:
    """The paths of the number of replicas and of the selector."""

    spec: tuple[str, ...] = ("spec", "replicas")
    status: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ("spec", "selector")


@dataclass(frozen=True)
class Resource:
    """One resource of one group, in all versions that it is served in."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    scale: bool = False
    subresources: tuple[tuple[str, str], ...] = ()
    verbs: tuple[str, ...] = CORE_VERBS
    versions: tuple[str, ...] = ()
    schemas: dict[str, Json] = field(default_factory=dict, hash=False, compare=False)
    columns: dict[str, list[Json]] = field(default_factory=dict, hash=False, compare=False)
    scales: dict[str, ScalePaths] = field(default_factory=dict, hash=False, compare=False)
    selectable: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False, compare=False)
    deprecated: dict[str, str] = field(default_factory=dict, hash=False, compare=False)
    """The warning about a version, for those that nobody should use any more."""
    singular: str = ""
    custom: bool = False
    computed: bool = False
    """Nothing of it is stored: its objects are made when somebody asks."""
    converter: Json | None = field(default=None, hash=False, compare=False)
    """The webhook that converts objects between versions (``spec.conversion.webhook``)."""
    uniform: bool = True
    """Objects are the same in all versions but for their apiVersion."""
    shares: str = ""
    """The collection of another resource that has the same objects."""

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def collection(self) -> str:
        """The name of the objects' collection in the store."""
        return self.shares or self.qualified

    def api_version(self, version: str = "") -> str:
        version = version or self.version
        return f"{self.group}/{version}" if self.group else version

    def scale_paths(self, version: str) -> ScalePaths:
        return self.scales.get(version, ScalePaths())

    @property
    def served(self) -> tuple[str, ...]:
        return self.versions if self.custom else self.versions or (self.version,)


def from_crd(crd: Json) -> Resource:
    """The resource that a CustomResourceDefinition declares."""
    spec = crd["spec"]
    names = spec["names"]
    served = [v for v in spec["versions"] if v.get("served", True)]
    schemas = {v["name"]: (v.get("schema") or {}).get("openAPIV3Schema") or {} for v in spec["versions"]}
    conversion = spec.get("conversion") or {}
    converter = conversion.get("webhook") if conversion.get("strategy") == "Webhook" else None
    stored = next((v["name"] for v in spec["versions"] if v.get("storage")), spec["versions"][0]["name"])
    has_status = any("status" in (v.get("subresources") or {}) for v in served)
    return Resource(
        group=spec["group"],
        version=stored,
        plural=names["plural"],
        kind=names["kind"],
        namespaced=spec.get("scope", "Namespaced") == "Namespaced",
        short=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        status=has_status,
        scale=any("scale" in (v.get("subresources") or {}) for v in served),
        scales={
            v["name"]: _scale_paths(v["subresources"]["scale"])
            for v in served
            if "scale" in (v.get("subresources") or {})
        },
        selectable={v["name"]: tuple(f["jsonPath"] for f in v.get("selectableFields") or []) for v in served},
        versions=tuple(v["name"] for v in served),
        schemas=schemas,
        converter=converter,
        uniform=converter is None and all(s == schemas[stored] for s in schemas.values()),
        columns={v["name"]: v.get("additionalPrinterColumns") or [] for v in served},
        deprecated={v["name"]: _deprecated(spec, v) for v in served if v.get("deprecated")},
        singular=names.get("singular") or names["kind"].lower(),
        custom=True,
    )


def _deprecated(spec: Json, version: Json) -> str:
    return str(
        version.get("deprecationWarning") or f"{spec['group']}/{version['name']} {spec['names']['kind']} is deprecated"
    )


def _scale_paths(scale: Json) -> ScalePaths:
    def steps(key: str) -> tuple[str, ...]:
        return tuple(filter(None, str(scale.get(key) or "").split(".")))

    return ScalePaths(steps("specReplicasPath"), steps("statusReplicasPath"), steps("labelSelectorPath") or ("",))
