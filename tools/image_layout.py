"""An OCI layout that is written blob by blob (https://github.com/opencontainers/image-spec)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Json = dict[str, Any]
_KIND = "application/vnd.oci.image."


@dataclass(frozen=True)
class Layer:
    """``diff``: digest of the archive before compression; ``says``: what the history of an image calls it."""

    descriptor: Json
    diff: str
    says: str


class Layout:
    def __init__(self, path: Path, epoch: int) -> None:
        self._path = path
        self._created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._entries: list[Json] = []
        (path / "blobs" / "sha256").mkdir(parents=True)

    def layer(self, archive: tuple[bytes, bytes], says: str) -> Layer:
        raw, packed = archive
        return Layer(self._blob(packed, "layer.v1.tar+gzip"), _digest(raw), says)

    def image(self, architecture: str, layers: list[Layer], config: Json) -> Json:
        """The descriptor of an image for one architecture. ``config``: Entrypoint, Cmd, Env, User, Labels."""
        made = {
            "created": self._created,
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [x.diff for x in layers]},
            "history": [{"created": self._created, "created_by": x.says} for x in layers],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_KIND}manifest.v1+json",
            "config": self._document(made, "config.v1+json"),
            "layers": [x.descriptor for x in layers],
        }
        entry = self._document(manifest, "manifest.v1+json")
        return entry | {"platform": {"os": "linux", "architecture": architecture}}

    def add(self, name: str, images: list[Json]) -> str:
        """Give the images of several architectures one name. Returns the digest that the name stands for."""
        kind = f"{_KIND}index.v1+json"
        found = self._document({"schemaVersion": 2, "mediaType": kind, "manifests": images}, "index.v1+json")
        self._entries.append(found | {"annotations": {"org.opencontainers.image.ref.name": name}})
        return str(found["digest"])

    def finish(self) -> None:
        (self._path / "index.json").write_text(_text({"schemaVersion": 2, "manifests": self._entries}))
        (self._path / "oci-layout").write_text(_text({"imageLayoutVersion": "1.0.0"}))

    def _document(self, body: Json, kind: str) -> Json:
        return self._blob(_text(body).encode(), kind)

    def _blob(self, data: bytes, kind: str) -> Json:
        digest = _digest(data)
        (self._path / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": f"{_KIND}{kind}", "digest": digest, "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _text(body: Json) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))
