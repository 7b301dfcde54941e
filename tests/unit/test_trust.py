"""How roots are published: to every namespace, by every revision, whatever one of them refuses."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from authorities import Mesh, plugged

from lateen.api import kinds
from lateen.ca.signer import PLUGGED
from lateen.control.trust import Reached, Trust
from lateen.kit import certs, tasks, times
from lateen.kube.errors import KubeError
from lateen.wire.revision import Revision


class Failing:
    """A client whose requests to create something in one namespace fail."""

    def __init__(self, client, namespace, code=503):
        self._client, self.namespace, self._code = client, namespace, code

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def create(self, kind, obj):
        if obj["metadata"].get("namespace") == self.namespace:
            raise KubeError(self._code, "", "not there")
        return await self._client.create(kind, obj)


def test_every_namespace_gets_the_roots_and_gets_them_back():
    mesh = Mesh()

    async def work():
        istiod = await mesh.istiod(announce=timedelta(0))
        root = certs.authority("mine", times.now())
        await mesh.put(PLUGGED, plugged(root, now=times.now()))
        await mesh.events(istiod)
        await istiod.advance()
        spaces, _ = await mesh.client.list(kinds.NAMESPACE)
        client = Failing(mesh.client, "default")
        trust = Trust(client, Revision(), lambda: istiod.authority.told, lambda: spaces, istiod.distributed)
        running = tasks.spawn(trust.run(), "trust")
        trust.wake()
        async with asyncio.timeout(20):
            while not istiod.status()["problem"]:
                await asyncio.sleep(0.01)
        assert "namespace default: not there" in istiod.status()["problem"]
        await istiod.advance()
        assert istiod.authority.state.signer.anchor != root.certificate, "proxies of default would refuse it"
        client.namespace = ""
        async with asyncio.timeout(20):
            while istiod.status()["problem"]:
                await asyncio.sleep(0.01)
        await istiod.advance()
        assert istiod.authority.state.signer.anchor == root.certificate
        for n in spaces:
            found = await mesh.client.get(kinds.CONFIG_MAP, n["metadata"]["name"], "istio-ca-root-cert")
            assert set(certs.split(found["data"]["root-cert.pem"])) == set(certs.split(istiod.authority.root))
        trust.wake()
        async with asyncio.timeout(20):
            while trust.altered(("x", "istio-ca-root-cert"), found):
                found = await mesh.client.get(kinds.CONFIG_MAP, "default", "istio-ca-root-cert")
                await asyncio.sleep(0.01)
        assert trust.altered(("x", "istio-ca-root-cert"), None)
        assert not trust.altered(("x", "other"), None)
        running.cancel()
        gone = {"metadata": {"name": "gone"}}
        assert await trust.everywhere([gone]) == Reached(), "a namespace that is gone is not waited for"

    asyncio.run(work())


def test_webhooks_that_somebody_makes_anew_get_the_ca_again():
    """helm upgrade with revisionTags, which moves a tag; kubectl delete and apply of the injector."""
    mesh = Mesh()
    revision = Revision("canary")

    def hook(name, rev):
        labels = {"istio.io/rev": rev, "app": "sidecar-injector", "istio.io/tag": "prod"}
        calls = {"service": {"name": "istiod-canary", "namespace": "istio-system", "path": "/inject"}}
        made = {"name": "a.istio.io", "clientConfig": calls, "sideEffects": "None", "admissionReviewVersions": ["v1"]}
        return {"metadata": {"name": name, "labels": labels}, "webhooks": [made]}

    async def work():
        istiod = await mesh.istiod()
        spaces = None
        trust = Trust(mesh.client, revision, lambda: istiod.authority.told, lambda: spaces, istiod.distributed)
        running = tasks.spawn(trust.watch(), "watch")
        await mesh.client.create(kinds.MUTATING_WEBHOOK, hook("before", "canary"))
        await asyncio.sleep(0.1)
        spaces = []
        for name, rev in (("mine", "canary"), ("theirs", "other")):
            await mesh.client.create(kinds.MUTATING_WEBHOOK, hook(name, rev))

        async def bundle(name):
            found = await mesh.client.get(kinds.MUTATING_WEBHOOK, "", name)
            return found["webhooks"][0]["clientConfig"].get("caBundle")

        async with asyncio.timeout(20):
            while not await bundle("mine"):
                await asyncio.sleep(0.01)
            assert not await bundle("theirs")
            await mesh.client.patch(
                kinds.MUTATING_WEBHOOK, "", "mine", {"webhooks": hook("mine", "canary")["webhooks"]}
            )
            while not await bundle("mine"):
                await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(work())


def test_while_webhooks_cannot_be_written_their_events_do_not_pile_up():
    """A GitOps controller that takes the CA out again and again, and a role that lost the permission."""
    mesh = Mesh()

    async def work():
        istiod = await mesh.istiod()
        trust = Trust(mesh.client, Revision(), lambda: istiod.authority.told, list, istiod.distributed)
        tries = 0

        async def refused():
            nonlocal tries
            tries += 1
            raise KubeError(403, "Forbidden", "no")

        trust.webhooks = refused
        running = tasks.spawn(trust.watch(), "watch")
        calls = {"service": {"name": "istiod", "namespace": "istio-system", "path": "/inject"}}
        made = {"name": "a.istio.io", "clientConfig": calls, "sideEffects": "None", "admissionReviewVersions": ["v1"]}
        labels = {"istio.io/rev": "default", "app": "sidecar-injector"}
        body = {"metadata": {"name": "mine", "labels": labels}, "webhooks": [made]}
        await mesh.client.create(kinds.MUTATING_WEBHOOK, body)
        async with asyncio.timeout(20):
            while not tries:
                await asyncio.sleep(0.01)
        for i in range(20):
            trust._hook(kinds.MUTATING_WEBHOOK, ("", "mine"), None, {**body, "metadata": {**body["metadata"], "n": i}})
        await asyncio.sleep(0)
        assert tries == 1
        running.cancel()

    asyncio.run(work())


def test_a_namespace_that_refuses_the_roots_holds_up_nobody_else():
    """A tenant's immutable ConfigMap (the API's 422), or its quota (403)."""
    mesh = Mesh()

    async def work():
        istiod = await mesh.istiod(announce=timedelta(0))
        old = istiod.authority.state.signer.anchor
        meta = {"name": "istio-ca-root-cert", "namespace": "default"}
        fixed = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"root-cert.pem": old}}
        await mesh.client.create(kinds.CONFIG_MAP, {**fixed, "immutable": True})
        root = certs.authority("mine", times.now())
        await mesh.put(PLUGGED, plugged(root, now=times.now()))
        await mesh.events(istiod)
        await istiod.advance()
        spaces, _ = await mesh.client.list(kinds.NAMESPACE)
        trust = Trust(mesh.client, Revision(), lambda: istiod.authority.told, lambda: spaces, istiod.distributed)
        istiod.distributed(istiod.authority.told, await trust.everywhere(spaces))
        assert "namespace default: " in istiod.status()["problem"]
        assert "immutable" in istiod.status()["problem"]
        await istiod.advance()
        assert istiod.authority.state.signer.anchor == root.certificate
        denied = Failing(mesh.client, "other", 403)
        trust = Trust(
            denied, Revision(), lambda: istiod.authority.told, lambda: spaces, istiod.distributed, own="other"
        )
        found = await trust.namespace({"metadata": {"name": "other"}})
        assert found == Reached(), "it is gone"
        denied.namespace = "kube-public"
        trust = Trust(denied, Revision(), lambda: istiod.authority.told, lambda: spaces, istiod.distributed)
        await mesh.client.create(kinds.NAMESPACE, {"metadata": {"name": "kube-public"}})
        assert (await trust.namespace({"metadata": {"name": "kube-public"}})).refused
        trust = Trust(
            denied, Revision(), lambda: istiod.authority.told, lambda: spaces, istiod.distributed, own="kube-public"
        )
        assert (await trust.namespace({"metadata": {"name": "kube-public"}})).problem, "istiod itself may not write"

    asyncio.run(work())


def test_each_revision_tells_its_own_namespaces():
    """Two that trust different roots of others would overwrite each other's for ever."""
    mesh = Mesh()

    async def work():
        istiod = await mesh.istiod()
        common = istiod.authority.told
        others = {r: certs.authority(r, times.now()).certificate for r in ("default", "canary")}
        spaces = [
            {"metadata": {"name": "old", "labels": {}}},
            {"metadata": {"name": "new", "labels": {"istio.io/rev": "canary"}}},
            {"metadata": {"name": "tagged", "labels": {"istio.io/rev": "prod"}}},
            {"metadata": {"name": "stale", "labels": {"istio.io/rev": "uninstalled"}}},
        ]
        for s in spaces:
            await mesh.client.create(kinds.NAMESPACE, s)
        tag = {"name": "prod", "labels": {"istio.io/tag": "prod", "istio.io/rev": "canary"}}
        await mesh.client.create(kinds.MUTATING_WEBHOOK, {"metadata": tag, "webhooks": []})
        running = ("default", "canary")

        def trust(revision):
            told = replace(common, root=common.own + others[revision])
            return Trust(
                mesh.client,
                Revision(revision),
                lambda: told,
                lambda: spaces,
                istiod.distributed,
                running=lambda: running,
            )

        first, second = trust("default"), trust("canary")
        reached = await first.everywhere(spaces)
        assert "namespace new: the revision canary has not told it yet" in reached.problem
        for _ in range(2):
            assert await second.everywhere(spaces) == Reached()
            assert await first.everywhere(spaces) == Reached()
            for name, revision in (("old", "default"), ("new", "canary"), ("tagged", "canary"), ("stale", "default")):
                found = await mesh.client.get(kinds.CONFIG_MAP, name, "istio-ca-root-cert")
                assert found["data"]["root-cert.pem"] == common.own + others[revision], name
        running = ("default",)
        assert await first.everywhere(spaces) == Reached()
        found = await mesh.client.get(kinds.CONFIG_MAP, "new", "istio-ca-root-cert")
        assert others["default"] in found["data"]["root-cert.pem"], "canary is gone"

    asyncio.run(work())


