"""StatefulSets: the order of their pods, their rollouts and their volume claims."""

from datetime import UTC, datetime

import pytest
from apiserver import Cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from test_controllers import play, until

from lateen.api import kinds
from lateen.cluster.controllers import ordinals, stateful_set
from lateen.cluster.controllers.revisions import POD_HASH
from lateen.kit.jsons import dig
from lateen.kube.client import KubeError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
READY = [{"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"}]


def stateful(replicas=3, policy="OrderedReady", partition=0, start=0, most=1):
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": partition, "maxUnavailable": most}}
    spec = {
        "replicas": replicas,
        "podManagementPolicy": policy,
        "updateStrategy": strategy,
        "ordinals": {"start": start},
    }
    return {"metadata": {"name": "s", "generation": 1}, "spec": spec}


def pod(revision="old", ready=True, going=False, phase="Running"):
    meta = {"labels": {POD_HASH: revision}} | ({"deletionTimestamp": "x"} if going else {})
    return {"metadata": meta, "status": {"phase": phase, "conditions": READY if ready else []}}


def step(sts, found, update="old"):
    done = ordinals.step(ordinals.Pods(sts, found, "old", update, NOW))
    return [o for o, _ in done.create], done.delete


def test_pods_come_in_order_each_when_the_one_before_is_ready():
    assert step(stateful(), {}) == ([0], [])
    assert step(stateful(), {0: pod(ready=False)}) == ([], [])
    assert step(stateful(), {0: pod()}) == ([1], [])
    assert step(stateful(), {0: pod(), 2: pod()}) == ([1], [])
    assert step(stateful(start=5), {}) == ([5], [])
    assert step(stateful(policy="Parallel"), {1: pod()}) == ([0, 2], [])


def test_pods_with_the_highest_ordinals_are_known():
    assert stateful_set._ordinal({"metadata": {"name": "db-2147483647"}}, "db") == 2147483647


def test_two_thousand_million_replicas_come_by_and_by():
    sts = stateful(replicas=2_000_000_000, policy="Parallel")
    assert step(sts, {1: pod()}) == ([0, *range(2, 51)], [])
    assert step(sts, {o: pod() for o in range(1, 60)}) == ([0, *range(60, 109)], [])


def test_pods_go_from_the_highest_ordinal_down():
    assert step(stateful(1), {0: pod(), 1: pod(), 2: pod()}) == ([], [2])
    assert step(stateful(1), {0: pod(), 1: pod(), 2: pod(going=True)}) == ([], [])
    assert step(stateful(1, "Parallel"), {0: pod(), 1: pod(), 2: pod()}) == ([], [2, 1])
    assert step(stateful(1), {0: pod(ready=False), 1: pod()}) == ([], [])


def test_a_pod_that_has_ended_is_made_anew():
    assert step(stateful(1), {0: pod(phase="Failed", ready=False)}) == ([], [0])


def test_a_rollout_replaces_one_pod_at_a_time_down_to_the_partition():
    old = {i: pod() for i in range(3)}
    assert step(stateful(), old, "new") == ([], [2])
    assert step(stateful(), old | {2: pod("new")}, "new") == ([], [1])
    assert step(stateful(), old | {2: pod("new", ready=False)}, "new") == ([], [])
    assert step(stateful(partition=2), old | {2: pod("new")}, "new") == ([], [])
    assert step(stateful(most=2), old, "new") == ([], [2, 1])
    on_delete = stateful()
    on_delete["spec"]["updateStrategy"] = {"type": "OnDelete"}
    assert step(on_delete, old, "new") == ([], [])
    partitioned = ordinals.Pods(stateful(partition=2), old, "old", "new", NOW)
    assert [partitioned.revision_for(i) for i in range(3)] == ["old", "old", "new"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.sampled_from(["OrderedReady", "Parallel"]), st.data())
def test_every_set_comes_to_rest_as_it_should_be(before, after, policy, data):
    """At most one of the pods that were there is missing at a time during a rollout, whatever happens when."""
    found = {i: pod() for i in range(before)}
    sts = stateful(after, policy)
    for _ in range(200):
        done = ordinals.step(ordinals.Pods(sts, found, "old", "new", NOW))
        for ordinal, revision in done.create:
            found[ordinal] = pod(revision, ready=False)
        for ordinal in done.delete:
            found[ordinal] = pod(ordinals.revision_of(found[ordinal]), going=True)
        assert sum(o < min(before, after) and not p["status"]["conditions"] for o, p in found.items()) <= 1
        for ordinal, one in sorted(found.items()):
            if data.draw(st.booleans()):
                continue
            if one["metadata"].get("deletionTimestamp"):
                del found[ordinal]
            else:
                one["status"]["conditions"] = READY
    assert sorted(found) == list(range(after))
    assert {ordinals.revision_of(p) for p in found.values()} <= {"new"}


