"""Images in the stores of the machine's container engines, read without the engine and without its locks.

Podman, Buildah, CRI-O and Skopeo share containers/storage (https://github.com/containers/storage); Docker has a store
of its own (https://github.com/moby/moby, ``image`` and ``layer``) or, newer ones, containerd's
(https://github.com/containerd/containerd, ``core/metadata``), which k3s and nerdctl have, too. Their formats are not
promised to anybody: what does not look as expected is left out.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lateen.cluster.kubelet import bolt, diffs, layers, oci
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig

PREFIX = "store-"
"""Of the directories that have been made of these images."""
_DOCKER = ("docker.io", "index.docker.io")
"""The names of one registry."""
_SIMPLE = re.compile(r"[.0-9a-z]*")
_UNEXPECTED = (oci.Unusable, bolt.Broken, OSError, ValueError, LookupError, TypeError, AttributeError)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{64}")
_CACHE_ID = re.compile(r"[0-9a-z]+(-[0-9a-z]+)*")


@dataclass(frozen=True)
class Stored:
    """``config``: what the image says of its command; ``unpack``: copies its files to a directory of this name below
    another one, with their owners or without (raises Unusable, OSError)."""

    digest: str
    engine: str
    config: Json
    unpack: Callable[[Path, str, bool], Path]

    @property
    def directory(self) -> str:
        return PREFIX + self.digest.replace(":", "-")


Images = dict[str, Callable[[], Stored]]
"""By full names; one is read when it is wanted."""


def full(image: str) -> str:
    """The name with registry and tag (or digest), as engines write it."""
    head, at, digest = image.partition("@")
    folders, _, last = head.rpartition("/")
    name, colon, tag = last.partition(":")
    registry = _registry(head)
    if registry in ("", *_DOCKER):
        own = folders.removeprefix(registry).removeprefix("/")
        folders = f"docker.io/{own or 'library'}"
    return f"{folders}/{name}" + (f"@{digest}" if at else f":{tag if colon else 'latest'}")


def _registry(image: str) -> str:
    """Empty for a name without one."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else ""


class Stores:
    """``root``: whether the machine's own stores are meant, or those of the user."""

    def __init__(self, root: bool, places: dict[str, list[Path]] | None = None) -> None:
        self._places = places if places is not None else _places(root)

    def find(self, image: str) -> Stored | None:
        """Of a name without registry, what was built here (``localhost``) counts, too."""
        wanted = [full(image)]
        if not _registry(image):
            folders = "library/" if "/" not in image.partition("@")[0] else ""
            wanted.append("localhost/" + wanted[0].removeprefix(f"docker.io/{folders}"))
        for images in self._all():
            for name in wanted:
                if name in images:
                    with contextlib.suppress(*_UNEXPECTED):
                        return images[name]()
        return None

    def all(self) -> dict[str, Stored]:
        """By full names."""
        out: dict[str, Stored] = {}
        for images in self._all():
            for name, read in images.items():
                with contextlib.suppress(*_UNEXPECTED):
                    out.setdefault(name, read())
        return out

    def _all(self) -> Iterator[Images]:
        readers = {"containers": _containers, "docker": _docker, "containerd": _containerd}
        for engine, places in self._places.items():
            for place in places:
                with contextlib.suppress(*_UNEXPECTED):
                    yield readers[engine](place)


def _places(root: bool) -> dict[str, list[Path]]:
    if root:
        docker = _setting(Path("/etc/docker/daemon.json"), jsons.loads, "data-root") or "/var/lib/docker"
        containerd = ["/var/lib/containerd", f"{docker}/containerd/daemon", "/var/lib/rancher/k3s/agent/containerd"]
        default, settings = "/var/lib/containers/storage", [Path("/etc/containers/storage.conf")]
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
        docker, containerd, default = str(data / "docker"), [str(data / "containerd")], str(data / "containers/storage")
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        settings = [config / "containers/storage.conf"]
    if chosen := os.environ.get("CONTAINERS_STORAGE_CONF"):
        settings = [Path(chosen)]
    own = _setting(settings[0], _toml, "storage", "graphroot")
    shared = _setting(settings[0], _toml, "storage", "options", "additionalimagestores") or []
    return {
        "containers": [Path(os.path.expandvars(str(p))) for p in (own or default, *shared)],
        "docker": [Path(docker)],
        "containerd": [Path(p) for p in containerd],
    }


def _toml(raw: bytes) -> Json:
    return tomllib.loads(raw.decode())


def _setting(path: Path, parse: Callable[[bytes], Any], *keys: str) -> Any:
    try:
        return dig(parse(path.read_bytes()), *keys)
    except (OSError, ValueError):
        return None


