"""The providers that Telemetry objects name."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Snapshot, Source, message
from lateen.api import kinds
from lateen.api.mesh import provider_names
from lateen.kit.jsons import dig


@analyzer("telemetry.ProviderAnalyzer", "Validates that providers in telemetry resource is valid")
def providers(snapshot: Snapshot) -> Iterator[Message]:
    if dig(snapshot.mesh, "defaultProviders", "accessLogging"):
        return
    for t in snapshot.all(kinds.TELEMETRY):
        for i, log in enumerate(t.spec.get("accessLogging") or []):
            if log and not log.get("disabled") and not log.get("providers"):
                yield message("IST0157", t, t.name, t.namespace, path=("spec", "accessLogging", i))


@analyzer("telemetry.LightstepAnalyzer", "Validates that lightstep provider is still used")
def lightstep(snapshot: Snapshot) -> Iterator[Message]:
    old = {p.get("name") for p in snapshot.mesh.get("extensionProviders") or [] if "lightstep" in p}
    for t in snapshot.all(kinds.TELEMETRY):
        for i, tracing in enumerate(t.spec.get("tracing") or []):
            for j, p in enumerate((tracing or {}).get("providers") or []):
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
    known = provider_names.known(snapshot.mesh)
    for t in snapshot.all(kinds.TELEMETRY):
        for section, usable in provider_names.USES.items():
            for i, entry in enumerate(t.spec.get(section) or []):
                for j, p in enumerate(entry.get("providers") or []):
                    path = ("spec", section, i, "providers", j, "name")
                    if (says := provider_names.why_not(str(p.get("name") or ""), known, usable)) is not None:
                        yield _unused(t, str(p.get("name")), section, says, path)


def _unused(source: Source, name: str, section: str, says: str, path: tuple[str | int, ...]) -> Message:
    return message("LAT0130", source, name, section, says, path=path)