def manifest(name="db", replicas=2, **spec):
    labels = {"app": name}
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": SIZE}}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [CONTAINER]}},
            "volumeClaimTemplates": [claim],
            **spec,
        },
    }


CONTAINER = {"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
SIZE = {"requests": {"storage": "1Gi"}}


async def names(client, kind):
    found, _ = await client.list(kind, "default")
    return sorted(o["metadata"]["name"] for o in found)


def test_each_pod_has_a_name_in_dns_and_a_claim_of_its_own():
    async def story(client, told):
        await client.create(kinds.STATEFUL_SET, manifest())

        async def both():
            return await names(client, kinds.POD) == ["db-0", "db-1"]

        await until(both)
        assert await names(client, kinds.PERSISTENT_VOLUME_CLAIM) == ["data-db-0", "data-db-1"]
        found = await client.get(kinds.POD, "default", "db-1")
        assert (found["spec"]["hostname"], found["spec"]["subdomain"]) == ("db-1", "db")
        assert {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}} in found["spec"]["volumes"]
        await client.delete(kinds.STATEFUL_SET, "default", "db")

        async def gone():
            return not await names(client, kinds.POD)

        await until(gone)
        assert await names(client, kinds.PERSISTENT_VOLUME_CLAIM) == ["data-db-0", "data-db-1"]

    play(story)


@pytest.mark.parametrize("when", ["whenDeleted", "whenScaled"])
def test_claims_go_with_the_set_or_its_pods_where_that_is_asked_for(when):
    async def story(client, told):
        policy = {"persistentVolumeClaimRetentionPolicy": {when: "Delete"}}
        await client.create(kinds.STATEFUL_SET, manifest(**policy))

        async def there():
            return await names(client, kinds.POD) == ["db-0", "db-1"]

        await until(there)
        if when == "whenScaled":
            await client.patch(kinds.STATEFUL_SET, "default", "db", {"spec": {"replicas": 1}})
        else:
            await client.delete(kinds.STATEFUL_SET, "default", "db")
        left = ["data-db-0"] if when == "whenScaled" else []

        async def as_asked():
            return await names(client, kinds.PERSISTENT_VOLUME_CLAIM) == left

        await until(as_asked)

    play(story)


def test_what_cannot_change_in_a_set_is_refused():
    async def story(client, told):
        await client.create(kinds.STATEFUL_SET, manifest())
        with pytest.raises(KubeError, match="updates to statefulset spec for fields other than"):
            await client.patch(kinds.STATEFUL_SET, "default", "db", {"spec": {"serviceName": "other"}})
        await client.patch(kinds.STATEFUL_SET, "default", "db", {"spec": {"replicas": 3}})

    play(story)


def test_a_template_of_the_past_becomes_the_newest_revision_again():
    async def story(client, told):
        def image(text):
            containers = [{"name": "c", "image": text}]
            return {"spec": {"template": {"spec": {"containers": containers}}}}

        async def revision(number, text):
            async def there():
                found, _ = await client.list(kinds.CONTROLLER_REVISION, "default")
                newest = max(found, key=lambda r: r["revision"], default=None)
                return newest and (newest["revision"], _image(newest)) == (number, text)

            await until(there)

        await client.create(kinds.STATEFUL_SET, manifest())
        await revision(1, "i")
        await client.patch(kinds.STATEFUL_SET, "default", "db", image("j"))
        await revision(2, "j")
        await client.patch(kinds.STATEFUL_SET, "default", "db", image("i"))
        await revision(3, "i")

    play(story)


def _image(revision):
    return dig(revision, "data", "spec", "template", "spec", "containers")[0]["image"]


def test_a_set_without_a_service_is_taken():
    body = manifest()
    del body["spec"]["serviceName"]
    code, answer = Cluster().ask("POST", "/apis/apps/v1/namespaces/default/statefulsets", body)
    assert code == 201, answer
