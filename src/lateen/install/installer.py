"""Applies an installation to a cluster, and removes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from lateen.api import crds, kinds
from lateen.install import reader, webhooks
from lateen.install.manifests import Part
from lateen.install.objects import NAMESPACE
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig
from lateen.kube.apply import apply, kind_of, wait_available
from lateen.kube.client import Client
from lateen.wire.revision import COMPONENT, DEFAULT, LABEL, OWNER, TAG_LABEL, Revision

Step = Callable[[str], AbstractContextManager[None]]
Key = tuple[str, str, str]
"""(kind, namespace, name)"""

SHARED = (kinds.CRD, kinds.NAMESPACE)
"""Kinds that all revisions share, or that hold users' objects."""
OF_DEPLOYMENTS = (kinds.AUTOSCALER, kinds.POD_DISRUPTION_BUDGET)
"""What has the name of a Deployment, and goes when the settings no longer ask for it."""
OWN = (
    kinds.CONFIG_MAP,
    kinds.SERVICE_ACCOUNT,
    kinds.ROLE,
    kinds.ROLE_BINDING,
    kinds.CLUSTER_ROLE,
    kinds.CLUSTER_ROLE_BINDING,
    kinds.SERVICE,
    kinds.DEPLOYMENT,
    kinds.DAEMON_SET,
    kinds.NETWORK_POLICY,
    *OF_DEPLOYMENTS,
)
"""Kinds of which each revision has objects of its own, in whatever namespace."""
GATEWAYS = ("IngressGateways", "EgressGateways")
"""Istio's names of the components that are gateways."""
LEAVING = "lateen.dev/leaving"
"""The annotation of an installation's record with the objects that are still to be removed (JSON): an attempt that
fails before that has replaced the settings that they can be told by."""
HOOKS = (kinds.MUTATING_WEBHOOK, kinds.VALIDATING_WEBHOOK)


async def install(
    client: Client, parts: list[Part], step: Step, limit_s: float = 120.0, before: Sequence[Part] = ()
) -> list[str]:
    """Apply the parts in order and wait for each; returns what the user should know about definitions that stay as
    they are. ``before``: the parts of the installation that this one replaces; what its objects have been given and
    are no longer is taken away, and objects that are no longer asked for are deleted, as by istioctl, also those that
    an attempt that has failed was to delete. Raises KubeError, TimeoutError."""
    kept: dict[str, list[str]] = {}
    was, record = _by_name(before), _record(parts)
    leaving = dropped([await _left_over(client, record), *before], parts)
    for part in parts:
        with step(f"{part.title} installed"):
            await _delete_obsolete(client, part)
            for obj in part.objects:
                why = await _stays(client, obj)
                if why is None:
                    wanted = _noting(leaving, obj) if leaving and obj is record else obj
                    await apply(client, wanted, _replaced(obj, was))
                elif why:
                    kept.setdefault(why, []).append(str(dig(obj, "spec", "names", "kind")))
            for namespace in dict.fromkeys(ns for ns, _ in part.deployments):
                names = [name for ns, name in part.deployments if ns == namespace]
                await wait_available(client, namespace, names, limit_s)
            for namespace, name in part.daemons:
                await wait_available(client, namespace, [name], limit_s, kinds.DAEMON_SET)
    if leaving:
        with step(f"{', '.join(workloads(leaving)) or 'Objects that are no longer asked for'} removed"):
            await _delete(client, leaving)
            if record is not None:
                done = {"metadata": {"annotations": {LEAVING: None}}}
                await client.patch(kinds.CONFIG_MAP, *_key(record)[1:], done)
    return [f"the cluster's CRDs {', '.join(names)} are left unchanged: {why}" for why, names in kept.items()]


async def absent_namespaces(client: Client, parts: Iterable[Part]) -> list[str]:
    """The namespaces that objects are to be put into, and that neither exist nor are among the objects."""
    objects = [o for part in parts for o in part.objects]
    made = {o["metadata"]["name"] for o in objects if o["kind"] == "Namespace"}
    named = dict.fromkeys(n for o in objects if (n := o["metadata"].get("namespace")) and n not in made)
    return [n for n in named if await client.get(kinds.NAMESPACE, "", n) is None]


