"""The plugin's side of the CNI protocol (``wire.cni``). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.wire import cni
from lateen.wire.cni import VERSIONS

COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
INCOMPATIBLE, INVALID_ENVIRONMENT, INVALID_CONFIG, TRY_LATER, NOT_AVAILABLE, FAILED = 1, 4, 7, 11, 50, 100
"""Error codes of the specification; from 100 on they are a plugin's own."""


class Refused(Exception):
    """The plugin fails with an error object."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code, self.details = code, details


@dataclass(frozen=True)
class Request:
    """``namespace`` and ``pod`` are empty where the runtime is not of Kubernetes."""

    command: str
    version: str
    kubeconfig: str = ""
    excluded: tuple[str, ...] = ()
    """Namespaces whose pods are passed over."""
    netns: str = ""
    namespace: str = ""
    pod: str = ""
    uid: str = ""
    previous: Json = field(default_factory=dict)


def read(environment: Mapping[str, str], text: bytes) -> Request:
    """Raises Refused."""
    command = environment.get("CNI_COMMAND", "")
    if command not in COMMANDS:
        raise Refused(INVALID_ENVIRONMENT, f"CNI_COMMAND is {command!r}; expected one of {', '.join(COMMANDS)}")
    try:
        config = jsons.loads(text)
    except ValueError as e:
        raise Refused(INVALID_CONFIG, f"the network configuration is not valid JSON: {e}") from e
    if not isinstance(config, dict):
        raise Refused(INVALID_CONFIG, "the network configuration is not a JSON object")
    version = str(config.get("cniVersion") or "")
    if command == "VERSION":
        return Request(command, version)
    if version not in VERSIONS:
        raise Refused(INCOMPATIBLE, f"cniVersion {version!r} is not supported; supported are {', '.join(VERSIONS)}")
    # DEL must succeed whatever is wrong, or the pod stays for ever; GC has as little to do
    kubeconfig, excluded = ("", ()) if command in ("DEL", "GC") else _own(config)
    arguments = cni.of_arguments(environment.get("CNI_ARGS", ""))
    netns, previous = environment.get("CNI_NETNS", ""), config.get("prevResult")
    if command in ("ADD", "CHECK"):
        if not netns:
            raise Refused(INVALID_ENVIRONMENT, "CNI_NETNS is missing")
        if not isinstance(previous, dict):
            raise Refused(INVALID_CONFIG, "prevResult is missing: this plugin comes after the one that connects")
    return Request(
        command,
        version,
        kubeconfig,
        excluded,
        netns,
        arguments.get(cni.NAMESPACE, ""),
        arguments.get(cni.POD, ""),
        arguments.get(cni.UID, ""),
        previous if isinstance(previous, dict) else {},
    )


def _own(config: Json) -> tuple[str, tuple[str, ...]]:
    """The plugin's own settings: the path of its kubeconfig, and the excluded namespaces. Raises Refused."""
    given = config.get("kubernetes") or {}
    if not isinstance(given, dict):
        raise Refused(INVALID_CONFIG, "kubernetes is not a JSON object")
    path, excluded = given.get("kubeconfig") or "", given.get("excludeNamespaces") or []
    if not isinstance(path, str) or "\0" in path:
        raise Refused(INVALID_CONFIG, "kubernetes.kubeconfig is not the path of a file")
    if not isinstance(excluded, list) or not all(isinstance(n, str) for n in excluded):
        raise Refused(INVALID_CONFIG, "kubernetes.excludeNamespaces is not a list of names")
    return path, tuple(excluded)


def versions() -> Json:
    return {"cniVersion": VERSIONS[-1], "supportedVersions": list(VERSIONS)}


def error(e: Refused, version: str = "") -> Json:
    return cni.error(e.code, str(e), e.details, version)
