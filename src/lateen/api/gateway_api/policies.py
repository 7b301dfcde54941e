"""ReferenceGrant, which permits references across namespaces, and BackendTLSPolicy.

Source: https://gateway-api.sigs.k8s.io/reference/spec/#referencegrant and #backendtlspolicy.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from lateen.api.config import Defaulted, Limits
from lateen.api.gateway_api.common import (
    Group,
    Hostname,
    KindName,
    LocalObjectReference,
    Namespace,
    ObjectName,
    Option,
    PreciseHostname,
    SectionName,
)


class GrantFrom(Defaulted, kw_only=True):
    group: Group
    kind: KindName
    namespace: Namespace


class GrantTo(Defaulted, kw_only=True):
    group: Group
    kind: KindName
    name: ObjectName | None = None


class ReferenceGrant(Defaulted, kw_only=True):
    from_: Annotated[tuple[GrantFrom, ...], Limits(min_items=1, max_items=16)]
    to: Annotated[tuple[GrantTo, ...], Limits(min_items=1, max_items=16)]


class PolicyTarget(LocalObjectReference, kw_only=True):
    section_name: SectionName | None = None


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
WellKnown = Annotated[
    str,
    Limits(
        pattern=rf"^(System|({_LABEL}(\.{_LABEL})*/([A-Za-z0-9][-A-Za-z0-9_.]{{0,61}})?[A-Za-z0-9]))$",
        min_length=1,
        max_length=253,
        says="System, or domain/name",
    ),
]


class SubjectAltName(Defaulted, kw_only=True):
    type: Literal["Hostname", "URI"]
    hostname: Hostname | None = None
    uri: (
        Annotated[
            str,
            Limits(
                pattern=r"^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?",
                min_length=1,
                max_length=253,
                says="an absolute URI",
            ),
        ]
        | None
    ) = None


class BackendValidation(Defaulted, kw_only=True):
    ca_certificate_refs: Annotated[tuple[LocalObjectReference, ...], Limits(max_items=8)] = ()
    well_known_ca_certificates: WellKnown | None = msgspec.field(default=None, name="wellKnownCACertificates")
    hostname: PreciseHostname
    subject_alt_names: Annotated[tuple[SubjectAltName, ...], Limits(max_items=5)] = ()


class BackendTLSPolicy(Defaulted, kw_only=True):
    target_refs: Annotated[tuple[PolicyTarget, ...], Limits(min_items=1, max_items=16)]
    validation: BackendValidation
    options: dict[str, Option] = {}
