"""istiod's debug pages: Istio's, as far as they apply to Lateen, and those that the ``lateen`` command reads.

They are served on the monitoring port (``/debug/NAME``) and over xDS (``istio.io/debug``). Source: istio.io/istio,
``pilot/pkg/xds/debug.go``; https://istio.io/latest/docs/ops/configuration/security/security-best-practices/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from google.protobuf import json_format

from lateen import __version__
from lateen.ads.debug import NotAnswered
from lateen.ads.peers import Connection
from lateen.ads.rpc import Status
from lateen.api import kinds
from lateen.ca.authority import parse
from lateen.control import dumps, registryz
from lateen.control.plane import Control
from lateen.control.reach import Reach, reach
from lateen.control.roots import Roots
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json
from lateen.mesh.workloads import BOTH
from lateen.wire import names
from lateen.wire.node import ISTIO_VERSION
from lateen.xds import pb

Query = Mapping[str, str]

OF_ONE_PROXY = frozenset({"config_dump", "ecdsz", "edsz", "ndsz"})
"""Pages that workloads may request, limited to proxies of their own namespace."""
NOT_CONNECTED = "Proxy not connected to this Pilot instance. It may be connected to another instance.\n"
"""istioctl looks for this sentence, and for the two below."""
NO_PROXY_ID = "You must provide a proxyID in the query string\n"
NO_PAGE = "404 page not found\n"

ABSENT = {
    "ambientz": "there is no ambient mode",
    "cachez": "there are no resource caches: derived resources are stored with their object and freed with it",
    "force_disconnect": "it would let anybody with access to this port disconnect proxies; delete the pod instead",
    "inject": "templates are part of istiod; those of the user are in the ConfigMap istio-sidecar-injector",
    "krtz": "it shows the collections that Istio's registries consist of",
    "mcsz": "ServiceExports and ServiceImports are not read",
    "pprof": "it shows Go's profiles; see lateen_* and process_* in /metrics",
    "pushcontext": "each proxy has its own view; use config_dump or versionsz with a proxyID",
    "sidecarz": "use versionsz with a proxyID: it lists what the proxy sees through its Sidecar",
}
"""Istio's pages that do not exist here, and why."""


class PageError(Exception):
    """A page that cannot be served: HTTP status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text.strip())
        self.status, self.text = status, text


class Forbidden(PageError):
    """The caller may not see the page."""

    def __init__(self, text: str) -> None:
        super().__init__(403, text)


@dataclass(frozen=True)
class Caller:
    """The client: a workload's namespace, or anybody inside istiod's own pod (``everything``)."""

    namespace: str = ""
    everything: bool = False


INSIDE = Caller(everything=True)
"""Clients on the loopback interface of istiod's pod, by exec or port-forward, which Kubernetes authorizes."""


