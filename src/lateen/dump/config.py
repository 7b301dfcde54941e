"""The parts of a config dump (envoy.admin.v3.ConfigDump as JSON)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lateen.kit.jsons import Json, dig

_ENVOY = "type.googleapis.com/envoy.admin.v3."


class DumpError(ValueError):
    """The text is not a config dump."""


def _joined(one: Json, other: Json) -> Json:
    """Merge two parts of one kind: Envoy dumps extensions for HTTP and for network filters separately."""
    lists = {k: one[k] + v for k, v in other.items() if isinstance(v, list) and isinstance(one.get(k), list)}
    return {**one, **other, **lists}


class ConfigDump:
    """Raises DumpError if ``value`` is not a config dump. Yields resources as Envoy has them, dynamic ones first."""

    def __init__(self, value: Any) -> None:
        configs = value.get("configs") if isinstance(value, dict) else None
        if not isinstance(configs, list) or not all(isinstance(c, dict) for c in configs):
            raise DumpError("is not a config dump of Envoy (it has no list of configs)")
        self.value: Json = value
        self._parts: dict[str, Json] = {}
        for c in configs:
            kind = str(c.get("@type", "")).removeprefix(_ENVOY)
            self._parts[kind] = _joined(self._parts.get(kind, {}), c)

    def part(self, kind: str) -> Json:
        """``ClustersConfigDump`` and so on; empty if the dump does not have it."""
        found: Json = self._parts.get(kind, {})
        return found

    def versions(self, kind: str, field: str, *path: str) -> dict[str, str]:
        """Name -> version of dynamic resources; ``path`` is that of the resource, whose parent has the version."""
        out = {}
        for entry in self.part(kind).get(field) or []:
            holder = dig(entry, *path[:-1], default={}) if len(path) > 1 else entry
            resource = holder.get(path[-1]) or {}
            out[str(resource.get("name"))] = str(holder.get("version_info", ""))
        return out

    def bootstrap(self) -> Json:
        found: Json = dig(self.part("BootstrapConfigDump"), "bootstrap", default={})
        return found

    def clusters(self) -> Iterator[Json]:
        part = self.part("ClustersConfigDump")
        for entry in [*(part.get("dynamic_active_clusters") or []), *(part.get("static_clusters") or [])]:
            if isinstance(entry.get("cluster"), dict):
                yield entry["cluster"]

    def listeners(self) -> Iterator[Json]:
        part = self.part("ListenersConfigDump")
        for entry in part.get("dynamic_listeners") or []:
            if found := dig(entry, "active_state", "listener"):
                yield found
        for entry in part.get("static_listeners") or []:
            if isinstance(entry.get("listener"), dict):
                yield entry["listener"]

    def routes(self) -> Iterator[Json]:
        part = self.part("RoutesConfigDump")
        for entry in [*(part.get("dynamic_route_configs") or []), *(part.get("static_route_configs") or [])]:
            if isinstance(entry.get("route_config"), dict):
                yield entry["route_config"]

    def endpoints(self) -> Iterator[Json]:
        part = self.part("EndpointsConfigDump")
        for entry in [*(part.get("dynamic_endpoint_configs") or []), *(part.get("static_endpoint_configs") or [])]:
            if isinstance(entry.get("endpoint_config"), dict):
                yield entry["endpoint_config"]

    def secrets(self) -> Iterator[tuple[str, Json]]:
        """(state, secret)"""
        part = self.part("SecretsConfigDump")
        for field, state in (
            ("dynamic_active_secrets", "ACTIVE"),
            ("dynamic_warming_secrets", "WARMING"),
            ("static_secrets", "ACTIVE"),
        ):
            for entry in part.get(field) or []:
                yield state, {"name": entry.get("name"), **(entry.get("secret") or {})}

    def extensions(self) -> Iterator[Json]:
        part = self.part("EcdsConfigDump")
        for entry in part.get("ecds_filters") or []:
            if isinstance(entry.get("ecds_filter"), dict):
                yield entry["ecds_filter"]
