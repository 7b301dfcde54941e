"""The image catalogue: finds the image for a name, whatever registry, mirror, tag or digest the name has."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateen.cluster.kubelet.images import INSTEAD, Image, UnknownImage, built_in, shell
from lateen.kit import jsons
from lateen.kit.files import write_atomic

if TYPE_CHECKING:
    from lateen.cluster.kubelet.stores import Stored, Stores

ISTIO_FOLDERS = ("istio", "release", "testing", "istio-release", "istio-testing")
"""Istio publishes images to docker.io/istio, gcr.io/istio-release and, today, registry.istio.io/release."""


UNPACKING_S = 600.0
"""Seconds for which a directory of an image may be new, and about to be listed."""


def without_version(image: str) -> str:
    """The name without tag and digest."""
    head, slash, tail = image.partition("@")[0].rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}"


def repository(image: str) -> str:
    """The name without registry, tag and digest: ``docker.io/istio/proxyv2:1.8.1`` -> ``istio/proxyv2``."""
    name = without_version(image)
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        name = rest
    return name.removeprefix("library/")


def candidates(image: str) -> Iterator[str]:
    """The names that ``image`` may be registered under, the most exact one first: as given, without digest, without
    tag, without registry, and without the folders that a mirror prepends."""
    yield image
    yield image.partition("@")[0]
    yield without_version(image)
    name = repository(image)
    yield name
    while "/" in (rest := name.partition("/")[2]):
        name = rest
        yield name
    folder, _, last = name.rpartition("/")
    if folder in ISTIO_FOLDERS or last.startswith("examples-"):
        yield f"istio/{last}"


class Unreadable(UnknownImage):
    """The list of added images cannot be read, so it is unknown which images are in use."""


class NotUnpacked(UnknownImage):
    """The image is in a container engine's store, and nobody has needed its files yet."""

    def __init__(self, image: str, stored: Stored) -> None:
        says = f'the image "{image}" is in the store of {stored.engine}; the first pod that needs it unpacks it'
        super().__init__(says)
        self.stored = stored


class Refused(UnknownImage):
    """The image is in a container engine's store, but it cannot be used."""

    def __init__(self, image: str, stored: Stored, why: Exception) -> None:
        super().__init__(f'the image "{image}" in the store of {stored.engine} cannot be used: {why}')


