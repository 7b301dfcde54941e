"""One pod's life: network, volumes, init containers, containers in order, probes, restarts, graceful end."""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lateen.api import kinds
from lateen.cluster.kubelet import names, probes, security, volumes
from lateen.cluster.kubelet.events import Recorder
from lateen.cluster.kubelet.images import Catalogue, Image, UnknownImage
from lateen.cluster.network import links, plan
from lateen.cluster.runtime.client import RuntimeClient
from lateen.cluster.runtime.privileges import CAPABILITIES
from lateen.kit import tasks, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError

log = logging.getLogger("lateen.kubelet")

BACKOFF = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Node:
    """What all pods share."""

    client: Client
    runtime: RuntimeClient
    images: Catalogue
    addresses: links.Addresses
    events: Recorder
    root: Path
    rootless: bool
    name: str
    exec_count: int = 0


@dataclass
class State:
    """One container as its status tells it."""

    spec: Json
    init: bool
    attempt: int = -1
    id: str = ""
    running: bool = False
    started_at: float = 0.0
    finished_at: float = 0.0
    code: int | None = None
    last: Json | None = None
    waiting: tuple[str, str] = ("ContainerCreating", "")
    ready: bool = False
    started: bool = False
    image_id: str = ""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    error: str = ""


def _time(at: float) -> str:
    return times.stamp(datetime.fromtimestamp(at, UTC))


def _account(uid: int) -> security.Account | None:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return None
    return security.Account(entry.pw_name, entry.pw_gid, entry.pw_dir)


def finish(done: asyncio.Future[int], message: Json) -> None:
    """A command inside a container has ended."""
    if not done.done():
        done.set_result(int(message["code"]))


