"""What becomes of a container that cannot be started: it waits with a reason, and keeps nobody else waiting."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from lateen.cluster.kubelet import keeper, probes, recipe
from lateen.cluster.kubelet.container import Container, Role
from lateen.cluster.kubelet.images import Image, UnknownImage
from lateen.cluster.kubelet.keeper import Keeper
from lateen.cluster.kubelet.prober import Prober
from lateen.kit import tasks


class Sandbox:
    """A pod on a node whose runtime starts everything."""

    uid, key, address, policy = "u", ("default", "p"), "127.0.0.1", "Always"

    def __init__(self, provide):
        self.events = []
        groups = SimpleNamespace(make=lambda *_: [], remove=lambda _: None)
        runtime = SimpleNamespace(on_exit={}, call=self.call)
        self.node = SimpleNamespace(images=SimpleNamespace(provide=provide), groups=groups, runtime=runtime)

    async def call(self, *_, **__):
        return {"started": 1.0}

    def event(self, type_, reason, message, _=None):
        self.events.append((type_, reason, message))

    def drop_logs(self, c, before):
        pass


@pytest.fixture
def play(monkeypatch):
    """Start a container once or twice; returns its pod and itself."""

    async def of_start(*_):
        return {}

    monkeypatch.setattr(recipe, "of_start", of_start)
    monkeypatch.setattr(recipe, "notes", lambda *_: ())
    monkeypatch.setattr(keeper, "RETRY", (0.01,))

    def run(provide, until, **spec):
        async def story():
            sandbox = Sandbox(provide)
            c = Container({"name": "c", "image": "i", **spec}, Role.MAIN, lambda: None)
            kept = Keeper(sandbox, c, lambda: 0.0)
            task = tasks.spawn(kept.keep(), "keeper")
            async with asyncio.timeout(10):
                await kept.launched.wait()
                first = c.state
                await c.until(until)
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return sandbox, c, first

        return asyncio.run(story())

    return run


@pytest.mark.parametrize(
    ("error", "reason", "says"),
    [
        (UnknownImage("no such image"), "ErrImagePull", "no such image"),
        (PermissionError(13, "Permission denied", "x"), "CreateContainerError", "Permission denied"),
        (
            LookupError("the image has no user 'app'"),
            "CreateContainerError",
            "LookupError: the image has no user 'app'",
        ),
        (ZeroDivisionError("never expected"), "CreateContainerError", "ZeroDivisionError: never expected"),
    ],
)
def test_whatever_goes_wrong_with_a_start_is_told_and_tried_again(play, error, reason, says):
    tries = []

    async def provide(image):
        tries.append(image)
        if len(tries) == 1:
            raise error
        return ""

    sandbox, c, first = play(provide, lambda c: c.running is not None)
    assert (first.reason, first.message) == (reason, says)
    assert any(e[1] == "Failed" and says in e[2] for e in sandbox.events)
    assert [e[1] for e in sandbox.events][-1] == "Started"
    assert c.running


def test_a_hook_that_goes_wrong_after_the_start_does_not_end_the_care_for_the_container(play, monkeypatch):
    async def check(*_):
        raise ZeroDivisionError("of a hook")

    async def provide(image):
        return f"the image {image} cannot be used; bash of this machine runs in its place"

    monkeypatch.setattr(probes, "check", check)
    hook = {"postStart": {"exec": {"command": ["x"]}}}
    sandbox, c, _ = play(provide, lambda c: c.started and c.ready, lifecycle=hook)
    assert ("Warning", "Failed", "Error: ZeroDivisionError: of a hook") in sandbox.events
    assert sandbox.events[0][:2] == ("Warning", "ImageReplaced")
    assert c.ready


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe"])
def test_a_probe_that_goes_wrong_itself_is_told_and_tried_again(play, monkeypatch, probe):
    checks = []

    async def check(*_):
        checks.append(1)
        if len(checks) == 1:
            raise ZeroDivisionError("of a probe")

    async def provide(_):
        return ""

    monkeypatch.setattr(probes, "check", check)
    sandbox, c, _ = play(provide, lambda c: c.started and c.ready, **{probe: {"periodSeconds": 0.01}})
    kind = probe.removesuffix("Probe").capitalize()
    assert ("Warning", "Unhealthy", f"{kind} probe errored: ZeroDivisionError: of a probe") in sandbox.events
    assert c.ready


def test_the_delay_of_a_probe_counts_from_the_start_of_the_container(monkeypatch):
    """Of one that has outlived its node daemon, or was long in starting, it is over."""

    async def check(*_):
        return None

    async def work(ran_s):
        probe = {"readinessProbe": {"initialDelaySeconds": 60}}
        c = Container({"name": "c", "image": "i", **probe}, Role.MAIN, lambda: None)
        c.starts(0, "k", time.time() - ran_s, {})
        watching = tasks.spawn(Prober(SimpleNamespace(address=""), c, lambda *_: None).watch(), "probes")
        await asyncio.sleep(0.05)
        await tasks.cancel(watching)
        return c.ready

    monkeypatch.setattr(probes, "check", check)
    assert asyncio.run(work(100))
    assert not asyncio.run(work(10))


def test_a_clock_that_is_turned_back_does_not_make_the_delay_of_a_probe_longer():
    probe = {"initialDelaySeconds": 60}
    c = Container({"name": "c", "image": "i"}, Role.MAIN, lambda: None)
    c.starts(0, "k", time.time() + 3600, {})
    assert Prober(SimpleNamespace(address=""), c, lambda *_: None)._delay_s(probe) == 60


@pytest.mark.parametrize(
    ("program", "command", "arguments", "words"),
    [
        ("", [], [], ["/app", "serve"]),
        ("", [], ["-v"], ["/app", "-v"]),
        ("", ["sh"], ["-v"], ["sh", "-v"]),
        ("", [""], ["-v"], ["", "-v"]),
        ("/bin/tool", ["/bin/tool", "-x"], [], ["/app", "-x"]),
        ("/bin/tool", [""], [], [""]),
    ],
)
def test_a_pods_command_replaces_the_images_even_if_it_is_an_empty_word(program, command, arguments, words):
    assert recipe._words(Image(("/app",), ("serve",), program=program), command, arguments) == words
