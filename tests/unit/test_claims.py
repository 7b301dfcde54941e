"""Claims and volumes: what is bound to what, what is kept while it is used, where data is."""

import asyncio
import os
import stat
from decimal import Decimal

import pytest
from apiserver import Cluster
from test_controllers import play, until

from lateen.api import kinds
from lateen.cluster import bootstrap
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.kubelet import claims, volumes
from lateen.cluster.rules import amounts
from lateen.kit.jsons import dig
from lateen.kube.client import KubeError

CLAIM, VOLUME = kinds.PERSISTENT_VOLUME_CLAIM, kinds.PERSISTENT_VOLUME


def claim(name="c", size="1Gi", **spec):
    meta = {"name": name, "namespace": "default"}
    body = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": body}


def volume(name, size="1Gi", path="/mnt/x", **spec):
    body = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "hostPath": {"path": path}, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": body}


def using(name, of="c"):
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": of}}]
    spec = {"containers": [{"name": "c", "image": "i"}], "volumes": volumes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


async def phase(client, kind, name, wanted):
    async def there():
        found = await client.get(kind, "default" if kind is CLAIM else "", name)
        return found if dig(found or {}, "status", "phase") == wanted else None

    return await until(there)


async def gone(client, kind, name):
    async def is_gone():
        return await client.get(kind, "default" if kind is CLAIM else "", name) is None

    await until(is_gone)


def with_class(story):
    async def run(client, told):
        await client.create(kinds.STORAGE_CLASS, bootstrap.storage_class())
        await story(client, told)

    play(run)


def test_a_claim_gets_a_volume_of_the_default_class():
    async def story(client, told):
        await client.create(CLAIM, claim())
        bound = await phase(client, CLAIM, "c", "Bound")
        assert bound["spec"]["storageClassName"] == "standard"
        assert bound["status"]["capacity"] == {"storage": "1Gi"}
        pv = await phase(client, VOLUME, bound["spec"]["volumeName"], "Bound")
        assert pv["metadata"]["name"] == f"pvc-{bound['metadata']['uid']}"
        assert pv["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        await client.delete(CLAIM, "default", "c")
        await phase(client, VOLUME, pv["metadata"]["name"], "Released")

    with_class(story)


def test_the_smallest_volume_that_suffices_is_taken():
    async def story(client, told):
        for name, size in (("large", "10Gi"), ("small", "1Gi"), ("middle", "3Gi")):
            await client.create(VOLUME, volume(name, size))
        await client.create(CLAIM, claim(size="2Gi", storageClassName=""))
        assert (await phase(client, CLAIM, "c", "Bound"))["spec"]["volumeName"] == "middle"
        await phase(client, VOLUME, "small", "Available")
        await client.delete(CLAIM, "default", "c")
        await phase(client, VOLUME, "middle", "Released")
        await client.create(CLAIM, claim(size="2Gi", storageClassName=""))
        assert (await phase(client, CLAIM, "c", "Bound"))["spec"]["volumeName"] == "large"

    play(story)


def test_what_a_pod_uses_stays_until_the_pod_has_gone():
    async def story(client, told):
        await client.create(CLAIM, claim())
        pv = (await phase(client, CLAIM, "c", "Bound"))["spec"]["volumeName"]
        used = using("p")
        used["spec"]["nodeName"] = "n"  # a pod that is nowhere uses nothing yet
        await client.create(kinds.POD, used)
        await client.delete(CLAIM, "default", "c")
        await client.delete(VOLUME, "", pv)
        await asyncio.sleep(0.05)
        assert (await client.get(CLAIM, "default", "c"))["metadata"]["deletionTimestamp"]
        assert (await client.get(VOLUME, "", pv))["metadata"]["deletionTimestamp"]
        await client.delete(kinds.POD, "default", "p", grace=0)
        await gone(client, CLAIM, "c")
        await gone(client, VOLUME, pv)

    with_class(story)


def test_a_claim_may_ask_for_more_but_not_for_less():
    async def story(client, told):
        await client.create(CLAIM, claim(size="2Gi"))
        await phase(client, CLAIM, "c", "Bound")

        def size(text):
            return {"spec": {"resources": {"requests": {"storage": text}}}}

        await client.patch(CLAIM, "default", "c", size("5Gi"))

        async def grown():
            return (await client.get(CLAIM, "default", "c"))["status"]["capacity"]["storage"] == "5Gi"

        await until(grown)
        with pytest.raises(KubeError, match="can not be less than previous value"):
            await client.patch(CLAIM, "default", "c", size("1Gi"))
        with pytest.raises(KubeError, match="spec is immutable after creation"):
            await client.patch(CLAIM, "default", "c", {"spec": {"accessModes": ["ReadOnlyMany"]}})

    with_class(story)


def test_a_pods_own_claim_is_made_for_it():
    async def story(client, told):
        pod = using("p")
        template = {"spec": claim()["spec"]}
        pod["spec"]["volumes"] = [{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}]
        made = await client.create(kinds.POD, pod)
        found = await phase(client, CLAIM, "p-v", "Bound")
        assert found["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
        await client.delete(kinds.POD, "default", "p")
        await gone(client, CLAIM, "p-v")

    with_class(story)


def test_a_claim_that_cannot_be_met_says_why():
    async def story(client, told):
        await client.create(CLAIM, claim("none", storageClassName=""))
        await client.create(CLAIM, claim("other", storageClassName="fast"))

        async def said():
            return {e[1]: e[4] for e in told.events if e[0] == "PersistentVolumeClaim"}

        async def both():
            return len(await said()) == 2

        await until(both)
        found = await said()
        assert "no persistent volumes available for this claim" in found["none"]
        assert found["other"] == 'storageclass.storage.k8s.io "fast" not found'

    play(story)


# --- directories -----------------------------------------------------------------------------------------------------


async def bound(client, pv):
    made = await client.create(CLAIM, claim(volumeName="pv", storageClassName=""))
    pv["spec"]["claimRef"] = {"namespace": "default", "name": "c", "uid": made["metadata"]["uid"]}
    await client.create(VOLUME, pv)
    await client.patch(CLAIM, "default", "c", {"status": {"phase": "Bound"}}, "status")


def backing(tmp_path, pv, read_only=False):
    cluster = Cluster()
    client = DirectClient(cluster.api, "test")

    async def run():
        await bound(client, pv)
        pod = using("p")
        source = pod["spec"]["volumes"][0]
        source["persistentVolumeClaim"]["readOnly"] = read_only
        return await claims.backing(client, pod, source, tmp_path / "volumes", -1)

    return asyncio.run(run())


def folder(handle):
    pv = volume("pv")
    del pv["spec"]["hostPath"]
    pv["spec"]["csi"] = {"driver": "folder.lateen.dev", "volumeHandle": handle}
    return pv


def test_a_folder_is_made_below_the_state_directory(tmp_path):
    found = backing(tmp_path, folder("mine"), read_only=True)
    assert (found.path, found.own, found.read_only) == (tmp_path / "volumes" / "mine", True, True)
    assert found.path.is_dir()
    assert found.path.stat().st_mode & 0o777 == 0o777


def test_pods_with_different_groups_do_not_take_the_files_of_a_volume_from_each_other_again_and_again(
    tmp_path, monkeypatch
):
    """Volumes are looked after while containers run; files change their group only when a pod begins to use them."""
    given = []
    monkeypatch.setattr(claims.ownership, "give", lambda _, group: given.append(group))
    client = DirectClient(Cluster().api, "test")

    async def run():
        await bound(client, folder("mine"))
        pods = [using(name) for name in "ab"]
        seen = [volumes.Volumes(client, tmp_path / name, tmp_path / "volumes") for name in "ab"]
        for pod, group in zip(pods, (1, 2), strict=True):
            pod["spec"]["securityContext"] = {"fsGroup": group}
        for _ in range(3):
            for pod, of_pod in zip(pods, seen, strict=True):
                await of_pod.prepare(pod)

    asyncio.run(run())
    assert given == [1, 2]


@pytest.mark.parametrize("handle", ["../../etc", "/etc", "a/b", "..", "a\n", "UPPER"])
def test_a_handle_that_is_not_a_plain_name_is_refused(tmp_path, handle):
    with pytest.raises(claims.Unbound, match="is not a valid name"):
        backing(tmp_path, folder(handle))
    assert not (tmp_path / "volumes").exists()


def test_a_link_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / "mine").symlink_to("/etc")
    with pytest.raises(OSError, match="link"):
        backing(tmp_path, folder("mine"))


def test_a_volume_elsewhere_is_not_available(tmp_path):
    pv = volume("pv")
    del pv["spec"]["hostPath"]
    pv["spec"]["nfs"] = {"server": "x", "path": "/"}
    with pytest.raises(claims.Unbound, match="nfs are not available"):
        backing(tmp_path, pv)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"accessModes": []}, "at least 1 access mode"),
        ({"volumeMode": "Block"}, "block devices are not available"),
        ({"resources": {}}, "spec.resources[storage]: Required value"),
        ({"resources": {"requests": {"storage": "0"}}}, "must be greater than zero"),
        ({"dataSource": {"kind": "VolumeSnapshot", "name": "x"}}, "not available in the embedded cluster"),
    ],
)
def test_a_claim_that_nothing_can_meet_is_refused(change, says):
    code, answer = Cluster().ask("POST", "/api/v1/namespaces/default/persistentvolumeclaims", claim(**change))
    assert code == 422, answer
    assert says in answer["message"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1Gi", 2**30),
        ("100m", Decimal("0.1")),
        ("1e3", 1000),
        ("2", 2),
        ("1.5k", 1500),
        ("1E", 10**18),
        ("3Ei", 3 * 2**60),
    ],
)
def test_amounts_are_read_and_written(text, number):
    assert amounts.parse(text) == number
    assert amounts.parse(amounts.text(amounts.parse(text), binary=text.endswith("i"))) == number


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("1E", "1E"),
        ("1000P", "1E"),
        ("1Ei", "1Ei"),
        ("1024Pi", "1Ei"),
        ("9" * 40, "9" * 40),
        ("9" * 40 + "Ei", "9" * 40 + "Ei"),
        ("0." + "1" * 40, "0." + "1" * 40),
        ("9" * 40 + ".5", "9" * 40 + "500m"),
        ("1e999", "1e999"),
    ],
)
def test_amounts_of_any_length_are_written_back_exactly(given, written):
    assert amounts.canonical(given) == written
    requests = {"requests": {"memory": given}}
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "resources": requests}]}}
    assert Cluster().ask("POST", "/api/v1/namespaces/default/pods?dryRun=All", pod)[0] in (201, 422)


