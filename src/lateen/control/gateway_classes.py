"""The mesh's own GatewayClasses, as in Istio: created if missing, and never modified."""

from __future__ import annotations

import logging

from lateen.api import kinds
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError, Unreachable
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


async def create(client: Client, name: str) -> bool:
    """Create the class unless it exists. Returns whether it exists now: while istiod starts, its webhook is not ready
    yet."""
    try:
        await client.create(kinds.GATEWAY_CLASS, manifest(name))
    except (KubeError, Unreachable) as e:
        code = e.code if isinstance(e, KubeError) else 0
        if code == 404:  # the cluster does not have the Gateway API
            return True
        if code != 409:
            log.info("GatewayClass %s cannot be created yet: %s", name, e)
            return False
    return True
