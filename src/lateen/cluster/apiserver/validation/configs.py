"""ConfigMaps and Secrets: their keys become file names and variables in pods."""

from __future__ import annotations

import base64

from lateen.cluster.apiserver.errors import Cause
from lateen.cluster.apiserver.validation import names
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, immutable, required, too_long
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig

MAX_SIZE = 1024 * 1024
_FROZEN = "field is immutable when `immutable` is set"
_NEEDED = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
_ACCOUNT = "kubernetes.io/service-account.name"


def config_map(obj: Json, old: Json | None) -> Causes:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    out: Causes = []
    for key in data:
        out += [bad(f"data[{key}]", key, s) for s in names.config_key(key)]
        if key in binary:
            out.append(bad(f"data[{key}]", key, "duplicate of key present in binaryData"))
    for key in binary:
        out += [bad(f"binaryData[{key}]", key, s) for s in names.config_key(key)]
    size = sum(len(v.encode()) for v in data.values()) + sum(len(v) * 3 // 4 for v in binary.values())
    if size > MAX_SIZE:
        out.append(too_long("[]", MAX_SIZE))
    return out + _frozen(obj, old, ("data", "binaryData"))


def secret(obj: Json, old: Json | None) -> Causes:
    data = obj.get("data") or {}
    out: Causes = []
    for key in data:
        out += [bad(f"data[{key}]", key, s) for s in names.config_key(key)]
    if sum(len(v) * 3 // 4 for v in data.values()) > MAX_SIZE:
        out.append(too_long("data", MAX_SIZE))
    kind = obj.get("type")
    out += _credentials(str(kind), data)
    out += [required(f"data[{key}]") for key in _NEEDED.get(str(kind), ()) if key not in data]
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & set(data):
        out += [required("data[username]"), required("data[password]")]
    if kind == "kubernetes.io/service-account-token" and not dig(obj, "metadata", "annotations", _ACCOUNT):
        out.append(required(f"metadata.annotations[{_ACCOUNT}]"))
    if old is not None and kind != old.get("type"):
        out.append(immutable("type", kind))
    return out + _frozen(obj, old, ("data",))


def _credentials(kind: str, data: Json) -> Causes:
    """Of a Secret for registries: a document that nobody can read is found when it is written, not by the first pod."""
    for key in _NEEDED.get(kind, ()):
        if kind.startswith("kubernetes.io/dockerc") and data.get(key):
            try:
                jsons.loads(base64.b64decode(data[key]))
            except ValueError as e:
                return [Cause(f"data[{key}]", f'Invalid value: "<secret contents redacted>": {e}')]
    return []


def _frozen(obj: Json, old: Json | None, fields: tuple[str, ...]) -> Causes:
    if old is None or not old.get("immutable"):
        return []
    out = [] if obj.get("immutable") else [denied("immutable", _FROZEN)]
    return out + [denied(f, _FROZEN) for f in fields if (obj.get(f) or {}) != (old.get(f) or {})]