@pytest.mark.skipif(os.geteuid() != 0, reason="files are given to another group")
def test_a_volume_that_a_pod_of_another_user_has_written_is_given_to_the_group(tmp_path):
    """Files of a pod that ran as root, and now runs as 1337 with that fsGroup."""
    (tmp_path / "v" / "deep").mkdir(parents=True)
    for name in ("db", "deep/log", "program"):
        (tmp_path / "v" / name).write_text("x")
        (tmp_path / "v" / name).chmod(0o700 if name == "program" else 0o600)
    (tmp_path / "outside").write_text("x")
    (tmp_path / "outside").chmod(0o600)
    (tmp_path / "v" / "link").symlink_to(tmp_path / "outside")

    def seen(name):
        found = (tmp_path / "v" / name).lstat()
        return found.st_gid, stat.S_IMODE(found.st_mode)

    claims._folder(tmp_path, "v", 1337)
    assert seen(".") == (1337, 0o2777)
    assert seen("deep") == (1337, 0o2775)
    assert {seen("db"), seen("deep/log")} == {(1337, 0o660)}
    assert seen("program") == (1337, 0o760)
    outside = (tmp_path / "outside").stat()
    assert (outside.st_gid, stat.S_IMODE(outside.st_mode)) == (os.getegid(), 0o600)
    (tmp_path / "v" / "db").chmod(0o600)  # what containers do with their own files stays
    claims._folder(tmp_path, "v", 1337)
    assert seen("db") == (1337, 0o600)
