"""The names of extension providers in Telemetry objects and ``defaultProviders``: which of them can be used where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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


def known(mesh: Json) -> dict[str, Json]:
    """A mesh configuration's providers by their names in lower case: as in Istio, case makes no difference."""
    return BUILT_IN | {str(p.get("name") or "").lower(): p for p in mesh.get("extensionProviders") or []}


def why_not(name: str, providers: dict[str, Json], usable: Sequence[str]) -> str | None:
    """Why a name leads to nothing; None if it does not, or if it is empty (which validation rejects)."""
    provider = providers.get(name.lower())
    if not name:
        return None
    if provider is None:
        fitting = sorted(str(p["name"]) for p in providers.values() if any(kind in p for kind in usable))
        return f"the mesh configuration has no such extension provider; it has {', '.join(fitting) or 'none'}"
    if any(kind in provider for kind in usable):
        return None
    kind = next((k for k in provider if k != "name"), "nothing")
    return f"it is of kind {kind}, which stock Envoys cannot use here; usable kinds are {', '.join(usable)}"


def unused_defaults(mesh: Json) -> Iterator[tuple[str, str]]:
    """(path, sentence) for each name in ``defaultProviders`` that leads to nothing."""
    providers = known(mesh)
    for section, usable in USES.items():
        for i, name in enumerate(dig(mesh, "defaultProviders", section, default=[])):
            if (says := why_not(str(name), providers, usable)) is not None:
                yield f"defaultProviders.{section}[{i}]", f"{name} has no effect: {says}"
