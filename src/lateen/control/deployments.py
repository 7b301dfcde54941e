"""Creates the mesh's GatewayClasses, and for each Gateway of these classes a service account, a Service and a
Deployment of proxies, and an autoscaler and a disruption budget if parameters ask for them.

Only the leader does this. The objects are applied (server-side apply), so that a user's own fields stay, and belong to
their Gateway, so that Kubernetes deletes them with it. An object of the same name that belongs to somebody else is left
alone. Source: https://istio.io/latest/docs/tasks/traffic-management/ingress/gateway-api/.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from lateen.api import kinds
from lateen.control import gateway_classes
from lateen.inject import deployment
from lateen.inject.deployment import CLASS_DEFAULTS, BadParameters, Unusable
from lateen.inject.pods import Settings
from lateen.kit import tasks
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError, Unreachable
from lateen.kube.informer import Informer, Key
from lateen.mesh.dialects.gateway_api.listeners import CONTROLLER
from lateen.wire.revision import Revision

log = logging.getLogger("lateen.control.deployments")

FIELD_MANAGER = "istio.io/gateway-controller"
AGAIN_S, LONGEST_S = 2.0, 60.0
"""Seconds until a refused Gateway is tried again, doubled by each further refusal, and the most."""
Ports = tuple[tuple[str, int, str], ...]
"""(name, port, protocol) of listeners"""
Place = tuple[kinds.Kind, Key]
_ON_DEMAND = (kinds.AUTOSCALER, kinds.POD_DISRUPTION_BUDGET)
_KINDS = {k.kind: k for k in (kinds.SERVICE_ACCOUNT, kinds.SERVICE, kinds.DEPLOYMENT, kinds.ROLE_BINDING, *_ON_DEMAND)}


class Istiod(NamedTuple):
    """The service account that may read Gateways' Secrets."""

    namespace: str
    account: str
    role: str
    """See ``deployment.reader``."""
    revision: Revision = Revision()


class Injector(Protocol):
    def settings(self, pod: Json, namespace: str) -> Settings: ...


