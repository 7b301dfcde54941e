"""OCI layouts that tests make: files of layers, and what the image says of itself."""

import gzip
import hashlib
import io
import json
import tarfile

from lateen.cluster.kubelet import oci


class Archive:
    """A layer: members in the order in which they are added."""

    def __init__(self):
        self._raw = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._raw, mode="w")  # noqa: SIM115 - closed in ``bytes``

    def _add(self, name, kind, data=b"", mode=0o644, link="", uid=0):
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.size, member.linkname, member.uid = kind, mode, len(data), link, uid
        self._tar.addfile(member, io.BytesIO(data))
        return self

    def file(self, name, data=b"", mode=0o644, uid=0):
        return self._add(name, tarfile.REGTYPE, data, mode, uid=uid)

    def directory(self, name, mode=0o755):
        return self._add(name, tarfile.DIRTYPE, mode=mode)

    def link(self, name, target):
        return self._add(name, tarfile.SYMTYPE, link=target, mode=0o777)

    def hard(self, name, target):
        return self._add(name, tarfile.LNKTYPE, link=target)

    def device(self, name):
        return self._add(name, tarfile.CHRTYPE)

    def bytes(self):
        self._tar.close()
        return self._raw.getvalue()


def write(path, *layers, name="", compressed=True, architecture=None, **config):
    """A layout at ``path``. ``config``: Entrypoint, Cmd, Env, User, WorkingDir, StopSignal."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    def document(body, kind):
        return blob(json.dumps(body).encode(), kind)

    plain = [a.bytes() for a in layers]
    diffs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(p).hexdigest()}" for p in plain]}
    architecture = architecture or oci.architecture()
    made = {"os": "linux", "architecture": architecture, "config": config, "rootfs": diffs}
    packed = [gzip.compress(p, 1, mtime=0) if compressed else p for p in plain]
    manifest = {
        "schemaVersion": 2,
        "config": document(made, "config.v1+json"),
        "layers": [blob(p, "layer.v1.tar" + ("+gzip" if compressed else "")) for p in packed],
    }
    entry = document(manifest, "manifest.v1+json")
    entry |= {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
    known = json.loads((path / "index.json").read_text())["manifests"] if (path / "index.json").exists() else []
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [*known, entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return path