def test_an_immutable_config_map_in_a_namespace_of_another_revision_is_not_waited_for():
    """Whoever owns a namespace would stop the rotation for the mesh by it."""
    mesh = Mesh()

    async def work():
        istiod = await mesh.istiod()
        told = istiod.authority.told
        space = {"metadata": {"name": "new", "labels": {"istio.io/rev": "canary"}}}
        await mesh.client.create(kinds.NAMESPACE, space)
        trust = Trust(
            mesh.client,
            Revision(),
            lambda: told,
            lambda: [space],
            istiod.distributed,
            running=lambda: ("default", "canary"),
        )
        meta = {"name": "istio-ca-root-cert", "namespace": "new"}
        fixed = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"root-cert.pem": "x"}}
        await mesh.client.create(kinds.CONFIG_MAP, fixed)
        assert (await trust.everywhere([space])).problem, "canary can write this one"
        await mesh.client.patch(kinds.CONFIG_MAP, "new", "istio-ca-root-cert", {"immutable": True})
        reached = await trust.everywhere([space])
        assert not reached.problem
        assert "namespace new: the ConfigMap istio-ca-root-cert is immutable" in reached.refused
        await mesh.client.delete(kinds.CONFIG_MAP, "new", "istio-ca-root-cert")
        fixed["data"]["root-cert.pem"] = told.own
        await mesh.client.create(kinds.CONFIG_MAP, {**fixed, "immutable": True})
        assert await trust.everywhere([space]) == Reached(), "it has what it needs"

    asyncio.run(work())
