"""Which pods the node has room for."""

import asyncio
from types import SimpleNamespace

import pytest

from lateen.api import kinds
from lateen.cluster.kubelet import scheduler
from lateen.cluster.kubelet.kubelet import Kubelet


def pod(name, phase="Running", node="lateen"):
    meta = {"name": name, "namespace": "default", "uid": name}
    return {"metadata": meta, "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase}}


@pytest.fixture
def kubelet():
    return Kubelet(SimpleNamespace(client=None, name="lateen"))


def test_pods_that_have_ended_take_no_place(kubelet, monkeypatch):
    """Else a Job with many completions would stop half-way."""
    monkeypatch.setattr(scheduler, "MAX_PODS", 3)
    unfit = kubelet._scheduler._unfit
    kubelet._scheduler._nodes.objects["", "lateen"] = {"metadata": {"name": "lateen"}}
    found = [pod("a"), pod("b", "Pending"), *(pod(f"done-{i}", p) for i, p in enumerate(["Succeeded", "Failed"] * 2))]
    for p in found:
        kubelet._informer.objects["default", p["metadata"]["name"]] = p
        kubelet.pods[p["metadata"]["uid"]] = None  # its worker stays until the pod is deleted
    assert unfit(pod("new", node=""), []) == ""
    kubelet.pods["removed"] = None  # its object is gone, its containers may not be
    assert unfit(pod("new", node=""), []) == "0/1 nodes are available: 1 Too many pods."


def test_the_end_of_a_pod_makes_room_at_once(kubelet):
    async def work():
        kubelet._changed(kinds.POD, ("default", "a"), pod("a"), pod("a", node="other"))
        assert not kubelet._scheduler._soon.is_set()
        kubelet._changed(kinds.POD, ("default", "a"), pod("a", node="other"), pod("a", "Succeeded", node="other"))
        assert kubelet._scheduler._soon.is_set()

    asyncio.run(work())


def test_a_pod_that_does_not_fit_is_told_so_once_for_each_reason(kubelet, monkeypatch):
    """The node is looked at again on each change of anything."""
    found, told = kubelet._scheduler, []
    monkeypatch.setattr(found, "_events", SimpleNamespace(event=lambda _, *said: told.append(said[2])))
    monkeypatch.setattr(found, "_unschedulable", lambda *_: asyncio.sleep(0))
    big = pod("big", "Pending", node="")
    big["spec"]["containers"] = [{"name": "c", "resources": {"requests": {"cpu": "9"}}}]
    kubelet._informer.objects["default", "big"] = big
    node = {"metadata": {"name": "lateen"}, "status": {"allocatable": {"cpu": "2"}}}

    async def work():
        for more in ({}, {}, {"spec": {"unschedulable": True}}, {"spec": {"unschedulable": True}}):
            found._nodes.objects["", "lateen"] = {**node, **more}
            found.add("big", big)
            await found._round()

    asyncio.run(work())
    assert [says.rpartition(": 1 ")[2] for says in told] == ["Insufficient cpu.", "node(s) were unschedulable."]


def test_what_an_administrator_has_told_the_node_of_is_given_once(kubelet):
    """As in Kubernetes' tasks about extended resources, which add them to the node's capacity."""

    def wants(name, count, node="lateen", phase="Running"):
        made = pod(name, phase, node)
        made["spec"]["containers"] = [{"name": "c", "resources": {"limits": {"example.com/dongle": str(count)}}}]
        return made

    status = {"capacity": {"example.com/dongle": "4", "cpu": "2"}, "allocatable": {"cpu": "2"}}
    kubelet._scheduler._nodes.objects["", "lateen"] = {"metadata": {"name": "lateen"}, "status": status}
    unfit = kubelet._scheduler._unfit
    assert unfit(wants("a", 3, ""), []) == ""
    assert unfit(wants("b", 2, ""), [wants("a", 3)]) == "0/1 nodes are available: 1 Insufficient example.com/dongle."
    kubelet._informer.objects["default", "a"] = wants("a", 3)
    assert "Insufficient example.com/dongle" in unfit(wants("b", 2, ""), [])
    assert unfit(wants("b", 1, ""), []) == ""
    kubelet._informer.objects["default", "a"] = wants("a", 3, phase="Succeeded")
    assert unfit(wants("b", 2, ""), []) == ""


def test_what_a_pod_has_just_been_given_is_not_given_again(kubelet, monkeypatch):
    """The next pod comes before the kubelet has heard of the binding."""
    found, bound = kubelet._scheduler, []

    async def request(_, __, name, *___):
        bound.append(name)

    kubelet.node.client = SimpleNamespace(request=request)
    monkeypatch.setattr(found, "_events", SimpleNamespace(event=lambda *_: None))
    monkeypatch.setattr(found, "_unschedulable", lambda *_: asyncio.sleep(0))
    status = {"allocatable": {"cpu": "2"}, "capacity": {"example.com/dongle": "1"}}
    found._nodes.objects["", "lateen"] = {"metadata": {"name": "lateen"}, "status": status}

    async def work():
        for name in ("first", "second", "first"):
            made = pod(name, "Pending", node="")
            made["spec"]["containers"] = [{"name": "c", "resources": {"limits": {"example.com/dongle": "1"}}}]
            kubelet._informer.objects["default", name] = made
            found.add(name, made)
            await found._round()
        kubelet._informer.objects["default", "first"] = pod("first", "Succeeded")
        await found._round()

    asyncio.run(work())
    assert bound == ["first", "second"]
    assert list(found._assumed) == ["second"]