class Debug:
    def __init__(self, control: Control, roots: Roots) -> None:
        self._control, self._roots = control, roots
        self._pages: dict[str, Callable[[Query, Caller], Any]] = {
            "adsz": self._adsz,
            "caz": lambda _q, _c: self._roots.status(),
            "authorizationz": lambda _q, _c: self._objects(kinds.AUTHORIZATION_POLICY),
            "clusterz": self._clusterz,
            "config_dump": self._config_dump,
            "configz": lambda _q, _c: [o for k in kinds.owned() for o in self._objects(k)],
            "connections": self._connections,
            "distribution": self._distribution,
            "ecdsz": lambda q, c: self._resources(q, c, "ECDS"),
            "edsz": lambda q, c: self._resources(q, c, "EDS"),
            "endpointShardz": self._endpointz,
            "endpointz": self._endpointz,
            "instancesz": self._instancesz,
            "list": lambda _q, _c: sorted(set(self._pages) - {"list"}),
            "mesh": self._mesh,
            "networkz": self._networkz,
            "ndsz": self._ndsz,
            "push_status": self._push_status,
            "registryz": lambda _q, _c: registryz.services(self._control.mesh(), self._cluster),
            "resourcesz": lambda _q, _c: [f"{k.api_version}/{k.kind}" for k in kinds.watched()],
            "statusz": self._statusz,
            "syncz": self._syncz,
            "telemetryz": lambda _q, _c: self._objects(kinds.TELEMETRY),
            "versionsz": self._versionsz,
        }

    def caller(self, identity: str) -> Caller:
        """The permissions of a SPIFFE ID. Raises NotAnswered if it is invalid, or of another mesh."""
        try:
            who = parse(identity)
        except ValueError:
            raise NotAnswered(Status.UNAUTHENTICATED, "authentication required") from None
        if not self._control.is_own(who.trust_domain):
            raise NotAnswered(Status.PERMISSION_DENIED, f"{who.trust_domain} is no trust domain of this mesh")
        return Caller(who.namespace, who.namespace == self._control.namespace)

    def page(self, name: str, query: Query, caller: Caller) -> Any:
        """A page's content, as JSON. Raises PageError."""
        if why := ABSENT.get(name.partition("/")[0]):
            raise PageError(404, f"{name} is not available: {why}\n")
        if name not in self._pages:
            raise PageError(404, NO_PAGE)
        if not caller.everything and name not in OF_ONE_PROXY:
            raise Forbidden(f"the debug info is not available for workloads of namespace {caller.namespace}")
        return self._pages[name](query, caller)

    @property
    def _cluster(self) -> str:
        return self._control.world.cluster.name

    async def answer(self, identity: str, type_url: str, wanted: Sequence[str]) -> list[Any]:
        """Answer a request over xDS (see ``ads.debug``)."""
        caller = self.caller(identity)
        match type_url:
            case "istio.io/debug/syncz":
                return [pb.any_of(dumps.client_config(c, self._cluster)) for c in self._visible(caller)]
            case "istio.io/debug/config_dump":
                found = self._connection(wanted[0], caller) if len(wanted) == 1 else None
                return dumps.config_dump(found) if found else []
            case names.DEBUG if len(wanted) == 1:
                return [dumps.raw(names.DEBUG, self._text(wanted[0], caller))]
            case names.DEBUG:
                raise NotAnswered(Status.INVALID_ARGUMENT, "exactly one debug request is required")
        raise NotAnswered(Status.INVALID_ARGUMENT, f"{type_url} is not served; request list of {names.DEBUG}")

    def _text(self, path: str, caller: Caller) -> bytes:
        url = urlsplit(path)
        try:
            return jsons.dumps(self.page(url.path, dict(parse_qsl(url.query, keep_blank_values=True)), caller))
        except Forbidden as e:
            raise NotAnswered(Status.PERMISSION_DENIED, str(e)) from None
        except PageError as e:  # istioctl reads the error from the body
            return e.text.encode()

    # --- connected proxies -----------------------------------------------------------------------------------

    def _visible(self, caller: Caller) -> list[Connection]:
        every = sorted(self._control.ads.connections, key=lambda c: str(c.node))
        return [c for c in every if caller.everything or c.node.namespace == caller.namespace]

    def _connection(self, proxy: str, caller: Caller, exactly: bool = False) -> Connection | None:
        """By ``pod.namespace``, or by any part of it that names one proxy."""
        found = [c for c in self._visible(caller) if proxy in dumps.proxy_name(c)]
        single = found[0] if len(found) == 1 and not exactly else None
        return next((c for c in found if dumps.proxy_name(c) == proxy), single)

    def _asked(self, query: Query, caller: Caller) -> Connection:
        proxy = query.get("proxyID", "")
        if not proxy:
            raise PageError(400, NO_PROXY_ID)
        found = self._connection(proxy, caller, exactly="exactly" in query)
        if found is None:
            raise PageError(404, NOT_CONNECTED)
        return found

    def _syncz(self, query: Query, caller: Caller) -> Json | list[Json]:
        wanted = query.get("namespace", "")
        return [_sync(c, self._cluster) for c in self._visible(caller) if not wanted or c.node.namespace == wanted]

    def _config_dump(self, query: Query, caller: Caller) -> Json:
        if "types" in query:
            return self._resources(query, caller, query["types"])
        found = dumps.config_dump(self._asked(query, caller), "include_eds" in query)
        return {"configs": [json_format.MessageToDict(m, preserving_proto_field_name=True) for m in found]}

    def _resources(self, query: Query, caller: Caller, types: str) -> Json:
        found = self._asked(query, caller)
        wanted = {t.strip().upper() for t in types.split(",")}
        out = [m for t, short in names.SHORT.items() if short in wanted for m in dumps.resources(found, t)]
        return {"configs": [json_format.MessageToDict(m, preserving_proto_field_name=True) for m in out]}

    def _ndsz(self, query: Query, caller: Caller) -> Json:
        return {"table": self._control.views.names(self._asked(query, caller).node.namespace, BOTH)}

    def _connections(self, _: Query, caller: Caller) -> Json:
        found = self._visible(caller)
        return {"totalClients": len(found), "clients": [_client(c) for c in found]}

    def _adsz(self, query: Query, caller: Caller) -> Json:
        if query.get("push"):
            says = "push is not available: every change is sent to proxies at once, and again after a rejection\n"
            raise PageError(400, says)
        found = [self._asked(query, caller)] if query.get("proxyID") else self._visible(caller)
        clients = []
        for c in found:
            watches = {t: list(c.session.names(t)) for t in c.session.subscribed()}
            clients.append({**_client(c), "metadata": dict(c.metadata), "watches": watches})
        return {"totalClients": len(found), "clients": clients}

    def _versionsz(self, query: Query, caller: Caller) -> Json:
        """Names and versions of the resources that a proxy should have, and its subscriptions."""
        session = self._asked(query, caller).session
        resources = {
            names.SHORT[t]: {n: r.version for s in sets for n, r in s.resources.items()}
            for t, sets in session.sets().items()
        }
        return {"resources": resources, "subscribed": {names.SHORT[t]: session.names(t) for t in names.ORDER}}

    def _instancesz(self, _: Query, caller: Caller) -> dict[str, list[Json]]:
        """The services of each connected proxy."""
        mesh, out = self._control.mesh(), {}
        for c in self._visible(caller):
            pod = mesh.objects.pods.get((c.node.namespace, c.node.pod))
            found = mesh.services_of(pod) if pod else []
            ports = [(s, p, p.target) for s in found for p in s.ports] + (mesh.entries_of(pod) if pod else [])
            out[dumps.proxy_name(c)] = [
                {"hostname": s.host, "port": p.port, "name": p.name, "targetPort": target} for s, p, target in ports
            ]
        return out

    def _push_status(self, _: Query, caller: Caller) -> Json:
        """Resources rejected by proxies, under the name of Istio's counter."""
        refused = [(dumps.proxy_name(c), r) for c in self._visible(caller) for r in c.session.rejections.values()]
        found = [{"proxy": proxy, "message": r.message} for proxy, r in refused]
        return {"ProxyStatus": {"pilot_total_xds_rejects": found}}

    # --- the mesh --------------------------------------------------------------------------------------------

    def _objects(self, kind: kinds.Kind) -> list[Json]:
        found = self._control.world.objects.of(kind)
        out = []
        for (namespace, name), r in sorted(found.items()):
            meta = {"name": name, "namespace": namespace}
            out.append(
                {
                    "apiVersion": kind.api_version,
                    "kind": kind.kind,
                    "metadata": meta,
                    "spec": msgspec.to_builtins(r.spec, enc_hook=str),
                }
            )
        return out

    def _endpointz(self, _query: Query, _caller: Caller) -> list[Json]:
        out = []
        for (namespace, name), (service, ports) in sorted(self._control.world.objects.slices.items()):
            endpoints = {port: msgspec.to_builtins(found, enc_hook=str) for port, found in ports.items()}
            out.append({"slice": f"{namespace}/{name}", "service": f"{namespace}/{service}", "endpoints": endpoints})
        return out

    def _clusterz(self, _query: Query, _caller: Caller) -> list[Json]:
        own = {"id": self._cluster, "secretName": "", "syncStatus": "synced"}
        return [own, *self._control.world.clusters.describe()]

    def _networkz(self, _query: Query, _caller: Caller) -> list[Json]:
        """The gateways to other networks."""
        found = self._control.mesh().network_gateways()
        return [{"network": n, "addr": a, "port": p} for n, places in found.items() for a, p in places]

    def _mesh(self, _query: Query, _caller: Caller) -> Json:
        """The mesh configuration in use."""
        text = self._control.world.mesh_config.accepted
        return (yamldoc.load(text) if text else None) or {}

    # --- for the lateen command -----------------------------------------------------------------------

    def _statusz(self, _query: Query, _caller: Caller) -> Json:
        control = self._control
        return {
            "proxies": control.status(),
            "bad": {str(ref): says for ref, says in control.world.bad.items()},
            "unreadSecrets": sorted(control.credentials.refused),
            "version": __version__,
            "revision": control.revision.name,
        }

    def _distribution(self, query: Query, _: Caller) -> Json:
        """For ``object`` (``Kind namespace/name``): how many of this istiod's affected proxies have it."""
        far = reach(self._control.ads.connections).get(query.get("object", ""), Reach())
        refused = [{"proxy": p, "says": says} for p, says in far.refused]
        return {"have": far.have, "concerned": far.concerned, "refused": refused}


