"""What becomes of containers that are resized, or stopped to be started again."""

import asyncio
from types import SimpleNamespace

import pytest

from lateen.cluster.kubelet import keeper, limits, probes, recipe
from lateen.cluster.kubelet.container import Container, Role
from lateen.cluster.kubelet.keeper import Keeper
from lateen.cluster.kubelet.pod import Pod
from lateen.cluster.runtime.cgroups import PIDS
from lateen.kit import tasks
from lateen.kit.rounds import Rounds

SMALL, LARGE = ({"limits": {"memory": m}, "requests": {"cpu": "1m"}} for m in ("1Mi", "2Mi"))
RESTARTS = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]


class Node:
    """A sandbox, its node, runtime and groups: a container that is told to stop exits with ``code``."""

    uid, key, address = "u", ("default", "p"), "127.0.0.1"

    def __init__(self, policy, code=0):
        self.policy, self.code, self.events, self.limited, self.started = policy, code, [], {}, []
        self.node = self.runtime = self.images = self.groups = self
        self.on_exit, self.hurry, self.starting = {}, asyncio.Event(), lambda: None

    async def provide(self, _):
        return ""

    def find(self, _):
        return SimpleNamespace(stop=15)

    async def call(self, verb, **given):
        if verb == "start":
            self.started.append(given["id"])
            self.starting()
            await asyncio.sleep(0)
            return {"started": 1.0}
        if verb == "kill":
            self.exits(given["id"], self.code)
        return {}

    def exits(self, key, code):
        self.on_exit[key]({"id": key, "code": code, "finished": 2.0})

    def make(self, name, wanted):
        self.limited[name] = wanted.memory
        assert wanted.pids == PIDS
        return []

    def change(self, name, wanted):
        self.limited[name] = wanted.memory

    def killed(self, _):
        return 0

    def remove(self, _):
        pass

    def message(self, *_):
        return ""

    def drop_logs(self, *_):
        pass

    def event(self, *said):
        self.events.append(said[1])


@pytest.fixture(autouse=True)
def simple(monkeypatch):
    async def of_start(*_):
        return {}

    monkeypatch.setattr(recipe, "of_start", of_start)
    monkeypatch.setattr(recipe, "notes", lambda *_: ())


def play(policy, story, code=0, **spec):
    async def run():
        node = Node(policy, code)
        c = Container({"name": "c", "image": "i", "resources": SMALL, **spec}, Role.MAIN, lambda: None)
        kept = Keeper(node, c, lambda: 1.0)
        task = tasks.spawn(kept.keep(), "keeper")
        try:
            async with asyncio.timeout(20):
                await story(node, c, kept, task)
        finally:
            await tasks.cancel(task)
        return node

    return asyncio.run(run())


def resized(c, resources):
    return {**c.spec, "resources": resources}


@pytest.mark.parametrize("policy", ["Always", "OnFailure"])
@pytest.mark.parametrize("code", [0, 143])
def test_a_container_that_is_restarted_for_a_resize_has_not_crashed(policy, code):
    async def story(node, c, kept, _):
        for attempt, size in enumerate((LARGE, SMALL, LARGE), 1):
            await c.until(lambda c: c.running)
            kept.resize(resized(c, size))
            await c.until(lambda c, n=attempt: c.running and c.attempt == n)
            assert (c.resources, c.last.code) == (size, code)

    node = play(policy, story, code, resizePolicy=RESTARTS)
    assert node.started == [f"u/c/{n}" for n in range(4)]
    assert "BackOff" not in node.events
    assert node.limited["u_c_3"] == 2 << 20


def test_after_a_restart_for_a_resize_the_restart_policy_holds_again():
    async def story(node, c, kept, task):
        await c.until(lambda c: c.running)
        kept.resize(resized(c, LARGE))
        await c.until(lambda c: c.running and c.attempt == 1)
        node.exits("u/c/1", 0)
        await task
        assert c.succeeded

    assert len(play("OnFailure", story, resizePolicy=RESTARTS).started) == 2


def test_a_resize_during_a_start_takes_effect():
    async def story(node, c, kept, _):
        node.starting = lambda: kept.resize(resized(c, LARGE))
        await c.until(lambda c: c.running and c.resources == LARGE)

    node = play("Always", story)
    assert node.limited == {"u_c_0": 2 << 20}


