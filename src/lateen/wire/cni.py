"""The protocol between runtimes and CNI plugins, and a node's network configuration files:
https://www.cni.dev/docs/spec/ (1.1). Pure."""

from __future__ import annotations

from collections.abc import Mapping

from lateen.kit import jsons
from lateen.kit.jsons import Json

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Versions with chained plugins; STATUS exists only in the last one."""
NAMESPACE, POD, UID = "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID"
"""The arguments with which Kubernetes' runtimes identify a pod."""


def chosen(names: list[str]) -> str:
    """The file that runtimes read: the first one by name; empty if there is none."""
    return next((n for n in sorted(names) if n.endswith((".conflist", ".conf", ".json"))), "")


def network(name: str, text: bytes) -> Json:
    """A file's plugin list (``cniVersion``, ``name``, ``plugins``, …); a single plugin becomes a list of one. Raises
    ValueError."""
    try:
        config = jsons.loads(text)
    except ValueError as e:
        raise ValueError(f"{name} is not JSON: {e}") from e
    if not isinstance(config, dict):
        raise ValueError(f"{name} is not a JSON object")
    if "plugins" not in config:
        version = config.pop("cniVersion", "0.3.1")
        config = {"cniVersion": version, "name": config.get("name") or "k8s-pod-network", "plugins": [config]}
    plugins = config["plugins"]
    if not isinstance(plugins, list) or not all(
        isinstance(p, dict) and isinstance(p.get("type"), str) for p in plugins
    ):
        raise ValueError(f"{name}: plugins must be a list of plugins, each with a type")
    return config


def arguments(pod: Json) -> str:
    """CNI_ARGS of a pod."""
    meta = pod["metadata"]
    named = {NAMESPACE: meta["namespace"], POD: meta["name"], UID: meta["uid"]}
    return ";".join(["IgnoreUnknown=1", *(f"{k}={v}" for k, v in named.items())])


def of_arguments(text: str) -> Mapping[str, str]:
    """The pairs of CNI_ARGS."""
    return dict(p.partition("=")[::2] for p in text.split(";"))


def error(code: int, says: str, details: str = "", version: str = "") -> Json:
    out: Json = {"cniVersion": version or VERSIONS[-1], "code": code, "msg": says}
    return out | ({"details": details} if details else {})


def said(answer: bytes) -> str:
    """The error message of a failed plugin; empty if it cannot be parsed."""
    try:
        return str(jsons.loads(answer)["msg"])
    except (ValueError, KeyError, TypeError):
        return ""
