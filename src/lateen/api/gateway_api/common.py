"""Types that several kinds of the Gateway API share.

Source: https://gateway-api.sigs.k8s.io/reference/spec/ (1.6). An optional string or number without a default is None
here, because an empty string is not a valid value.
"""

from __future__ import annotations

from typing import Annotated, Literal

from lateen.api.config import Defaulted, Limits

GROUP = "gateway.networking.k8s.io"
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DOMAIN = rf"{_LABEL}(\.{_LABEL})*"

Group = Annotated[str, Limits(pattern=f"^$|^{_DOMAIN}$", max_length=253, says="an API group, or empty for the core")]
KindName = Annotated[
    str, Limits(pattern="^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$", min_length=1, max_length=63, says="a kind's name")
]
ObjectName = Annotated[str, Limits(min_length=1, max_length=253)]
Namespace = Annotated[str, Limits(pattern=f"^{_LABEL}$", min_length=1, max_length=63, says="a namespace's name")]
SectionName = Annotated[
    str, Limits(pattern=f"^{_DOMAIN}$", min_length=1, max_length=253, says='lower-case letters, digits, "-" and "."')
]
Hostname = Annotated[
    str,
    Limits(
        pattern=rf"^(\*\.)?{_DOMAIN}$",
        min_length=1,
        max_length=253,
        says="a lower-case host name, which may begin with a wildcard label (*.)",
    ),
]
PreciseHostname = Annotated[
    str, Limits(pattern=f"^{_DOMAIN}$", min_length=1, max_length=253, says="a lower-case host name without a wildcard")
]
PortNumber = Annotated[int, Limits(minimum=1, maximum=65535)]
HeaderName = Annotated[
    str,
    Limits(
        pattern=r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$",
        min_length=1,
        max_length=256,
        says="the name of a header or parameter",
    ),
]
Option = Annotated[str, Limits(max_length=4096)]
Experimental = Limits(experimental=True)


class ParentReference(Defaulted, kw_only=True):
    """The parent that a route attaches to: a Gateway, or (in the mesh, GAMMA) a Service or ServiceEntry."""

    group: Group = GROUP
    kind: KindName = "Gateway"
    namespace: Namespace | None = None
    name: ObjectName
    section_name: SectionName | None = None
    port: PortNumber | None = None


class ObjectReference(Defaulted, kw_only=True):
    """A reference to an object in any namespace."""

    group: Group
    kind: KindName
    name: ObjectName
    namespace: Namespace | None = None


class LocalObjectReference(Defaulted, kw_only=True):
    """A reference to an object of the same namespace."""

    group: Group
    kind: KindName
    name: ObjectName


class SecretObjectReference(Defaulted, kw_only=True):
    group: Group = ""
    kind: KindName = "Secret"
    name: ObjectName
    namespace: Namespace | None = None


class BackendObjectReference(Defaulted, kw_only=True):
    group: Group = ""
    kind: KindName = "Service"
    name: ObjectName
    namespace: Namespace | None = None
    port: PortNumber | None = None


class BackendRef(BackendObjectReference, kw_only=True):
    weight: Annotated[int, Limits(minimum=0, maximum=1_000_000)] = 1


class SelectorRequirement(Defaulted, kw_only=True):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(Defaulted, kw_only=True):
    """Kubernetes' label selector:
    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/label-selector/"""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[SelectorRequirement, ...] = ()


class CommonRouteSpec(Defaulted, kw_only=True):
    parent_refs: Annotated[tuple[ParentReference, ...], Limits(max_items=32)] = ()
    use_default_gateways: Annotated[Literal["All", "None"] | None, Experimental] = None
