"""Events: how long they are kept, and that what is repeated later is told again."""

import asyncio
from datetime import timedelta

from apiserver import Cluster
from test_controllers import play, until

from lateen.api import kinds
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.controllers import event_expiry
from lateen.cluster.kubelet.events import Recorder
from lateen.kit import times


def event(name):
    about = {"kind": "Pod", "name": "p", "namespace": "default"}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Event", "metadata": meta, "involvedObject": about, "reason": "R", "count": 1}


def test_events_are_removed_an_hour_after_they_were_written_last(monkeypatch):
    monkeypatch.setattr(event_expiry, "KEPT", timedelta(seconds=2))
    monkeypatch.setattr(event_expiry, "SWEEP_S", 0.05)
    count = 1

    async def names(client):
        return [e["metadata"]["name"] for e in (await client.list(kinds.EVENT, "default"))[0]]

    async def story(client, _):
        for name in ("once", "again"):
            await client.create(kinds.EVENT, event(name))

        async def only_the_repeated_one():
            nonlocal count
            count += 1
            await client.patch(kinds.EVENT, "default", "again", {"count": count})
            return await names(client) == ["again"]

        await until(only_the_repeated_one)

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
