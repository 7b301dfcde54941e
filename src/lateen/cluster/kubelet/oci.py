"""Images as OCI layouts: a directory, or a tar archive of one (https://github.com/opencontainers/image-spec).

``podman save --format oci-dir``, ``skopeo copy … oci:DIR``, ``docker buildx build --output type=oci`` and, since
version 25, ``docker save`` write them. Every blob is compared with its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import re
import signal
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lateen.kit import jsons
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig

MAX_JSON = 4 << 20
"""Bytes of an index, a manifest or a configuration (registries take no more of a manifest)."""
NAMES = ("org.opencontainers.image.ref.name", "io.containerd.image.name")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}
_REAL_TIME = re.compile(r"RTMIN\+(\d{1,2})|RTMAX-(\d{1,2})")
_CHUNK = 1 << 20


class Unusable(Exception):
    """The image cannot be used; the message says why and, where there is one, the remedy."""


@dataclass(frozen=True)
class Layer:
    digest: str
    compressed: bool


@dataclass(frozen=True)
class Manifest:
    """``config``: the ``config`` of the image's configuration (command, environment, user, …)."""

    digest: str
    config: Json
    layers: tuple[Layer, ...]


class Checked:
    """A blob that is read to its end; ``verify`` tells whether it was the one that was asked for."""

    def __init__(self, file: IO[bytes], digest: str) -> None:
        self._file, self._digest, self._hash = file, digest, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data

    def verify(self) -> None:
        """Raises Unusable."""
        while self.read(_CHUNK):
            pass
        if f"sha256:{self._hash.hexdigest()}" != self._digest:
            raise Unusable(f"the blob {self._digest} does not match its digest; copy the image again")


class Layout:
    """An open layout. Raises Unusable where something is missing or wrong."""

    def __init__(self, path: Path, archive: tarfile.TarFile | None) -> None:
        self._path, self._archive = path, archive

    @contextlib.contextmanager
    def _file(self, name: str) -> Iterator[IO[bytes]]:
        try:
            file = self._archive.extractfile(name) if self._archive else (self._path / name).open("rb")
        except (OSError, KeyError, tarfile.TarError):
            file = None
        if file is None:
            raise Unusable(f"there is no file {name} in it")
        with file:
            yield file

    @contextlib.contextmanager
    def blob(self, digest: str) -> Iterator[Checked]:
        if not _DIGEST.fullmatch(digest):
            raise Unusable(f"{digest[:80]!r} is not a digest of the form sha256:…")
        with self._file(f"blobs/sha256/{digest.removeprefix('sha256:')}") as file:
            yield Checked(file, digest)

    def _json(self, digest: str) -> Json:
        with self.blob(digest) as blob:
            raw = blob.read(MAX_JSON)
            blob.verify()
        return _object(raw, digest)

    def manifest(self, name: str = "") -> Manifest:
        """The image for this machine; of several, the one of this name."""
        try:
            with self._file("index.json") as file:
                index = _object(file.read(MAX_JSON), "index.json")
        except Unusable as e:
            says = "; docker save writes an OCI layout since Docker 25, podman save with --format oci-archive"
            raise Unusable(f"{e}, so it is not an OCI layout{says}") from None
        entries = _listed(index, "manifests")
        known = sorted({n for d in entries for n in _names(d)})
        chosen = [d for d in entries if not name or name in _names(d)]
        if not chosen:
            raise Unusable(f"the layout has no image {name!r}" + (f"; it has: {', '.join(known)}" if known else ""))
        return self.described(chosen, known)

    def described(self, chosen: list[Json], known: list[str]) -> Manifest:
        """The one image for this machine that descriptors lead to; ``known``: the names there are to choose from."""
        found = [m for d in chosen for m in self._resolved(d)]
        if not found:
            raise Unusable(f"the image is not for this machine (linux/{architecture()})")
        if len({digest for digest, _ in found}) > 1:
            raise Unusable(f"the layout has several images; choose one with --ref: {', '.join(known) or 'no names'}")
        digest, manifest = found[0]
        config = self._json(str(dig(manifest, "config", "digest", default="")))
        if (made := config.get("architecture")) not in (None, "", architecture()):
            raise Unusable(f"the image is for {config.get('os')}/{made}, this machine is linux/{architecture()}")
        layers = tuple(_layer(d) for d in _listed(manifest, "layers"))
        return Manifest(digest, dig(config, "config", default={}) or {}, layers)

    def _resolved(self, descriptor: Json, depth: int = 0) -> Iterator[tuple[str, Json]]:
        """The image manifests that a descriptor leads to and that are for this machine."""
        wanted = descriptor.get("platform") or {}
        if wanted and (wanted.get("os"), wanted.get("architecture")) != ("linux", architecture()):
            return
        digest = str(descriptor.get("digest"))
        found = self._json(digest)
        if "manifests" not in found:
            yield digest, found
        elif depth < 3:
            for inner in _listed(found, "manifests"):
                yield from self._resolved(inner, depth + 1)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Layout]:
    """Raises Unusable."""
    if path.is_dir():
        yield Layout(path, None)
        return
    with contextlib.ExitStack() as stack:
        try:
            archive = stack.enter_context(tarfile.open(path))
        except FileNotFoundError:
            raise Unusable("there is no such file or directory") from None
        except (OSError, tarfile.TarError) as e:
            raise Unusable(f"it is neither a directory nor a tar archive: {e}") from None
        yield Layout(path, archive)


def architecture() -> str:
    return _MACHINES.get(platform.machine(), platform.machine())


def _object(raw: bytes, called: str) -> Json:
    try:
        found = jsons.loads(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unusable(f"{called} of the layout is not a JSON object")
    return found


def _listed(found: Json, key: str) -> list[Json]:
    entries = found.get(key)
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise Unusable(f"the layout lacks the list {key!r}")
    return entries


def _names(descriptor: Json) -> list[str]:
    return [str(n) for key in NAMES if (n := dig(descriptor, "annotations", key))]


def _layer(descriptor: Json) -> Layer:
    kind = str(descriptor.get("mediaType") or "")
    if kind.endswith(("zstd", "encrypted")):
        remedy = "skopeo copy --dest-compress-format gzip oci:OLD oci:NEW"
        raise Unusable(f"a layer has the type {kind}, which is not supported; convert it with: {remedy}")
    return Layer(str(descriptor.get("digest")), kind.endswith("gzip"))


def stop_signal(text: Any) -> int:
    """``SIGQUIT``, ``QUIT``, ``3``, ``SIGRTMIN+3`` (systemd's) or ``SIGRTMAX-1``; SIGTERM where nothing is said. Raises
    Unusable."""
    name = str(text or "SIGTERM").removeprefix("SIG")
    known = {s.name.removeprefix("SIG"): int(s) for s in signal.Signals}
    number = int(name) if digits(name) else known.get(name, 0)
    if m := _REAL_TIME.fullmatch(name):
        number = signal.SIGRTMIN + int(m[1]) if m[1] else signal.SIGRTMAX - int(m[2])
    if not 0 < number <= signal.SIGRTMAX or (m and number < signal.SIGRTMIN):
        raise Unusable(f"the image's stop signal {text!r} is unknown")
    return number