class Pod:
    """Runs as one task; ``stop`` ends it gracefully."""

    def __init__(self, node: Node, pod: Json, adopted: dict[str, Json]) -> None:
        self.node, self.pod = node, pod
        self.uid = str(pod["metadata"]["uid"])
        self.key = (str(pod["metadata"]["namespace"]), str(pod["metadata"]["name"]))
        self.volumes = volumes.Volumes(node.client, node.root / self.uid)
        self.address = ""
        self.init = [State(c, True) for c in pod["spec"].get("initContainers") or []]
        self.main = [State(c, False) for c in pod["spec"]["containers"]]
        self.deleting = asyncio.Event()
        self.grace = int(dig(pod, "spec", "terminationGracePeriodSeconds", default=30))
        self._adopted = adopted
        self._tasks: list[asyncio.Task[Any]] = []
        self._published: Json = {}
        self._dirty = asyncio.Event()
        self._initialized = not self.init
        self._refused = ""
        self._started_at = dig(pod, "status", "startTime") or times.stamp()
        previous = {
            s["name"]: s
            for k in ("containerStatuses", "initContainerStatuses")
            for s in dig(pod, "status", k, default=[])
        }
        for s in [*self.init, *self.main]:
            was = previous.get(s.spec["name"])
            if was:
                s.attempt = int(was.get("restartCount", 0)) + (0 if "waiting" in (was.get("state") or {}) else 1) - 1
                s.last = was.get("lastState") or None

    def state(self, container: str) -> State | None:
        return next((s for s in [*self.main, *self.init] if s.spec["name"] == container), None)

    # --- the life --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        publisher = tasks.spawn(self._publish_loop(), f"status of {self.key[1]}")
        life = tasks.spawn(self._live(), f"pod {self.key[1]}")
        ending = tasks.spawn(self.deleting.wait(), f"deletion of {self.key[1]}")
        try:
            await asyncio.wait((life, ending), return_when=asyncio.FIRST_COMPLETED)
            await ending
            await tasks.cancel(life, *self._tasks)
            await self._end()
        finally:
            await tasks.cancel(publisher, life, ending, *self._tasks)

    async def _live(self) -> None:
        try:
            names.check(self.pod)
        except names.Refused as e:
            self._refused = str(e)
            self._event("Warning", "InvalidPod", str(e))
            self._dirty.set()
            await asyncio.Event().wait()
        await self._until_ready(self._sandbox, "FailedCreatePodSandBox")
        await self._until_ready(lambda: self.volumes.prepare(self.pod), "FailedMount")
        self._tasks.append(tasks.spawn(self._refresh_volumes(), f"volumes of {self.key[1]}"))
        resumed = any(
            s.spec["name"] in self._adopted and self._adopted[s.spec["name"]]["code"] is None for s in self.main
        )
        for s in self.init:
            if resumed:
                s.code, s.ready, s.attempt = 0, True, max(s.attempt, 0)
                s.started_at = s.finished_at = 0.0
            else:
                await self._run_init(s)
        self._initialized = True
        self._dirty.set()
        for s in self.main:
            self._tasks.append(tasks.spawn(self._keep(s), f"container {self.key[1]}/{s.spec['name']}"))
            await s.done.wait()  # started and its postStart hook done: the next may start
        await asyncio.Event().wait()

    async def _until_ready(self, step: Any, reason: str) -> None:
        wait = 0.2
        while True:
            try:
                await step()
                return
            except (volumes.NotReady, OSError, KubeError, TimeoutError) as e:
                self._event("Warning", reason, str(e) or type(e).__name__)
                await asyncio.sleep(wait)
                wait = min(wait * 2, 5.0)

    async def _sandbox(self) -> None:
        existing = dig(self.pod, "status", "podIP", default="")
        if existing and (found := await links.address_of(self.uid)):
            self.address = self.node.addresses.take(found)
        elif not self.address:
            await links.remove_pod(self.uid)
            address = self.node.addresses.take()
            try:
                await links.add_pod(self.uid, address)
            except BaseException:
                self.node.addresses.free(address)
                raise
            self.address = address
        self.pod = {
            **self.pod,
            "status": {**(self.pod.get("status") or {}), "podIP": self.address, "hostIP": plan.NODE_IP},
        }
        self._dirty.set()

    async def _refresh_volumes(self) -> None:
        while True:
            await asyncio.sleep(30)
            try:
                await self.volumes.prepare(self.pod)
            except (volumes.NotReady, OSError, KubeError) as e:
                log.warning("volumes of %s/%s: %s", *self.key, e)

    async def _run_init(self, s: State) -> None:
        while True:
            await self._start_with_backoff(s)
            await s.done.wait()
            if s.code == 0:
                s.ready = True
                self._dirty.set()
                return
            if self.pod["spec"].get("restartPolicy") == "Never":
                await asyncio.Event().wait()

    async def _keep(self, s: State) -> None:
        """Start a container, hold it, start it again when it ends."""
        while True:
            await self._start_with_backoff(s)
            watching = [tasks.spawn(self._probe(s), f"probes {self.key[1]}/{s.spec['name']}")]
            try:
                await self._exited(s)
            finally:
                await tasks.cancel(*watching)
            policy = self.pod["spec"].get("restartPolicy", "Always")
            if policy == "Never" or (policy == "OnFailure" and s.code == 0):
                s.done.set()
                await asyncio.Event().wait()

    async def _exited(self, s: State) -> None:
        while s.running:
            await s.exited.wait()

    async def _start_with_backoff(self, s: State) -> None:
        failures = 0
        while True:
            if s.code is not None or failures:
                ran = s.finished_at - s.started_at
                step = failures or (0 if ran > 600 else min(s.attempt, len(BACKOFF) - 1))
                delay = BACKOFF[min(step, len(BACKOFF) - 1)]
                if delay and s.waiting[0] not in ("ErrImagePull", "ImagePullBackOff", "CreateContainerError"):
                    self._wait_state(
                        s,
                        "CrashLoopBackOff",
                        f"back-off {delay:.0f}s restarting failed container="
                        f"{s.spec['name']} pod={self.key[1]}_{self.key[0]}({self.uid})",
                    )
                    self._event("Warning", "BackOff", "Back-off restarting failed container", s)
                await asyncio.sleep(min(delay, 2.0) if s.waiting[0].startswith(("Err", "Image")) else delay)
            try:
                await self._start(s)
                return
            except UnknownImage as e:
                reason = "ErrImagePull" if failures == 0 else "ImagePullBackOff"
                self._event("Warning", "Failed", str(e.args[0]), s)
                self._event("Warning", "BackOff", f'Back-off pulling image "{s.spec["image"]}"', s)
                self._wait_state(s, reason, str(e.args[0]))
            except (OSError, volumes.NotReady, security.Misconfigured, KubeError) as e:
                config = isinstance(e, volumes.NotReady | security.Misconfigured)
                reason = "CreateContainerConfigError" if config else "CreateContainerError"
                text = e.args[1] if isinstance(e, OSError) and len(e.args) > 1 else str(e)
                self._event("Warning", "Failed", f"Error: {text}", s)
                self._wait_state(s, reason, str(text))
            failures += 1

    def _wait_state(self, s: State, reason: str, message: str) -> None:
        s.waiting = (reason, message)
        s.error = reason
        self._dirty.set()

    async def _start(self, s: State) -> None:
        name = s.spec["name"]
        adopted = self._adopted.pop(name, None)
        if adopted and adopted["code"] is None:
            s.id, s.running, s.started_at = adopted["id"], True, adopted["started"]
            s.attempt = int(adopted["id"].rpartition("/")[2])
            s.code, s.error = None, ""
            s.exited.clear()
            self.node.runtime.on_exit[s.id] = lambda message: self._on_exit(s, message)
            s.started = "startupProbe" not in s.spec
            s.done.set()
            self._dirty.set()
            return
        image = self.node.images.find(str(s.spec["image"]))
        spec = await self._spec(s, image)
        s.attempt += 1
        s.id = f"{self.uid}/{name}/{s.attempt}"
        spec["log"] = f"logs/{name}/{s.attempt}.log"
        s.done.clear()
        s.exited.clear()
        self.node.runtime.on_exit[s.id] = lambda message: self._on_exit(s, message)
        self._event("Normal", "Pulled", f'Container image "{s.spec["image"]}" already present on machine', s)
        try:
            answer = await self.node.runtime.call("start", id=s.id, spec=spec)
        except OSError:
            self.node.runtime.on_exit.pop(s.id, None)
            s.attempt -= 1
            raise
        s.running, s.started_at, s.code, s.error = True, answer["started"], None, ""
        s.ready = s.started = False
        self._event("Normal", "Created", f"Created container {name}", s)
        self._event("Normal", "Started", f"Started container {name}", s)
        self._dirty.set()
        if s.init:
            return
        hook = dig(s.spec, "lifecycle", "postStart")
        if hook and (failure := await self._hook(s, hook, 120)):
            self._event("Warning", "FailedPostStartHook", f"postStart of {name} failed: {failure}", s)
            await self._kill(s, 1)
        s.done.set()

    def _on_exit(self, s: State, message: Json) -> None:
        s.running, s.ready, s.started = False, False, False
        s.code, s.finished_at = message["code"], message["finished"]
        s.last = {"terminated": self._terminated(s)}
        s.exited.set()
        s.done.set()
        self._dirty.set()
        tasks.spawn(self.node.runtime.call("forget", id=s.id), "forget")

    async def _spec(self, s: State, image: Image) -> Json:
        """What the runtime needs to start a container."""
        user = self._privileges(s, image)
        base = {
            "PATH": PATH,
            "HOSTNAME": volumes.hostname(self.pod),
            "HOME": user.home,
            "KUBERNETES_SERVICE_HOST": plan.API_IP,
            "KUBERNETES_SERVICE_PORT": "443",
            "KUBERNETES_PORT": f"tcp://{plan.API_IP}:443",
            **dict(image.env),
        }
        if self.node.rootless and image.marks_traffic:
            base["LATEEN_SOCKET_MARK"] = "1337"
        env = await volumes.environment(self.node.client, self.pod, s.spec, base)
        command = [volumes.expand(c, env) for c in s.spec.get("command") or []]
        arguments = [volumes.expand(a, env) for a in s.spec.get("args") or []]
        argv = command + arguments if command else [*image.entrypoint, *(arguments or image.arguments)]
        mounts = [
            {"source": source, "target": target, "readOnly": read_only} for source, target, read_only in image.mounts
        ]
        mounts += self.volumes.mounts(self.pod, s.spec)
        passwd, group = (Path(f"/etc/{f}").read_text(errors="replace") for f in ("passwd", "group"))
        return {
            "build": True,
            "argv": argv,
            "env": env,
            "cwd": s.spec.get("workingDir") or image.directory or "/",
            "directory": str(self.node.root / self.uid),
            "netns": links.path(self.uid),
            "hostname": volumes.hostname(self.pod),
            "sysctls": security.sysctls(self.pod, self.node.rootless),
            "etc": volumes.etc_files(self.pod, self.address)
            | security.accounts(passwd, group, user.uid, user.gid, user.home),
            # Outer directories first: a volume on /tmp must not hide programs that lie below it.
            "mounts": sorted(mounts, key=lambda m: str(m["target"]).rstrip("/").split("/")),
            **user.spec(),
        }

    def _privileges(self, s: State, image: Image) -> security.Privileges:
        found = security.decide(
            self.pod,
            s.spec,
            image.user,
            frozenset(CAPABILITIES),
            _account,
            self.node.rootless,
            image.marks_traffic,
        )
        for note in found.notes:
            self._event("Warning", "SecurityContext", note, s)
        return found

    async def _hook(self, s: State, hook: Json, timeout: float) -> str | None:
        if "exec" in hook:
            try:
                code, output = await self.execute(s, hook["exec"]["command"], timeout)
                return None if code == 0 else f"exit {code}: {output[:300]}"
            except (OSError, TimeoutError, LookupError) as e:
                return str(e) or type(e).__name__
        return await probes.check(
            {**hook, "timeoutSeconds": timeout}, s.spec, self.address, lambda c, t: self.execute(s, c, t)
        )

    async def execute(self, s: State, command: list[str], timeout: float) -> tuple[int, str]:
        """Run a command in a running container; (exit code, output). Raises OSError, TimeoutError."""
        read, write = os.pipe()
        null = os.open("/dev/null", os.O_RDONLY)
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.node.exec_count += 1
        key = f"exec/{self.uid}/{self.node.exec_count}"
        self.node.runtime.on_exit[key] = lambda m: finish(done, m)
        try:
            await self.node.runtime.call(
                "exec", [null, write], **{"in": s.id, "id": key, "spec": await self.exec_spec(s, command)}
            )
        except OSError:
            self.node.runtime.on_exit.pop(key, None)
            os.close(read)
            raise
        finally:
            os.close(write)
            os.close(null)
        try:
            async with asyncio.timeout(timeout):
                code = await done
            os.set_blocking(read, False)
            try:
                output = os.read(read, 4096)
            except BlockingIOError:
                output = b""
            return code, output.decode(errors="replace").strip()
        except TimeoutError:
            await self.node.runtime.call("kill", id=key, signal=9)
            raise
        finally:
            os.close(read)

    async def exec_spec(self, s: State, command: list[str]) -> Json:
        spec = await self._spec(s, self.node.images.find(str(s.spec["image"])))
        return {**spec, "argv": command, "build": False, "mounts": [], "etc": {}}

    # --- probes ----------------------------------------------------------------------------------------------

    async def _probe(self, s: State) -> None:
        startup = s.spec.get("startupProbe")
        if startup and not await self._startup(s, startup):
            return
        s.started = True
        self._dirty.set()
        live, ready = s.spec.get("livenessProbe"), s.spec.get("readinessProbe")
        if not ready:
            s.ready = True
            self._dirty.set()
        await asyncio.gather(*(self._watch(s, p, kind) for p, kind in ((live, "Liveness"), (ready, "Readiness")) if p))

    async def _startup(self, s: State, probe: Json) -> bool:
        verdicts = probes.Threshold(probe)
        await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
        while True:
            failure = await probes.check(probe, s.spec, self.address, lambda c, t: self.execute(s, c, t))
            verdict = verdicts.add(failure is None)
            if verdict is not None:
                if not verdict:
                    self._event("Warning", "Unhealthy", f"Startup probe failed: {failure}", s)
                    await self._kill(s, self.grace)
                return verdict
            await asyncio.sleep(float(probe.get("periodSeconds") or 10))

    async def _watch(self, s: State, probe: Json, kind: str) -> None:
        verdicts = probes.Threshold(probe)
        await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
        while s.running:
            failure = await probes.check(probe, s.spec, self.address, lambda c, t: self.execute(s, c, t))
            verdict = verdicts.add(failure is None)
            if failure is not None:
                self._event("Warning", "Unhealthy", f"{kind} probe failed: {failure}", s)
            if kind == "Readiness" and verdict is not None and verdict != s.ready:
                s.ready = verdict
                self._dirty.set()
            if kind == "Liveness" and verdict is False:
                self._event(
                    "Normal", "Killing", f"Container {s.spec['name']} failed liveness probe, will be restarted", s
                )
                await self._kill(s, self.grace)
                return
            await asyncio.sleep(float(probe.get("periodSeconds") or 10))

    # --- the end ---------------------------------------------------------------------------------------------

    async def _kill(self, s: State, grace: float) -> None:
        if not s.running:
            return
        deadline = asyncio.get_running_loop().time() + grace
        hook = dig(s.spec, "lifecycle", "preStop")
        if hook and grace > 0:
            await self._hook(s, hook, grace)
        await self.node.runtime.call("kill", id=s.id, signal=15)
        try:
            async with asyncio.timeout(max(deadline - asyncio.get_running_loop().time(), 0.1)):
                await self._exited(s)
        except TimeoutError:
            await self.node.runtime.call("kill", id=s.id, signal=9)
            async with asyncio.timeout(10):
                await self._exited(s)

    async def _end(self) -> None:
        for s in self.main:
            if s.running:
                self._event("Normal", "Killing", f"Stopping container {s.spec['name']}", s)
        results = await asyncio.gather(
            *(self._kill(s, self.grace) for s in [*self.init, *self.main]), return_exceptions=True
        )
        for failure in (r for r in results if isinstance(r, Exception)):
            log.warning("stopping %s/%s: %s", *self.key, failure)
        if not self._refused:
            await links.remove_pod(self.uid)
            self.volumes.remove()
        if self.address:
            self.node.addresses.free(self.address)
        await self.node.client.delete(kinds.POD, *self.key, grace=0)

    # --- status ----------------------------------------------------------------------------------------------

    def _event(self, type_: str, reason: str, message: str, s: State | None = None) -> None:
        path = ""
        if s is not None:
            path = f"spec.{'initContainers' if s.init else 'containers'}{{{s.spec['name']}}}"
        self.node.events.event(self.pod, type_, reason, message, path)

    async def _publish_loop(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            status = self._status()
            if status != self._published:
                try:
                    await self.node.client.patch(kinds.POD, *self.key, {"status": status}, "status")
                    self._published = status
                except KubeError as e:
                    if e.code == 404:
                        return
                    self._dirty.set()
                    await asyncio.sleep(0.5)
                except OSError:
                    self._dirty.set()
                    await asyncio.sleep(0.5)
            await asyncio.sleep(0.01)

    def _terminated(self, s: State) -> Json:
        return {
            "exitCode": s.code or 0,
            "reason": "Completed" if s.code == 0 else "Error",
            "startedAt": _time(s.started_at),
            "finishedAt": _time(s.finished_at),
            "containerID": f"lateen://{s.id}",
        }

    def _container_status(self, s: State) -> Json:
        if s.running:
            state: Json = {"running": {"startedAt": _time(s.started_at)}}
        elif s.error:
            state = {"waiting": {"reason": s.waiting[0], "message": s.waiting[1]}}
        elif s.code is not None:
            state = {"terminated": self._terminated(s)}
        else:
            reason = "PodInitializing" if self.init and not self._initialized else s.waiting[0]
            state = {"waiting": {"reason": reason}}
        out: Json = {
            "name": s.spec["name"],
            "image": s.spec["image"],
            "imageID": f"lateen://{s.spec['image']}",
            "restartCount": max(s.attempt, 0),
            "ready": s.ready,
            "state": state,
            "started": s.started or (s.init and s.running),
        }
        if s.id:
            out["containerID"] = f"lateen://{s.id}"
        if s.last and not (not s.running and not s.error):
            out["lastState"] = s.last
        else:
            out["lastState"] = {}
        return out

    def _status(self) -> Json:
        if self._refused:
            return {"phase": "Failed", "reason": "InvalidPod", "message": self._refused, "startTime": self._started_at}
        ready = self._initialized and all(s.ready for s in self.main)
        running = any(s.running for s in self.main)
        phase = "Running" if running or (self._initialized and any(s.attempt >= 0 for s in self.main)) else "Pending"
        if self.pod["spec"].get("restartPolicy") != "Always" and all(
            not s.running and s.code is not None for s in self.main
        ):
            phase = "Succeeded" if all(s.code == 0 for s in self.main) else "Failed"
        unready = [s.spec["name"] for s in self.main if not s.ready]
        before = {
            c["type"]: c for c in self._published.get("conditions") or dig(self.pod, "status", "conditions", default=[])
        }
        conditions = []
        for kind, ok in (
            ("Initialized", self._initialized),
            ("Ready", ready),
            ("ContainersReady", ready),
            ("PodScheduled", True),
        ):
            text = "True" if ok else "False"
            was = before.get(kind)
            at = was["lastTransitionTime"] if was and was["status"] == text else times.stamp()
            c: Json = {"type": kind, "status": text, "lastTransitionTime": at}
            if not ok:
                c |= {
                    "reason": "ContainersNotReady",
                    "message": f"containers with unready status: [{' '.join(unready)}]",
                }
            conditions.append(c)
        status: Json = {
            "phase": phase,
            "conditions": conditions,
            "hostIP": plan.NODE_IP,
            "startTime": self._started_at,
            "containerStatuses": [self._container_status(s) for s in self.main],
        }
        if self.init:
            status["initContainerStatuses"] = [self._container_status(s) for s in self.init]
        if self.address:
            status |= {"podIP": self.address, "podIPs": [{"ip": self.address}]}
        return status
