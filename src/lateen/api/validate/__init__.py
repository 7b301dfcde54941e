"""What Istio's validator refuses and warns about, in sentences with the field's path. Pure.

The structure (types, enums, unknown fields) is the CRD schema's business; here are the rules between fields. The
facts of the rules are Istio's (pkg/config/validation and the CEL rules of its CRDs); ``validate``, ``analyze`` and
the admission webhook all ask here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from lateen.api.config import DecodeError, complete, decode
from lateen.api.crds import BY_KIND
from lateen.api.validate.destination_rule import destination_rule
from lateen.api.validate.envoy_filter import envoy_filter, proxy_config
from lateen.api.validate.findings import Finding, Findings
from lateen.api.validate.gateway import gateway
from lateen.api.validate.security import authorization_policy, peer_authentication, request_authentication
from lateen.api.validate.service_entry import service_entry, workload_entry, workload_group
from lateen.api.validate.sidecar import sidecar
from lateen.api.validate.telemetry import telemetry, traffic_extension, wasm_plugin
from lateen.api.validate.virtual_service import virtual_service
from lateen.kit.jsons import Json

__all__ = ["Finding", "findings", "problems", "warnings"]

_EXPORTED: dict[str, Callable[..., Findings]] = {
    "DestinationRule": destination_rule,
    "ServiceEntry": service_entry,
    "VirtualService": virtual_service,
}
_RULES: dict[str, Callable[..., Findings]] = {
    "EnvoyFilter": envoy_filter,
    "Gateway": gateway,
    "PeerAuthentication": peer_authentication,
    "ProxyConfig": proxy_config,
    "RequestAuthentication": request_authentication,
    "Sidecar": sidecar,
    "Telemetry": telemetry,
    "TrafficExtension": traffic_extension,
    "WasmPlugin": wasm_plugin,
    "WorkloadEntry": workload_entry,
    "WorkloadGroup": workload_group,
}


def findings(obj: Json) -> list[Finding]:
    """Everything to say about a mesh object, errors first; kinds that are not the mesh's have none."""
    kind = str(obj.get("kind"))
    definition = BY_KIND.get(kind)
    if definition is None:
        return []
    spec = obj.get("spec") or {}
    if not isinstance(spec, dict):
        return [Finding("spec", f"expected a mapping, got {type(spec).__name__}")]
    try:
        typed = decode(definition.spec, complete(definition.spec, spec))
    except DecodeError as e:
        return [Finding(e.path, e.says)]
    namespace = str((obj.get("metadata") or {}).get("namespace") or "")
    if kind == "AuthorizationPolicy":
        found = list(authorization_policy(cast(Any, typed), obj))
    elif kind in _EXPORTED:
        found = list(_EXPORTED[kind](typed, namespace))
    else:
        found = list(_RULES[kind](typed))
    return sorted(found, key=lambda f: f.warning)


def problems(obj: Json) -> list[tuple[str, str]]:
    """(path, sentence) for everything that the object is refused for."""
    return [(f.path, f.says) for f in findings(obj) if not f.warning]


def warnings(obj: Json) -> list[tuple[str, str]]:
    """(path, sentence) for what is accepted but not as its author may think."""
    return [(f.path, f.says) for f in findings(obj) if f.warning]