def dropped(before: Iterable[Part], now: Iterable[Part]) -> list[Json]:
    """The objects of the installation before that are not part of the new one, in the order in which they go; never
    definitions and namespaces, which hold users' objects."""
    was, still = _by_name(before), _by_name(now)
    return [o for key, o in reversed(was.items()) if key not in still and kind_of(o) not in SHARED]


def workloads(objects: Iterable[Json]) -> list[str]:
    """``Deployment istio-system/istio-egressgateway`` for each that runs pods."""
    return [" ".join((k, f"{ns}/{n}")) for k, ns, n in map(_key, objects) if k in ("Deployment", "DaemonSet")]


def _record(parts: Iterable[Part]) -> Json | None:
    """The ConfigMap with the settings of the installation; None of gateways beside one."""
    for obj in (o for part in parts for o in part.objects if o["kind"] == "ConfigMap"):
        if obj["metadata"]["name"] == Revision(obj["metadata"]["labels"][LABEL]).installation:
            return obj
    return None


def _noting(leaving: Iterable[Json], record: Json) -> Json:
    named = [
        {
            "apiVersion": o["apiVersion"],
            "kind": o["kind"],
            "metadata": {k: v for k, v in o["metadata"].items() if k in ("name", "namespace", "labels")},
        }
        for o in leaving
    ]
    annotations = {**record["metadata"].get("annotations", {}), LEAVING: jsons.dumps(named).decode()}
    return {**record, "metadata": {**record["metadata"], "annotations": annotations}}


async def _left_over(client: Client, record: Json | None) -> Part:
    """What earlier attempts have not come to remove."""
    found = await client.get(kinds.CONFIG_MAP, *_key(record)[1:]) if record is not None else None
    note = dig(found, "metadata", "annotations", LEAVING)
    return Part("Left over", tuple(o for o in jsons.loads(note) if kinds.of(o)) if note else ())


async def _delete(client: Client, objects: Iterable[Json]) -> None:
    """Delete objects that are still those of their revision and component. The right to read a namespace's Secrets
    stays as long as a gateway is there, which another installation may have put beside this one's."""
    for obj in objects:
        kind, (_, namespace, name), own = kind_of(obj), _key(obj), obj["metadata"]["labels"]
        labels = dig(await client.get(kind, namespace, name), "metadata", "labels", default={})
        if not own.get(LABEL) or any(labels.get(key) != own[key] for key in (LABEL, COMPONENT)):
            continue
        if kind in (kinds.ROLE, kinds.ROLE_BINDING) and own[COMPONENT] in GATEWAYS:
            left, _ = await client.list(kinds.DEPLOYMENT, namespace, labels=f"{COMPONENT} in ({','.join(GATEWAYS)})")
            if left:
                continue
        await client.delete(kind, namespace, name)


async def _delete_obsolete(client: Client, part: Part) -> None:
    """Delete the autoscalers and budgets of the part's Deployments that its settings no longer ask for, if they are of
    its revision: before the Deployments get their replicas, which an autoscaler would set back."""
    now = _by_name([part])
    for workload in (o for o in part.objects if o["kind"] == "Deployment"):
        _, namespace, name = _key(workload)
        for kind in OF_DEPLOYMENTS:
            if (kind.kind, namespace, name) in now:
                continue
            labels = dig(await client.get(kind, namespace, name), "metadata", "labels", default={})
            if all(labels.get(key) == workload["metadata"]["labels"][key] for key in (LABEL, COMPONENT)):
                await client.delete(kind, namespace, name)


def _by_name(parts: Iterable[Part]) -> dict[Key, Json]:
    return {_key(o): o for part in parts for o in part.objects}


def _key(obj: Json) -> Key:
    return obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _replaced(obj: Json, was: dict[Key, Json]) -> Json | None:
    """What an object was; the number of replicas that is left to an autoscaler now stays what it is."""
    before = was.get(_key(obj))
    if before is None or obj["kind"] != "Deployment":
        return before
    return {**before, "spec": {k: v for k, v in before["spec"].items() if k != "replicas"}}


