"""The directories behind claims, and their removal once the claims are gone.

A volume of our own provisioner is a folder below the state directory; its handle is checked before it becomes one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.kubelet import names, ownership
from lateen.cluster.kubelet.events import Recorder
from lateen.cluster.rules import storage
from lateen.kit import beneath
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Informer, Key

log = logging.getLogger("lateen.kubelet")

AGAIN_S = 15.0


class Unbound(Exception):
    """The claim has no volume that can be mounted (yet); the message says why."""


@dataclass(frozen=True)
class Backing:
    """``own``: a folder of ours, for containers alone."""

    path: Path
    own: bool
    read_only: bool = False


async def backing(client: Client, pod: Json, volume: Json, folders: Path, group: int) -> Backing:
    """What to mount for a volume with a claim; a folder is made if it is missing. Raises Unbound, OSError."""
    namespace, name = pod["metadata"]["namespace"], storage.claims_of(pod)[volume["name"]]
    claim = await client.get(kinds.PERSISTENT_VOLUME_CLAIM, namespace, name)
    if claim is None:
        raise Unbound(f'persistentvolumeclaim "{name}" not found')
    if "ephemeral" in volume and not _made_for(claim, pod):
        raise Unbound(f'persistentvolumeclaim "{name}" was not created for the pod {pod["metadata"]["name"]}')
    pv_name = str(dig(claim, "spec", "volumeName", default=""))
    pv = await client.get(kinds.PERSISTENT_VOLUME, "", pv_name) if pv_name else None
    if dig(claim, "status", "phase") != "Bound" or pv is None or not storage.is_for(pv, claim):
        raise Unbound(f'persistentvolumeclaim "{name}" is not bound')
    read_only = bool(dig(volume, "persistentVolumeClaim", "readOnly"))
    spec = pv["spec"]
    if dig(spec, "csi", "driver") == storage.DRIVER:
        folder = await asyncio.to_thread(_folder, folders, handle(pv), group)  # it may have any number of files
        return Backing(folder, True, read_only or bool(spec["csi"].get("readOnly")))
    for kind in ("hostPath", "local"):
        if kind in spec:
            try:
                path = Path(names.on_node(spec[kind].get("path"), f"{pv_name}: spec.{kind}.path"))
            except names.Refused as e:
                raise Unbound(str(e)) from None
            if kind == "local" and not path.exists():
                raise Unbound(f'volume "{pv_name}": path "{path}" does not exist')
            if not path.exists():
                path.mkdir(parents=True)
            return Backing(path, False, read_only)
    found = next((k for k in ("csi", "nfs", "iscsi", "fc", "cephfs", "rbd") if k in spec), "of this type")
    raise Unbound(f'volume "{pv_name}": volumes {found} are not available in the embedded cluster')


def _made_for(claim: Json, pod: Json) -> bool:
    refs = dig(claim, "metadata", "ownerReferences", default=[])
    return any(ref.get("uid") == pod["metadata"]["uid"] for ref in refs)


def handle(pv: Json) -> str:
    """The name of its folder. Raises Unbound unless it is a single harmless component."""
    found = dig(pv, "spec", "csi", "volumeHandle")
    if not isinstance(found, str) or not names.LABEL.fullmatch(found):
        raise Unbound(f"{pv['metadata']['name']}: spec.csi.volumeHandle: {found!r:.80} is not a valid name")
    return found


def _folder(folders: Path, name: str, group: int) -> Path:
    """Everybody may write to a new one, like to an emptyDir; its contents are the user's from then on."""
    folders.mkdir(exist_ok=True, mode=0o700)
    new = not (folders / name).exists()
    with beneath.Directory.open(folders) as top, top.directory(name, make=True) as directory:
        if group >= 0:
            ownership.give(directory.fd, group)
        if new or group >= 0:
            os.fchmod(directory.fd, 0o777 if group < 0 else 0o2777)
    return folders / name


class Folders:
    """Removes the folders of released volumes whose policy is Delete, and then the volumes."""

    def __init__(self, client: Client, folders: Path, events: Recorder) -> None:
        self._client, self._folders, self._events = client, folders, events
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._informer = Informer(client, kinds.PERSISTENT_VOLUME, self._changed)

    def _changed(self, _: Kind, key: Key, __: Json | None, new: Json | None) -> None:
        if new is not None and self._ended(new):
            self._queue.put_nowait(key[1])

    def _ended(self, pv: Json) -> bool:
        spec = pv["spec"]
        ours = dig(spec, "csi", "driver") == storage.DRIVER and dig(pv, "status", "phase") == "Released"
        return bool(ours and spec.get("persistentVolumeReclaimPolicy") == "Delete")

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._informer.run(), name="informer of volumes")
            while True:
                name = await self._queue.get()
                try:
                    await self._remove(name)
                except (Unbound, OSError, KubeError) as e:
                    log.warning("removing the volume %s: %s (again in %.0f s)", name, e, AGAIN_S)
                    asyncio.get_running_loop().call_later(AGAIN_S, self._queue.put_nowait, name)

    async def _remove(self, name: str) -> None:
        pv = await self._client.get(kinds.PERSISTENT_VOLUME, "", name)
        if pv is None or not self._ended(pv):
            return
        folder = self._folders / handle(pv)
        try:
            if folder.exists():
                await asyncio.to_thread(shutil.rmtree, folder)
        except OSError as e:
            self._events.event(pv, "Warning", "VolumeFailedDelete", f"{e.strerror}: {e.filename}")
            raise
        await self._client.delete(kinds.PERSISTENT_VOLUME, "", name)