def _json(path: Path) -> Any:
    return jsons.loads(path.read_bytes())


def _containers(place: Path) -> Images:
    """containers/storage with the drivers overlay and vfs."""
    out: Images = {}
    for driver in ("overlay", "vfs"):
        listed = place / f"{driver}-images" / "images.json"
        for image in _json(listed) if listed.exists() else []:
            for name in image.get("names") or []:
                out[full(name)] = out[f"{full(name).rpartition(':')[0]}@{image.get('digest')}"] = _reader(
                    _of_containers, place, driver, image
                )
    return out


def _reader(read: Callable[..., Stored], *arguments: Any) -> Callable[[], Stored]:
    return lambda: read(*arguments)


def _of_containers(place: Path, driver: str, image: Json) -> Stored:
    folder = place / f"{driver}-images" / _part(image["id"], _ID)

    def kept(key: str) -> Any:
        encoded = base64.b64encode(key.encode()).decode()
        return _json(folder / (key if _SIMPLE.fullmatch(key) else f"={encoded}"))

    digest = str(kept("manifest")["config"]["digest"])
    _hex(digest)
    above = {layer["id"]: layer.get("parent") or "" for layer in _json(place / f"{driver}-layers" / "layers.json")}
    chain, at = [], image.get("layer") or ""
    while at:
        layer = _part(at, _ID)
        chain.append(place / driver / layer / "diff" if driver == "overlay" else place / "vfs" / "dir" / layer)
        at = above.pop(at)  # a second time it is not there
    return _copied(digest, "podman", kept(digest), chain[::-1], driver)


def _docker(place: Path) -> Images:
    """Docker's own store, with the drivers overlay2 and vfs."""
    out: Images = {}
    for driver in ("overlay2", "vfs"):
        listed = place / "image" / driver / "repositories.json"
        for names in (_json(listed)["Repositories"] if listed.exists() else {}).values():
            for name, digest in names.items():
                out[full(name)] = _reader(_of_docker, place, driver, digest)
    return out


def _of_docker(place: Path, driver: str, digest: str) -> Stored:
    kept = place / "image" / driver
    config = _json(kept / "imagedb" / "content" / "sha256" / _hex(digest))
    chain, found = "", []
    for diff in config["rootfs"].get("diff_ids") or []:
        chain = f"sha256:{hashlib.sha256(f'{chain} {diff}'.encode()).hexdigest()}" if chain else diff
        cache = _part((kept / "layerdb" / "sha256" / _hex(chain) / "cache-id").read_text().strip(), _CACHE_ID)
        found.append(place / "overlay2" / cache / "diff" if driver == "overlay2" else place / "vfs" / "dir" / cache)
    return _copied(digest, "docker", config, found, driver)


def _copied(digest: str, engine: str, config: Json, chain: list[Path], driver: str) -> Stored:
    """``chain``: the layers' directories; vfs has everything in the last one."""
    _hex(digest)
    kept = chain[-1:] if driver == "vfs" else chain
    made = config.get("architecture")
    if made not in (None, "", oci.architecture()):
        raise oci.Unusable(f"the image is for {made}")
    return Stored(
        digest,
        engine,
        config.get("config") or {},
        lambda rootfs, name, owners: diffs.copy(kept, rootfs, name, owners),
    )


def _part(found: Any, form: re.Pattern[str]) -> str:
    """An id of a store's metadata, which is to become a part of a path. Raises Unusable."""
    if not isinstance(found, str) or not form.fullmatch(found):
        raise oci.Unusable(f"{found!r} is not an id")
    return found


def _hex(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise oci.Unusable(f"{digest!r} is not a digest")
    return digest.removeprefix("sha256:")


def _containerd(place: Path) -> Images:
    """containerd's content, which is that of an OCI layout, and the names in its database; of all its namespaces."""
    database = place / "io.containerd.metadata.v1.bolt" / "meta.db"
    out: Images = {}
    if not database.exists():
        return out
    spaces = bolt.root(database).bucket(b"v1")
    for space in (spaces.buckets() if spaces else {}).values():
        images = space.bucket(b"images")
        for name, image in (images.buckets() if images else {}).items():
            if (target := image.bucket(b"target")) and (digest := target.values().get(b"digest")):
                out[full(name.decode())] = _reader(_of_containerd, place, digest.decode())
    return out


def _of_containerd(place: Path, digest: str) -> Stored:
    layout = oci.Layout(place / "io.containerd.content.v1.content", None)
    manifest = layout.described([{"digest": digest}], [])
    return Stored(
        manifest.digest,
        "containerd",
        manifest.config,
        lambda rootfs, name, owners: layers.unpack(layout, manifest, rootfs, owners, name),
    )
