"""The GatewayClasses that the mesh brings, as Istio does: created where they are missing, and never changed."""

from __future__ import annotations

import logging

from lateen.api import kinds
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError
from lateen.mesh.dialects.gateway_api.listeners import CONTROLLER, WAYPOINTS

log = logging.getLogger("lateen.control.gateway_classes")

CLASSES = {
    "istio": (CONTROLLER, "The default Istio GatewayClass"),
    "istio-waypoint": (WAYPOINTS, "The default Istio waypoint GatewayClass"),
}
"""Name -> (controller, description). Source: pilot/pkg/config/kube/gatewaycommon/classinfo.go."""


def manifest(name: str) -> Json:
    controller, description = CLASSES[name]
    return {
        "apiVersion": kinds.GATEWAY_CLASS.api_version,
        "kind": kinds.GATEWAY_CLASS.kind,
        "metadata": {"name": name},
        "spec": {"controllerName": controller, "description": description},
    }


async def create(client: Client, name: str) -> None:
    """Unless another istiod is faster."""
    try:
        await client.create(kinds.GATEWAY_CLASS, manifest(name))
    except KubeError as e:
        if e.code != 409:
            log.warning("GatewayClass %s cannot be created: %s", name, e)
