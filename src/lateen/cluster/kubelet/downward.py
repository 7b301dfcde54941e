"""The downward API: what a container may know about its pod, as the text of a variable or file."""

from __future__ import annotations

import math
import re

from lateen.cluster.kubelet import limits
from lateen.cluster.rules import amounts
from lateen.kit.jsons import Json, dig

_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]$")
_ADDRESSES = {"status.podIPs": "podIP", "status.hostIPs": "hostIP"}
"""Lists of addresses, which have one element each here; only the single fields are known before the first status."""


def field(pod: Json, path: str) -> str:
    """The value of a ``fieldRef``."""
    if m := _FIELD.match(path):
        return str(dig(pod, "metadata", m[1], m[2], default=""))
    if path in ("metadata.labels", "metadata.annotations"):
        values = dig(pod, *path.split("."), default={})
        return "".join(f"{k}={_quote(str(v))}\n" for k, v in sorted(values.items()))
    if single := _ADDRESSES.get(path):
        return str(dig(pod, "status", single, default=""))
    return str(dig(pod, *path.split("."), default=""))


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def resource(container: Json, ref: Json) -> str:
    """The value of a ``resourceFieldRef``. A limit that the container does not have is what the node has."""
    part, _, what = str(ref.get("resource", "")).partition(".")
    value = dig(container, "resources", part, what)
    if value is None:
        value = limits.capacity().get(what, "0") if part == "limits" else "0"
    divisor = amounts.parse(ref.get("divisor") or "1") or 1
    return str(math.ceil(amounts.parse(value) / divisor))