def _client(c: Connection) -> Json:
    return {
        "connectionId": str(c.node),
        "connectedAt": dumps.rfc3339(c.connected_at),
        "address": c.node.address,
    }


def _sync(c: Connection, ours: str) -> Json:
    """Istio's SyncStatus. ``ours``: the name of istiod's cluster."""
    out: Json = {
        "cluster_id": dumps.cluster_name(c, ours),
        "proxy": dumps.proxy_name(c),
        "proxy_type": c.node.kind,
        "proxy_version": c.version,
        "istio_version": c.metadata.get("ISTIO_VERSION") or ISTIO_VERSION,
        "resources": {},
    }
    for type_url in c.session.subscribed():
        one: Json = {"sent": c.session.nonces(type_url)[0], "acked": c.session.nonces(type_url)[1]}
        if type_url in c.sent_at:
            one["sentTime"] = dumps.rfc3339(c.sent_at[type_url])
        if type_url in c.session.rejections:
            one["lastError"] = c.session.rejections[type_url].message
        out["resources"][type_url] = one
        if field := _FIELDS.get(type_url):
            out[f"{field}_sent"], out[f"{field}_acked"] = one["sent"], one["acked"]
    return out


_FIELDS = {
    names.CDS: "cluster",
    names.LDS: "listener",
    names.RDS: "route",
    names.EDS: "endpoint",
    names.ECDS: "extensionconfig",
}
