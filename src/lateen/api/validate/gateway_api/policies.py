"""ReferenceGrant, BackendTLSPolicy and XBackendTrafficPolicy."""

from __future__ import annotations

from lateen.api.gateway_api import policies as g
from lateen.api.gateway_api.traffic import XBackendTrafficPolicy
from lateen.api.validate.findings import Findings, no, warn
from lateen.api.validate.gateway_api import sessions
from lateen.kit.jsons import Json

_HOUR_S = 3600


def reference_grant(_: g.ReferenceGrant, __: Json) -> Findings:
    yield from ()


def backend_tls_policy(policy: g.BackendTLSPolicy, _: Json) -> Findings:
    yield from _targets(policy.target_refs)
    own = policy.validation
    if own.ca_certificate_refs and own.well_known_ca_certificates:
        yield no("spec.validation", "must not contain both CACertificateRefs and WellKnownCACertificates")
    if not own.ca_certificate_refs and not own.well_known_ca_certificates:
        yield no("spec.validation", "must specify either CACertificateRefs or WellKnownCACertificates")
    for i, name in enumerate(own.subject_alt_names):
        yield from _alternative(name, f"spec.validation.subjectAltNames[{i}]")
    if len(policy.options) > 16:
        yield no("spec.options", f"must have at most 16 properties, has {len(policy.options)}")


def _targets(targets: tuple[g.PolicyTarget, ...]) -> Findings:
    seen: dict[tuple[str, str, str], list[str | None]] = {}
    for i, t in enumerate(targets):
        sections = seen.setdefault((t.group, t.kind, t.name), [])
        if t.section_name in sections:
            says = "sectionName must be unique when targetRefs includes 2 or more references to the same target"
            yield no(f"spec.targetRefs[{i}].sectionName", says)
        elif sections and (None in (t.section_name, *sections)):
            says = "sectionName must be specified when targetRefs includes 2 or more references to the same target"
            yield no(f"spec.targetRefs[{i}].sectionName", says)
        sections.append(t.section_name)


def _alternative(name: g.SubjectAltName, at: str) -> Findings:
    for kind, field, value in (("Hostname", "hostname", name.hostname), ("URI", "uri", name.uri)):
        if name.type == kind and not value:
            yield no(f"{at}.{field}", f"SubjectAltName element must contain {kind}, if Type is set to {kind}")
        if name.type != kind and value:
            yield no(f"{at}.{field}", f"SubjectAltName element must not contain {kind}, if Type is not set to {kind}")


def x_backend_traffic_policy(policy: XBackendTrafficPolicy, _: Json) -> Findings:
    seen = set()
    for i, t in enumerate(policy.target_refs):
        at = f"spec.targetRefs[{i}]"
        group = "" if t.group == "core" else t.group
        if (group, t.kind) != ("", "Service"):
            yield warn(at, f"it has no effect: a target must be a Service, not a {t.kind} of {t.group or 'core'}")
        if (group, t.kind, t.name) in seen:
            yield no(at, f"{t.kind} {t.name} is there twice")
        seen.add((group, t.kind, t.name))
    asked = policy.retry_constraint
    if asked is not None:
        if not 1 <= asked.budget.interval.seconds <= _HOUR_S:
            says = "interval cannot be greater than one hour or less than one second"
            yield no("spec.retryConstraint.budget.interval", says)
        rate = asked.min_retry_rate.interval
        if rate is not None and not 0 < rate.seconds <= _HOUR_S:
            yield no("spec.retryConstraint.minRetryRate.interval", "interval cannot be zero or greater than one hour")
    yield from sessions.persistence(policy.session_persistence, "spec.sessionPersistence")