class Catalogue:
    """Built-in images, those that ``lateen image add`` has written to ``images.json``, and those in the stores of
    container engines, whose files are unpacked below ``rootfs``; ``root``: whether the stores are the machine's.

    The file maps names to ``command``, ``mounts`` (paths, or ``source``, ``target`` and ``readOnly``), ``env``,
    ``user`` (uid, gid or null), ``directory``, and ``replaceable`` (a pod's args replace the command's arguments); an
    OCI image has ``rootfs``, ``arguments`` and ``stop``, too.
    """

    def __init__(self, own: Path, home_bin: Path, rootfs: Path, root: bool) -> None:
        self._own, self._rootfs, self._root = own, rootfs, root
        self._built_in = built_in(home_bin)
        self._unpacked: dict[str, Image] = {}
        """Of the stores, by the names that pods have: the store may forget them."""
        self._unpacking = asyncio.Lock()
        self._refused: dict[str, Refused] = {}
        """By directory: what could not be unpacked, and has a program of this machine in its place."""

    def added(self) -> dict[str, Any]:
        """Raises Unreadable."""
        try:
            found = jsons.loads(self._own.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as e:
            raise Unreadable(
                f"{self._own} cannot be read: {e}; repair it, or remove it and add the images again"
            ) from e
        if not isinstance(found, dict):
            raise Unreadable(f"{self._own} is not a JSON object; repair it, or remove it and add the images again")
        return found

    def all(self) -> dict[str, tuple[Image, str]]:
        """Image and origin by name."""
        out = {name: (image, "built-in") for name, image in self._built_in.items()}
        return out | {name: (_image(entry), "added") for name, entry in self.added().items()}

    def find(self, image: str) -> Image:
        """Raises UnknownImage, Unreadable."""
        return self.entry(image)[1]

    def entry(self, image: str) -> tuple[str, Image]:
        """The image and the name that it is registered under. Raises UnknownImage, Unreadable, NotUnpacked."""
        return self._look(image)[:2]

    def _look(self, image: str) -> tuple[str, Image, str]:
        """And why a program of this machine is in the image's place, if one is."""
        own = self.added()
        for name in candidates(image):
            if name in own:
                return name, _image(own[name]), ""
            if name in self._built_in:
                return name, self._built_in[name], ""
        instead_of_it = shell(repository(image))
        try:
            if found := self._stored(image) or instead_of_it:
                return image, found, ""
        except Refused as e:
            if instead_of_it is None:
                raise
            return image, instead_of_it, f"{e}; {' '.join(instead_of_it.arguments)} of this machine runs in its place"
        instead = next((INSTEAD[name] for name in candidates(image) if name in INSTEAD), "")
        raise UnknownImage(
            (f"{instead}; " if instead else "")
            + f'no local command is known for the image "{image}"; add one with: lateen image add '
            f"{shlex.quote(repository(image))} -- COMMAND [ARGUMENT…]"
        )

    def _stored(self, image: str) -> Image | None:
        """Of a container engine's store. Raises NotUnpacked, Refused."""
        from lateen.cluster.kubelet import layers
        from lateen.cluster.kubelet.oci import Unusable

        stored = self._stores().find(image)
        if stored is None:
            return self._unpacked.get(image)
        directory = self._rootfs / stored.directory
        if stored.directory in self._refused:
            raise self._refused[stored.directory]
        if not directory.is_dir():
            raise NotUnpacked(image, stored)
        try:
            self._unpacked[image] = _image(layers.entry(directory, stored.config))
        except (Unusable, LookupError, ValueError, TypeError, AttributeError) as e:  # whatever its builder wrote there
            raise Refused(image, stored, e) from e
        return self._unpacked[image]

    def _stores(self) -> Stores:
        from lateen.cluster.kubelet.stores import Stores  # imported late: most machines' pods need none

        return Stores(self._root)

    async def provide(self, image: str) -> str:
        """Unpack the image if it is in a store and nobody has done so. Returns why a program of this machine runs in
        its place, if one does. Raises UnknownImage, OSError."""
        try:
            return self._look(image)[2]
        except NotUnpacked as e:
            from lateen.cluster.kubelet.oci import Unusable

            stored = e.stored
            try:
                async with self._unpacking:
                    await asyncio.to_thread(stored.unpack, self._rootfs, stored.directory, self._root)
            except Unusable as unusable:
                refused = Refused(image, stored, unusable)
                if shell(repository(image)) is None:
                    raise refused from None
                self._refused[stored.directory] = refused
        return self._look(image)[2]

    def in_stores(self) -> dict[str, Stored]:
        """By full names."""
        return self._stores().all()

    def add(self, name: str, entry: dict[str, Any]) -> None:
        write_atomic(self._own, jsons.dumps(self.added() | {name: entry}), 0o600)

    def sweep(self) -> None:
        """Remove the files of images that no name stands for any more. Only while the cluster does not run: containers
        use them. Directories are known by their names: the path above may be another one today. Raises Unreadable."""
        from lateen.cluster.kubelet import layers

        used = {Path(str(entry.get("rootfs"))).name for entry in self.added().values()}
        found = list(self._rootfs.iterdir()) if self._rootfs.is_dir() else []
        if any(path.name not in used for path in found):
            used |= {stored.directory for stored in self.in_stores().values()}
        for path in found:
            if path.name not in used and time.time() - path.stat().st_mtime > UNPACKING_S:
                with contextlib.suppress(OSError):
                    layers.remove(path)

    def remove(self, name: str) -> bool:
        """False if ``name`` had not been added."""
        entries = self.added()
        if name not in entries:
            return False
        del entries[name]
        write_atomic(self._own, jsons.dumps(entries), 0o600)
        return True


def _image(entry: dict[str, Any]) -> Image:
    command = tuple(str(w) for w in entry["command"])
    mounts = tuple(
        (m, m, True) if isinstance(m, str) else (str(m["source"]), str(m["target"]), bool(m["readOnly"]))
        for m in entry.get("mounts") or ()
    )
    user = entry.get("user")
    return Image(
        () if entry.get("replaceable") else command,
        command if entry.get("replaceable") else tuple(str(w) for w in entry.get("arguments") or ()),
        tuple((entry.get("env") or {}).items()),
        mounts,
        (int(user[0]), user[1]) if user else None,
        str(entry.get("directory") or ""),
        rootfs=str(entry.get("rootfs") or ""),
        stop=int(entry.get("stop") or signal.SIGTERM),
    )
