"""The network configuration of a node: our plugin is the last in the chain of the cluster's network. Pure."""

from __future__ import annotations

from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.wire import cni

TYPE = "istio-cni"
"""The name of the plugin and of its program; Istio's, because other programs look for it."""


def with_plugin(name: str, text: bytes, plugin: Json) -> tuple[str, bytes]:
    """Name and contents of the configuration with the plugin at its end, replaced if it is there. Raises ValueError."""
    return _listed(name), jsons.dumps(_without(name, text, plugin))


def without_plugin(name: str, text: bytes) -> bytes:
    """Raises ValueError."""
    return jsons.dumps(_without(name, text))


def has_plugin(name: str, text: bytes, plugin: Json) -> bool:
    """Whether the plugin is already in the chain."""
    try:
        return with_plugin(name, text, plugin) == (name, jsons.dumps(cni.network(name, text)))
    except ValueError:
        return False


def _without(name: str, text: bytes, *last: Json) -> Json:
    config = cni.network(name, text)
    return {**config, "plugins": [*(p for p in config["plugins"] if p["type"] != TYPE), *last]}


def _listed(name: str) -> str:
    return name if name.endswith(".conflist") else f"{name.rpartition('.')[0]}.conflist"
