"""What a pod's containers were before the node daemon was restarted: the runtime knows what runs and what has ended
meanwhile, and the pod's status what was before."""

from __future__ import annotations

import time
from collections.abc import Iterable

from lateen.cluster.kubelet import limits, pod_status
from lateen.cluster.kubelet.container import Container, Role, Terminated
from lateen.cluster.kubelet.sandbox import Sandbox
from lateen.kit import times
from lateen.kit.jsons import Json, dig


class Before:
    """``adopted``: containers that have outlived a node daemon, or have ended after it, by name."""

    def __init__(self, sandbox: Sandbox, adopted: dict[str, Json]) -> None:
        self._sandbox, self._adopted = sandbox, adopted
        self.over = dig(sandbox.pod, "status", "phase") in ("Succeeded", "Failed")
        main = sandbox.pod["spec"]["containers"]
        self.initialized = any(c["name"] in adopted for c in main)
        """A main container has been started in what is still there, so init containers are not run again."""

    def restore(self, containers: Iterable[Container]) -> None:
        """Give them the states that they were in, except for those that run: their keepers adopt them."""
        statuses = {
            s["name"]: s
            for k in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
            for s in dig(self._sandbox.pod, "status", k, default=[])
        }
        for c in containers:
            if was := statuses.get(c.name):
                self._restore(c, was)

    def running(self, name: str) -> Json | None:
        """The container as the runtime has it, if it runs."""
        found = self._adopted.get(name)
        return found if found and found["code"] is None else None

    def _restore(self, c: Container, was: Json) -> None:
        if "resources" in was and limits.infeasible(self._sandbox.pod["spec"]):
            c.spec = {**c.spec, "resources": was["resources"]}
        state, last = pod_status.parse(was.get("state")), pod_status.parse(was.get("lastState"))
        count = int(was.get("restartCount") or 0)
        if running := dig(was, "state", "running"):
            state = self._since(c, was, running, count)
        attempt = count if state or last or count or running else -1
        stays = (
            self.over
            or (c.role is Role.INIT and self.initialized)
            or c.role is Role.EPHEMERAL
            or (c.role is Role.MAIN and c.is_final(state, self._sandbox.policy))
        )
        c.restore(state if stays else None, last if stays else state or last, attempt)

    def _since(self, c: Container, was: Json, running: Json, attempt: int) -> Terminated | None:
        """What has become of a container that ran when the pod's status was written; None if it still runs."""
        key = str(was.get("containerID") or "").removeprefix("lateen://")
        found = self._adopted.get(c.name)
        if found is None or (found["code"] is not None and found["id"] != key):
            began = times.parse(running["startedAt"]).timestamp()
            return Terminated(key, 255, began, time.time(), "Unknown", "the cluster was stopped")
        if (code := found["code"]) is None:
            return None
        message = self._sandbox.message(c, attempt, code != 0)
        return Terminated(key, code, found["started"], found["finished"], "Error" if code else "Completed", message)
