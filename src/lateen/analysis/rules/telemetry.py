"""The providers that Telemetry objects name."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Snapshot, Source, message
from lateen.api import kinds
from lateen.kit.jsons import Json, dig

USES = {
    "accessLogging": ("envoyFileAccessLog", "envoyOtelAls", "envoyHttpAls", "envoyTcpAls"),
    "metrics": ("prometheus",),
    "tracing": ("zipkin", "opentelemetry", "datadog", "skywalking"),
}
"""The kinds of providers that a section can use, as far as a stock Envoy has them."""
BUILT_IN = {
    "prometheus": {"name": "prometheus", "prometheus": {}},
    "envoy": {"name": "envoy", "envoyFileAccessLog": {"path": "/dev/stdout"}},
}
"""What the mesh configuration has by default (``mesh.observability``)."""


@analyzer("telemetry.ProviderAnalyzer", "Validates that providers in telemetry resource is valid")
def providers(snapshot: Snapshot) -> Iterator[Message]:
    if dig(snapshot.mesh, "defaultProviders", "accessLogging"):
        return
    for t in snapshot.all(kinds.TELEMETRY):
        for i, log in enumerate(t.spec.get("accessLogging") or []):
            if not log.get("disabled") and not log.get("providers"):
                yield message("IST0157", t, t.name, t.namespace, path=("spec", "accessLogging", i))


@analyzer("telemetry.LightstepAnalyzer", "Validates that lightstep provider is still used")
def lightstep(snapshot: Snapshot) -> Iterator[Message]:
    old = {p.get("name") for p in snapshot.mesh.get("extensionProviders") or [] if "lightstep" in p}
    for t in snapshot.all(kinds.TELEMETRY):
        for i, tracing in enumerate(t.spec.get("tracing") or []):
            for j, p in enumerate(tracing.get("providers") or []):
                if p.get("name") in old:
                    says = (
                        f"The Lightstep provider {p['name']} is deprecated, please migrate to OpenTelemetry provider."
                    )
                    yield message("IST0002", t, says, path=("spec", "tracing", i, "providers", j))


@analyzer("telemetry.UnknownProviderAnalyzer", "Checks that the providers exist and are of a kind that can be used")
def unknown_providers(snapshot: Snapshot) -> Iterator[Message]:
    """Names are compared without regard to case, as in Istio."""
    if not snapshot.mesh:
        return  # files only: the providers are unknown
    found = {str(p.get("name") or "").lower(): p for p in snapshot.mesh.get("extensionProviders") or []}
    known = BUILT_IN | found
    for t in snapshot.all(kinds.TELEMETRY):
        for section, usable in USES.items():
            for i, entry in enumerate(t.spec.get(section) or []):
                for j, p in enumerate(entry.get("providers") or []):
                    path = ("spec", section, i, "providers", j, "name")
                    if (says := _why_not(str(p.get("name") or ""), known, usable)) is not None:
                        yield _unused(t, str(p.get("name")), section, says, path)


def _why_not(name: str, known: dict[str, Json], usable: tuple[str, ...]) -> str | None:
    provider = known.get(name.lower())
    if not name:
        return None  # rejected on apply
    if provider is None:
        fitting = sorted(str(p["name"]) for p in known.values() if any(kind in p for kind in usable))
        return f"the mesh configuration has no such extension provider; it has {', '.join(fitting) or 'none'}"
    if any(kind in provider for kind in usable):
        return None
    kind = next((k for k in provider if k != "name"), "nothing")
    return f"it is of kind {kind}, which stock Envoys cannot use here; usable kinds are {', '.join(usable)}"


def _unused(source: Source, name: str, section: str, says: str, path: tuple[str | int, ...]) -> Message:
    return message("LAT0130", source, name, section, says, path=path)