class Deployments:
    """``changed`` reports changes; ``run`` creates what is missing; ``problems`` has what could not be created."""

    def __init__(
        self,
        client: Client,
        injector: Injector,
        istiod: Istiod,
        ours: Callable[[Json], bool],
        leads: Callable[[], bool],
        deploys: bool = True,
    ) -> None:
        """``ours``: whether this revision serves an object; ``leads``: whether this istiod is the leader;
        ``deploys``: whether it creates more than classes."""
        self._client, self._injector, self._istiod = client, injector, istiod
        self._ours, self._leads, self._deploys = ours, leads, deploys
        self._gateways: dict[Key, Json] = {}
        self._sharing: dict[Place, Json] = {}
        """Objects for which istiod needs to read Secrets in their namespaces: ReferenceGrants that permit Gateways in
        other namespaces to use Secrets, and ListenerSets that name some."""
        self._added: Mapping[Key, Ports] = {}
        """The ports that ListenerSets add to Gateways."""
        self._classes: dict[str, str] = {}
        """Name -> controller."""
        self._maps: dict[Key, Json] = {}
        self._applied: dict[Key, list[Json]] = {}
        self._retries: dict[Key, tuple[int, asyncio.TimerHandle]] = {}
        """How often the API has refused a Gateway's objects in a row, and what will try again."""
        self._due: set[Key] = set()
        self._due_sharing: set[Place] = set()
        self._dirty = asyncio.Event()
        self._informer = Informer(
            client, kinds.DEPLOYMENT, self.changed, labels=f"{deployment.MANAGED}={deployment.MANAGER}"
        )
        self.problems: dict[Key, tuple[str, str]] = {}
        """By Gateway: (reason, sentence)"""
        self.told: Callable[[Key], None] = lambda _: None
        """Called with a Gateway whose problem has changed."""
        self._follows: dict[kinds.Kind, Callable[[Key, Json | None, Json | None], None]] = {
            kinds.KUBERNETES_GATEWAY: lambda key, _, new: self._gateway(key, new),
            kinds.REFERENCE_GRANT: lambda key, _, new: self._grant(key, new),
            kinds.GATEWAY_CLASS: lambda key, _, new: self._class(key[1], new),
            kinds.LISTENER_SET: lambda key, _, new: self._listener_set(key, new),
            kinds.CONFIG_MAP: self._config_map,
            kinds.SERVICE: self._made,
            kinds.DEPLOYMENT: self._made,
        }

    # --- changes --------------------------------------------------------------------------------------------

    def changed(self, kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        """An informer's event."""
        if (follow := self._follows.get(kind)) is not None:
            follow(key, old, new)

    def _gateway(self, key: Key, new: Json | None) -> None:
        before = self._gateways.pop(key, None)
        if new is None:
            self._applied.pop(key, None)
            self.problems.pop(key, None)
            self._settled(key)
            return
        self._gateways[key] = new
        if before is None or _substance(before) != _substance(new):
            self._mark([key])

    def _grant(self, key: Key, new: Json | None) -> None:
        self._shares((kinds.REFERENCE_GRANT, key), new if new and deployment.shares_secrets(new) else None)

    def _listener_set(self, key: Key, new: Json | None) -> None:
        self._shares((kinds.LISTENER_SET, key), new if new and deployment.reads_secrets(new["spec"]) else None)

    def _shares(self, place: Place, obj: Json | None) -> None:
        self._sharing.pop(place, None)
        if obj is not None:
            self._sharing[place] = obj
            self._due_sharing.add(place)
            self._dirty.set()

    def listeners(self, added: Mapping[Key, Ports]) -> None:
        """Set the ports that ListenerSets add to Gateways. ``added`` is replaced, never modified."""
        if added is not self._added:
            keys = added.keys() | self._added.keys()
            differing = [k for k in keys if added.get(k, ()) != self._added.get(k, ())]
            self._added = added
            self._mark(differing)

    def _class(self, name: str, new: Json | None) -> None:
        self._classes.pop(name, None)
        if new is not None:
            self._classes[name] = str(dig(new, "spec", "controllerName", default=""))
        else:
            self._dirty.set()
        self._mark(k for k, g in self._gateways.items() if dig(g, "spec", "gatewayClassName") == name)

    def _config_map(self, key: Key, old: Json | None, new: Json | None) -> None:
        """Parameters of Gateways, and the settings of all proxies, which are in the root namespace."""
        self._maps.pop(key, None)
        if new is not None:
            self._maps[key] = new
        if old is not None and new is not None and old.get("data") == new.get("data"):
            return
        everywhere = key[0] == self._istiod.namespace
        self._mark(k for k, g in self._gateways.items() if everywhere or _parameters(g) == key)

    def _made(self, key: Key, old: Json | None, new: Json | None) -> None:
        """Recreate what somebody has deleted or changed."""
        if old is None or (new is not None and old.get("spec") == new.get("spec")):
            return
        if name := dig(old, "metadata", "labels", deployment.GATEWAY_NAME):
            of = (key[0], str(name))
            self._applied.pop(of, None)
            self._mark([of])

    def moved(self, namespaces: frozenset[str]) -> None:
        """Called with namespaces that have joined or left the mesh: there are no events for their Gateways."""
        self._mark([key for key in self._gateways if key[0] in namespaces])

    def everything(self) -> None:
        """Called when this istiod has become the leader."""
        self._applied.clear()
        self._mark(self._gateways)
        self._due_sharing |= self._sharing.keys()
        self._dirty.set()

    def _mark(self, keys: Iterator[Key] | dict[Key, Json] | list[Key]) -> None:
        self._due |= {k for k in keys if k in self._gateways}
        if self._due:
            self._dirty.set()

    # --- reconciliation --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Never returns."""
        watching = tasks.spawn(self._informer.run(), "informer deployments") if self._deploys else None
        try:
            while True:
                await self._dirty.wait()
                self._dirty.clear()
                due, self._due = self._due, set()
                sharing, self._due_sharing = self._due_sharing, set()
                if not self._leads():
                    continue  # a new leader looks at everything
                await self.classify()
                if not self._deploys:
                    continue
                for key in sorted(due):
                    await self.reconcile(key)
                for place in sorted(sharing & self._sharing.keys(), key=lambda p: (p[0].kind, p[1])):
                    await self.show(place)
        finally:
            await tasks.cancel(watching)

    async def classify(self) -> None:
        """Create the mesh's own classes if they are missing."""
        missing = gateway_classes.CLASSES.keys() - self._classes.keys()
        made = [await gateway_classes.create(self._client, name) for name in sorted(missing)]
        if not all(made):
            asyncio.get_running_loop().call_later(AGAIN_S, self._dirty.set)

    async def reconcile(self, key: Key) -> None:
        """Apply a Gateway's objects if they differ from what was applied last."""
        gateway = self._gateways.get(key)
        if gateway is None or not self._serves(gateway):
            self._problem(key, "")
            self._settled(key)
            return
        try:
            more = [{"name": n, "port": p, "protocol": protocol} for n, p, protocol in self._added.get(key, ())]
            settings = self._injector.settings(gateway, key[0])
            wanted = deployment.objects(gateway, settings, self._parameters(gateway), more)
            if deployment.reads_secrets(gateway["spec"]):
                wanted.append(
                    self._reading(kinds.KUBERNETES_GATEWAY, gateway, f"{deployment.name_of(gateway)}-secrets")
                )
            if wanted != self._applied.get(key):
                await self._apply(gateway, wanted)
                self._applied[key] = wanted
            self._problem(key, "")
            self._settled(key)
        except ValueError as e:  # the Gateway itself is at fault: retry when it changes
            self._problem(key, str(e), "InvalidParameters" if isinstance(e, BadParameters) else "Invalid")
            self._settled(key)
        except (KubeError, Unreachable) as e:
            self._problem(key, f"its proxies cannot be deployed: {e}")
            self._retry(key)
        except Exception as e:  # a mistake of ours about one Gateway must not keep the others from their proxies
            log.exception("%s/%s cannot be deployed", *key)
            self._problem(key, f"its proxies cannot be deployed: {type(e).__name__}: {e}")

    def _retry(self, key: Key) -> None:
        """Later, once: a Gateway that changes while it waits is tried at once, and does not wait twice."""
        refusals, timer = self._retries.get(key, (0, None))
        if timer is not None:
            timer.cancel()
        wait = min(AGAIN_S * 2 ** min(refusals, 10), LONGEST_S)
        self._retries[key] = refusals + 1, asyncio.get_running_loop().call_later(wait, self._mark, [key])

    def _settled(self, key: Key) -> None:
        if (waiting := self._retries.pop(key, None)) is not None:
            waiting[1].cancel()

    async def show(self, place: Place) -> None:
        """Let istiod read the Secrets that a ReferenceGrant covers, or that a ListenerSet names."""
        kind, key = place
        try:
            suffix = "istiod-secrets" if kind is kinds.REFERENCE_GRANT else "listeners-secrets"
            wanted = self._reading(kind, self._sharing[place], f"{key[1]}-{suffix}")
            await self._client.apply(kinds.ROLE_BINDING, wanted, FIELD_MANAGER)
        except (KubeError, Unreachable) as e:
            log.warning("%s %s/%s: istiod cannot be granted access to its Secrets: %s", kind.kind, *key, e)
            self._due_sharing.add(place)
            asyncio.get_running_loop().call_later(AGAIN_S, self._dirty.set)

    def _reading(self, kind: kinds.Kind, owner: Json, name: str) -> Json:
        typed = {**owner, "apiVersion": kind.api_version, "kind": kind.kind}
        root, account, role, _ = self._istiod
        return deployment.reading_secrets(typed, name, role, account, root)

    def _serves(self, gateway: Json) -> bool:
        controller = self._classes.get(str(dig(gateway, "spec", "gatewayClassName", default="")))
        alive = not dig(gateway, "metadata", "deletionTimestamp")
        return controller == CONTROLLER and alive and deployment.is_managed(gateway["spec"]) and self._ours(gateway)

    def _parameters(self, gateway: Json) -> list[Json]:
        """The class's, then the Gateway's own on top. Raises Unusable."""
        name = str(dig(gateway, "spec", "gatewayClassName", default=""))
        found = []
        for (namespace, _), m in sorted(self._maps.items()):
            labels = dig(m, "metadata", "labels", default={})
            here = namespace == self._istiod.namespace and self._istiod.revision.owns(labels)
            if here and labels.get(CLASS_DEFAULTS) == name:
                found.append(dict(m.get("data") or {}))
        ref = dig(gateway, "spec", "infrastructure", "parametersRef")
        if ref is None:
            return found
        if ref.get("group") not in ("", None) or ref.get("kind") != "ConfigMap":
            raise BadParameters(f"parametersRef must name a ConfigMap, not {ref.get('group')}/{ref.get('kind')}")
        own = self._maps.get(_parameters(gateway))
        if own is None:
            raise BadParameters(f'there is no ConfigMap "{ref.get("name")}" in {gateway["metadata"]["namespace"]}')
        return [*found, dict(own.get("data") or {})]

    async def _apply(self, gateway: Json, wanted: list[Json]) -> None:
        """Raises KubeError, Unreachable, and Unusable if a name is taken."""
        mine = []
        for obj in wanted:
            kind, meta = _KINDS[obj["kind"]], obj["metadata"]
            found = await self._client.get(kind, meta["namespace"], meta["name"])
            if found is None or _belongs(found, gateway):
                mine.append((kind, obj))
            elif kind is not kinds.SERVICE_ACCOUNT:  # proxies may use the user's own account
                raise Unusable(
                    f"the {kind.kind} {meta['name']} exists and does not belong to this Gateway; delete it, or "
                    f"choose another name with the annotation {deployment.NAME_OVERRIDE}"
                )
        for kind, obj in mine:
            await self._client.apply(kind, obj, FIELD_MANAGER)
        made = {obj["kind"] for obj in wanted}
        for kind in (k for k in _ON_DEMAND if k.kind not in made):
            await self._withdraw(kind, gateway)
        log.info("%s/%s: deployed as %s", *_key(gateway), deployment.name_of(gateway))

    async def _withdraw(self, kind: kinds.Kind, gateway: Json) -> None:
        """Delete what the parameters no longer ask for. Raises KubeError, Unreachable."""
        at = gateway["metadata"]["namespace"], deployment.name_of(gateway)
        try:
            found = await self._client.get(kind, *at)
        except KubeError as e:
            if e.code != 403:  # with the rights of an earlier installation, there is nothing to delete
                raise
            return
        if found is not None and _belongs(found, gateway):
            await self._client.delete(kind, *at)

    def _problem(self, key: Key, says: str, reason: str = "Invalid") -> None:
        if self.problems.get(key, ("", ""))[1] == says:
            return
        self.problems.pop(key, None)
        if says:
            self.problems[key] = (reason, says)
            log.warning("Gateway %s/%s: %s", *key, says)
        self.told(key)


def _key(obj: Json) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _substance(gateway: Json) -> object:
    meta = gateway["metadata"]
    return meta.get("uid"), meta.get("labels"), meta.get("annotations"), meta.get("deletionTimestamp"), gateway["spec"]


def _parameters(gateway: Json) -> Key:
    name = dig(gateway, "spec", "infrastructure", "parametersRef", "name", default="")
    return gateway["metadata"]["namespace"], str(name)


def _belongs(obj: Json, gateway: Json) -> bool:
    owners = dig(obj, "metadata", "ownerReferences", default=[])
    return any(o.get("uid") == gateway["metadata"]["uid"] for o in owners)
