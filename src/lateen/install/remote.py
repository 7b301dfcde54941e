"""A remote cluster, without its own control plane: how its proxies and its API server reach that of the primary
cluster, and the permissions of the latter here. Pure.

Source: https://istio.io/latest/docs/setup/install/multicluster/primary-remote/ and Istio's chart ``istio-discovery``
with ``istiodRemote.enabled`` (the names of objects and ports).
"""

from __future__ import annotations

import ipaddress
import re

from lateen.api.reading import cluster_name
from lateen.install import reader, webhooks
from lateen.install.objects import meta
from lateen.kit.jsons import Json, dig
from lateen.wire import ports
from lateen.wire.revision import Revision

ADDRESS, PATH = "values.global.remotePilotAddress", "values.istiodRemote.injectionPath"
PORTS = (
    ("tcp-certificates", ports.CA, ports.CA),
    ("tcp-istiod", ports.XDS, ports.XDS),
    ("tcp-webhook", 443, ports.WEBHOOK),
)
"""(name, the Service's port, the port at the control plane's address)"""


_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?")
_PATH = re.compile(r"/inject(/:ENV:[^/?#\s]+|(/(cluster|net)/(?!\.+(/|$))[^/?#\s]+)+)")


def wanted(spec: Json) -> bool:
    return bool(dig(spec, "components", "istiodRemote", "enabled"))


def problem(spec: Json) -> str:
    """What is missing in the specification; empty if nothing is."""
    if not dig(spec, "values", "global", "remotePilotAddress"):
        return (
            f"spec.{ADDRESS}: give the address of the control plane, such as that of its cluster's east-west gateway: "
            "kubectl get service -n istio-system istio-eastwestgateway"
        )
    address, path = str(dig(spec, "values", "global", "remotePilotAddress")), injection_path(spec)
    if not _HOST.fullmatch(address):
        return f'spec.{ADDRESS}: expected an IP address or a host name, got "{address}"'
    if path and not _PATH.fullmatch(path):
        return f'spec.{PATH}: expected /inject/cluster/NAME/net/NETWORK, got "{path}"'
    if not injection_url(spec) and not path:
        return (
            "spec.values.global.multiCluster.clusterName: name this cluster as in its Secret in the control plane's "
            f"cluster (or set {PATH} to /inject/cluster/NAME/net/NETWORK)"
        )
    return ""


def injection_url(spec: Json) -> str:
    return str(dig(spec, "values", "istiodRemote", "injectionURL", default=""))


def injection_path(spec: Json) -> str:
    """The path of the webhook, with the cluster and network for injected pods; empty if neither is configured."""
    values = spec.get("values") or {}
    if given := dig(values, "istiodRemote", "injectionPath", default=""):
        return str(given)
    if not dig(values, "global", "multiCluster", "clusterName"):
        return ""
    network = dig(values, "global", "network", default="")
    path = f"/inject/cluster/{_escaped(cluster_name(values))}"
    return f"{path}/net/{_escaped(str(network))}" if network else path


def _escaped(value: str) -> str:
    return value.replace("/", "--slash--")


def objects(spec: Json, revision: Revision) -> list[Json]:
    config = webhooks.injector(revision.injector, revision)
    for hook in config["webhooks"]:
        if url := injection_url(spec):
            hook["clientConfig"] = {"url": url}
        else:
            hook["clientConfig"]["service"]["path"] = injection_path(spec)
    address = str(dig(spec, "values", "global", "remotePilotAddress"))
    return [*reader.objects(serves=True), *way(address, revision), config]


def way(address: str, revision: Revision) -> list[Json]:
    """The Service with which the control plane is reached under the same name as in its own cluster."""
    about = meta(revision.istiod, revision, app="istiod", istio="pilot")
    listed: list[Json] = [{"name": n, "port": p, "targetPort": target, "protocol": "TCP"} for n, p, target in PORTS]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": {"ports": listed}}
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return [{**service, "spec": {"ports": listed, "type": "ExternalName", "externalName": address}}]
    there = [{"name": n, "port": target, "protocol": "TCP"} for n, _, target in PORTS]
    subset = {"addresses": [{"ip": address}], "ports": there}
    # Kubernetes mirrors it to an EndpointSlice
    return [service, {"apiVersion": "v1", "kind": "Endpoints", "metadata": about, "subsets": [subset]}]