async def _stays(client: Client, obj: Json) -> str | None:
    """Why a CRD of the Gateway API is left unchanged, empty if that is not worth mentioning; None if the object is to
    be applied. Like the API's own upgrade guard: an older release does not replace a newer one, nor the standard
    channel the experimental one, because fields in use would be lost."""
    if kind_of(obj) is not kinds.CRD or dig(obj, "spec", "group") not in kinds.GATEWAY_APIS:
        return "" if await _is_others(client, obj) else None
    found = await client.get(kinds.CRD, "", obj["metadata"]["name"])
    if found is None:
        return None
    there, mine = crds.bundle(found), crds.bundle(obj)
    newer = there.numbers > mine.numbers
    richer = (there.channel, mine.channel) == ("experimental", "standard")
    if dig(found, "metadata", "labels", crds.OURS):
        return f"they are {there}, and {mine} would remove fields" if newer or richer else None
    older = there.numbers < mine.numbers or (there.channel, mine.channel) == ("standard", "experimental")
    says = f"they were not installed by Lateen: {there}"
    return f"{says}; this version follows {mine}" if older or newer else ""


async def _is_others(client: Client, obj: Json) -> bool:
    """Whether it is a CRD of the Gateway API installed by somebody else, who then decides about its release."""
    if kind_of(obj) is not kinds.CRD or not dig(obj, "metadata", "labels", crds.OURS):
        return False
    found = await client.get(kinds.CRD, "", obj["metadata"]["name"])
    return found is not None and not dig(found, "metadata", "labels", crds.OURS)


async def make_default(client: Client, revision: Revision) -> bool:
    """Make a cluster's first revision the default one; returns whether it was the first."""
    if revision.is_default or await has_default(client):
        return False
    for obj in webhooks.tagged(DEFAULT, revision):
        await apply(client, obj)
    return True


async def has_default(client: Client) -> bool:
    found, _ = await client.list(kinds.MUTATING_WEBHOOK, labels="app=sidecar-injector")
    return any(
        str(dig(c, "metadata", "labels", TAG_LABEL) or dig(c, "metadata", "labels", LABEL, default=DEFAULT)) == DEFAULT
        for c in found
    )


async def labelled(client: Client, revisions: list[Revision]) -> list[Json]:
    """The objects whose labels say that they are part of the revisions, whatever is recorded."""
    out = []
    for revision in revisions:
        chosen = f"{LABEL}={revision.name},{OWNER}={NAMESPACE},{COMPONENT}"
        for kind in OWN:
            found, _ = await client.list(kind, labels=chosen)
            out += [kind.typed(o) for o in found]
    return out


async def uninstall(client: Client, objects: Iterable[Json], revisions: list[Revision], purge: bool) -> int:
    """Delete the revisions' objects, in reverse order; returns how many objects existed.

    A gateway that is now owned by another revision is kept. ``purge`` also deletes the CRDs (and with them all mesh
    objects) and the namespace.
    """
    gone = 0
    for name in revisions:
        gone += await _webhooks(client, name)
    names = {r.name for r in revisions}
    for obj in reversed(list(objects)):
        kind, meta = kind_of(obj), obj["metadata"]
        if kind in SHARED:
            if purge and await _is_others(client, obj):
                continue
            gone += purge and await client.delete(kind, meta.get("namespace", ""), meta["name"])
            continue
        found = await client.get(kind, meta.get("namespace", ""), meta["name"])
        if found is not None and dig(found, "metadata", "labels", LABEL, default=DEFAULT) in names:
            gone += await client.delete(kind, meta.get("namespace", ""), meta["name"])
    if purge:
        return gone + await _readers(client)
    for revision in revisions:  # otherwise deleting the namespace deletes them
        gone += await client.delete(kinds.CONFIG_MAP, NAMESPACE, revision.accepted_config_map)
    return gone


async def _readers(client: Client) -> int:
    """Delete the rights of other clusters' control planes, which are of no revision: the chart ``base`` and
    ``create-remote-secret`` grant them."""
    gone = 0
    for obj in reader.objects():
        kind, name = kind_of(obj), obj["metadata"]["name"]
        if kind in (kinds.CLUSTER_ROLE, kinds.CLUSTER_ROLE_BINDING):
            found = await client.get(kind, "", name)
            if dig(found, "metadata", "labels", "app") == reader.LABELS["app"]:
                gone += await client.delete(kind, "", name)
    return gone


async def _webhooks(client: Client, revision: Revision) -> int:
    """Delete the revision's webhooks and those of its tags: a webhook without its istiod would reject everything."""
    gone = 0
    for kind in HOOKS:
        found, _ = await client.list(kind, labels=f"{LABEL}={revision.name}")
        for config in found:
            if dig(config, "metadata", "labels", "app") in ("sidecar-injector", "istiod"):
                gone += await client.delete(kind, "", config["metadata"]["name"])
    return gone