def test_a_resize_during_a_start_restarts_where_that_is_asked_for():
    async def story(node, c, kept, _):
        node.starting = lambda: kept.resize(resized(c, LARGE))
        await c.until(lambda c: c.running and c.attempt == 1)
        assert c.resources == LARGE

    assert play("OnFailure", story, resizePolicy=RESTARTS).limited["u_c_1"] == 2 << 20


def test_the_last_of_several_resizes_holds():
    async def story(node, c, kept, _):
        await c.until(lambda c: c.running)
        kept.resize(resized(c, LARGE))
        kept.resize(resized(c, SMALL))
        await asyncio.sleep(0)
        kept.resize(resized(c, LARGE))
        while c.resources != LARGE:
            await asyncio.sleep(0)

    assert play("Always", story).limited == {"u_c_0": 2 << 20}


def test_a_container_that_waits_after_crashes_is_started_when_it_is_resized(monkeypatch):
    monkeypatch.setattr(keeper, "BACKOFF", (0.0, 3600.0))

    async def story(node, c, kept, _):
        for attempt in (0, 1):
            await c.until(lambda c, n=attempt: c.running and c.attempt == n)
            node.exits(f"u/c/{attempt}", 137)
        await c.until(lambda c: getattr(c.state, "reason", "") == "CrashLoopBackOff")
        kept.resize(resized(c, LARGE))
        await c.until(lambda c: c.running)
        assert (c.attempt, c.resources) == (2, LARGE)

    play("Always", story)


@pytest.mark.parametrize(("policy", "starts"), [("OnFailure", 2), ("Never", 1)])
def test_a_container_whose_probe_fails_is_started_again_whatever_it_exits_with(policy, starts, monkeypatch):
    answers = ["broken"]

    async def check(*_):
        return answers.pop() if answers else None

    monkeypatch.setattr(probes, "check", check)

    async def story(node, c, kept, task):
        if starts == 1:
            await task
        else:
            await c.until(lambda c: c.running and c.attempt == 1)

    node = play(policy, story, livenessProbe={"failureThreshold": 1, "periodSeconds": 3600})
    assert len(node.started) == starts


def test_a_pod_keeps_what_it_has_where_the_node_has_not_got_what_it_asks_for(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "capacity", lambda: {"cpu": "2", "memory": "1048576Ki"})

    def pod(cpu, memory="1Mi", status=None):
        resources = {"requests": {"cpu": cpu, "memory": memory}}
        spec = {"containers": [{"name": "c", "image": "i", "resources": resources}]}
        return {
            "metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": spec, "status": status or {}
        }  # fmt: skip

    def pending(worker):
        return [(c["reason"], c["message"]) for c in worker._status()["conditions"] if c["type"] == "PodResizePending"]

    async def run():
        node = SimpleNamespace(client=None, root=tmp_path, folders=tmp_path, rootless=False)
        node.plugins, node.runtime = SimpleNamespace(seen={}), SimpleNamespace()
        node.groups, node.statuses = None, Rounds(1.0)
        worker = Pod(node, pod("1"), {})
        (c,) = worker.main
        assert pending(worker) == []
        worker.update(pod("2001m"))
        says = "Node didn't have enough capacity: cpu, requested: 2001, capacity: 2000"
        assert pending(worker) == [("Infeasible", says)]
        assert c.spec["resources"]["requests"]["cpu"] == "1"
        c.starts(0, "u/c/0", 1.0, c.spec["resources"])
        again = Pod(node, pod("2001m", status=worker._status()), {})  # another daemon
        again.update(pod("2001m"))
        assert (again.main[0].spec["resources"]["requests"]["cpu"], pending(again)) == ("1", [("Infeasible", says)])
        worker.update(pod("1", "2Gi"))
        says = f"Node didn't have enough capacity: memory, requested: {2 << 30}, capacity: {1 << 30}"
        assert pending(worker) == [("Infeasible", says)]
        c.ends(0, 2.0)
        worker.update(pod("2"))
        assert (pending(worker), c.spec["resources"]["requests"]["cpu"]) == ([], "2")

    asyncio.run(run())
