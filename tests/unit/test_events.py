"""Events: how long they are kept, and that what is repeated later is told again."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace

from apiserver import Cluster
from test_controllers import play, until

from lateen.api import kinds
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.controllers import event_expiry
from lateen.cluster.kubelet.events import Recorder
from lateen.kit import times
from lateen.kube.client import KubeError


def event(name):
    about = {"kind": "Pod", "name": "p", "namespace": "default"}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Event", "metadata": meta, "involvedObject": about, "reason": "R", "count": 1}


def test_events_are_removed_an_hour_after_they_were_written_last():
    """Also one that has been written again since it was looked at stays."""
    found, now = [], times.now()
    for name, minutes in (("old", 61), ("young", 59), ("meanwhile", 61)):
        made = event(name)
        made["metadata"] |= {"creationTimestamp": times.stamp(now - timedelta(minutes=minutes)), "resourceVersion": "7"}
        found.append(made)
    repeated = event("repeated")
    field = {"manager": "m", "time": times.stamp(now - timedelta(minutes=1))}
    repeated["metadata"] |= {"creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [field]}
    removed = []

    class Api:
        async def delete(self, kind, namespace, name, version=""):
            if name == "meanwhile":
                raise KubeError(409, "Conflict", "it has another revision by now")
            removed.append((kind, namespace, name, version))

    loop = SimpleNamespace(objects=lambda _: [*found, repeated])
    assert asyncio.run(event_expiry.EventExpiry(Api(), loop).reconcile(())) == event_expiry.SWEEP_S
    assert removed == [(kinds.EVENT, "default", "old", "7")]


def test_events_are_looked_at_again_and_again(monkeypatch):
    monkeypatch.setattr(event_expiry, "KEPT", timedelta(0))
    monkeypatch.setattr(event_expiry, "SWEEP_S", 0.05)

    async def story(client, _):
        async def none():
            return not (await client.list(kinds.EVENT, "default"))[0]

        for _ in range(2):
            await client.create(kinds.EVENT, event("once"))
            await until(none)

    play(story)


def test_times_that_its_writer_made_up_do_not_keep_an_event():
    late = {"lastTimestamp": "2999-01-01T00:00:00Z", "eventTime": "2999-01-01T00:00:00.000000Z"}
    field = {"manager": "m", "time": "2026-01-02T00:00:00Z"}
    meta = {"creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [field, {"manager": "n"}]}
    assert event_expiry.written({"metadata": meta, **late}) == times.parse("2026-01-02T00:00:00Z")


def test_what_happens_again_is_told_again_when_its_event_is_gone():
    cluster = Cluster()
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default", "uid": "u"}}

    async def run():
        client = DirectClient(cluster.api, "kubelet")
        recorder = Recorder(client, "kubelet", "n")

        async def counts():
            return [e["count"] for e in (await client.list(kinds.EVENT, "default"))[0]]

        async def says(wanted):
            recorder.event(pod, "Warning", "BackOff", "again")
            for _ in range(1000):
                if await counts() == wanted:
                    return
                await asyncio.sleep(0.005)
            raise AssertionError(await counts())

        await says([1])
        await says([2])
        ((found, *_), _) = await client.list(kinds.EVENT, "default")
        await client.delete(kinds.EVENT, "default", found["metadata"]["name"])
        await says([3])
        await cluster.webhooks.close()

    asyncio.run(run())
