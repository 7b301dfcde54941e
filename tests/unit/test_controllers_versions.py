"""The controllers over custom resources whose stored version changes, and whose webhook may be broken."""

from hooks import Converter, serving
from test_controllers import play, until
from widgets import answered, by, definition

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.kit.jsons import dig
from lateen.kube.client import KubeError

V1, V2 = (Kind("example.com", v, "widgets", "Widget") for v in ("v1", "v2"))


BROKEN = answered(result={"status": "Failure", "message": "broken"})


async def moved(client, hook, change=None):
    """A definition whose widget ``old`` was stored before another version is. ``change``: what is wrong with its
    webhook from then on."""
    made = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    await client.create(kinds.CRD, made | definition(by(hook), stored="v1"))
    await client.create(kinds.NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
    meta = {"name": "old", "namespace": "n"}
    await client.create(
        V1, {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": meta, "spec": {"size": "1x1"}}
    )
    found = await client.get(kinds.CRD, "", "widgets.example.com")
    for version in found["spec"]["versions"]:
        version["storage"] = version["name"] == "v2"
    hook.change = change or hook.change
    await client.update(kinds.CRD, found)


async def absent(client, name):
    return await client.get(V2, "n", name) is None


def widget(name, *owners):
    meta = {"name": name, "namespace": "n", "ownerReferences": list(owners)}
    return {"apiVersion": "example.com/v2", "kind": "Widget", "metadata": meta, "spec": {"width": 1, "height": 1}}


def test_what_cannot_be_read_keeps_nothing_else_in_a_namespace_that_ends():
    with serving(Converter) as hook:

        async def story(client, told):
            await moved(client, hook, BROKEN)
            meta = {"name": "p", "namespace": "n"}
            spec = {"containers": [{"name": "c", "image": "i"}], "serviceAccountName": "default"}

            async def made():
                try:
                    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
                    return await client.create(kinds.POD, pod)
                except KubeError:
                    return None  # its service account is on its way

            await until(made)
            await client.delete(kinds.NAMESPACE, "", "n")

            async def gone():
                return await client.get(kinds.POD, "n", "p") is None

            async def told_so():
                found = (await client.get(kinds.NAMESPACE, "", "n"))["status"].get("conditions") or []
                return [c["message"] for c in found if c["reason"] == "ContentDeletionFailed" and c["status"] == "True"]

            await until(gone)
            (says,) = await until(told_so)
            assert "conversion webhook for example.com/v1, Kind=Widget failed: broken" in says
            hook.change = lambda _: None

            async def ended():
                return await client.get(kinds.NAMESPACE, "", "n") is None

            await until(ended)

        play(story)


def test_the_garbage_collector_reads_the_version_that_is_stored_now():
    with serving(Converter) as hook:

        async def story(client, told):
            await moved(client, hook)
            owner = await client.create(V2, widget("owner"))
            ref = {"apiVersion": "example.com/v2", "kind": "Widget", "name": "owner", "uid": owner["metadata"]["uid"]}
            old = await client.get(V2, "n", "old")
            old["metadata"]["ownerReferences"] = [ref]
            await client.update(V2, old)  # now in the new version

            async def moved_on():
                """What is collected at once has been read in the version that is stored."""
                hook.asked.clear()
                await client.create(V2, widget("probe", ref | {"name": "nobody", "uid": "none"}))
                await until(lambda: absent(client, "probe"))
                return not hook.asked

            await until(moved_on)
            hook.change = BROKEN
            for i in range(3):
                await client.create(V2, widget(f"w{i}", ref))
            await client.delete(V2, "n", "owner")

            for name in ("old", "w0", "w1", "w2"):
                await until(lambda name=name: absent(client, name))
            assert hook.asked == []

        play(story)


def test_a_quota_counts_what_can_be_read():
    with serving(Converter) as hook:

        async def story(client, told):
            await moved(client, hook, BROKEN)
            quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "n"}}
            quota["spec"] = {"hard": {"count/widgets.example.com": "9", "configmaps": "9"}}
            await client.create(kinds.RESOURCE_QUOTA, quota)

            async def used():
                return dig(await client.get(kinds.RESOURCE_QUOTA, "n", "q"), "status", "used", default={})

            async def others():
                return "configmaps" in await used()

            await until(others)
            assert "count/widgets.example.com" not in await used()
            hook.change = lambda _: None

            async def all_of_them():
                return (await used()).get("count/widgets.example.com") == "1"

            await until(all_of_them)

        play(story)
