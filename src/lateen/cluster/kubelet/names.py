"""Checks a pod's names and paths before the kubelet turns them into files, commands and options.

The API server validates pods as well; these checks do not rely on that, because whatever got past them would be written
outside of the pod's own directory. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from lateen.kit.jsons import Json, dig

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
"""A key of a ConfigMap or Secret."""

MAX_CONTAINERS = 64
MAX_VOLUMES = 256


class Refused(Exception):
    """The pod cannot be run as specified; the message names the field."""


def _match(pattern: re.Pattern[str], value: object, path: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Refused(f"{path}: {value!r:.80} is not a valid name")
    return value


def relative(value: object, path: str) -> str:
    """A path inside a volume."""
    if not isinstance(value, str) or not value or value.startswith("/") or "\0" in value or ".." in value.split("/"):
        raise Refused(f'{path}: {value!r:.80} is not a relative path without ".."')
    return value


def on_node(value: object, path: str) -> str:
    """A path of the node, whose root directory may be meant, too."""
    return "/" if value == "/" else absolute(value, path)


def absolute(value: object, path: str) -> str:
    """An absolute path in a container or on the node, other than the root directory."""
    if (
        not isinstance(value, str)
        or not value.startswith("/")
        or not value.strip("/.")
        or "\0" in value
        or ".." in value.split("/")
    ):
        raise Refused(f'{path}: {value!r:.80} is not an absolute path without ".."')
    return value


def variable(name: object) -> bool:
    """Whether ``name`` can be an environment variable (Kubernetes: printable ASCII without ``=``)."""
    return isinstance(name, str) and bool(name) and name.isascii() and name.isprintable() and "=" not in name


def check(pod: Json) -> None:
    """Raises Refused for the first unsafe name or path."""
    meta, spec = pod["metadata"], pod["spec"]
    _match(UID, meta.get("uid"), "metadata.uid")
    _match(LABEL, meta.get("namespace"), "metadata.namespace")
    _match(SUBDOMAIN, meta.get("name"), "metadata.name")
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            _match(LABEL, spec[field], f"spec.{field}")
    volumes = _volumes(spec.get("volumes") or [])
    seen: set[str] = set()
    for group in ("initContainers", "containers"):
        containers = spec.get(group) or []
        if len(containers) > MAX_CONTAINERS:
            raise Refused(f"spec.{group}: more than {MAX_CONTAINERS} containers")
        for i, container in enumerate(containers):
            _container(container, f"spec.{group}[{i}]", volumes, seen)
    for i, alias in enumerate(spec.get("hostAliases") or []):
        _host_alias(alias, f"spec.hostAliases[{i}]")


def _volumes(volumes: list[Json]) -> set[str]:
    if len(volumes) > MAX_VOLUMES:
        raise Refused(f"spec.volumes: more than {MAX_VOLUMES} volumes")
    found: set[str] = set()
    for i, volume in enumerate(volumes):
        name = _match(LABEL, volume.get("name"), f"spec.volumes[{i}].name")
        if name in found:
            raise Refused(f'spec.volumes[{i}].name: there are two volumes "{name}"')
        found.add(name)
        if "hostPath" in volume:
            on_node(dig(volume, "hostPath", "path"), f"spec.volumes[{i}].hostPath.path")
    return found


def _container(container: Json, path: str, volumes: set[str], seen: set[str]) -> None:
    name = _match(LABEL, container.get("name"), f"{path}.name")
    if name in seen:
        raise Refused(f'{path}.name: there are two containers "{name}"')
    seen.add(name)
    if not isinstance(container.get("image"), str) or not container["image"]:
        raise Refused(f"{path}.image: an image name is required")
    for field in ("command", "args"):
        _words(container.get(field) or [], f"{path}.{field}")
    if container.get("terminationMessagePath"):
        absolute(container["terminationMessagePath"], f"{path}.terminationMessagePath")
    if container.get("workingDir") not in (None, "", "/"):
        absolute(container["workingDir"], f"{path}.workingDir")
    for i, item in enumerate(container.get("env") or []):
        if not variable(item.get("name")):
            raise Refused(f"{path}.env[{i}].name: {item.get('name')!r:.80} cannot name an environment variable")
        if "\0" in str(item.get("value") or ""):
            raise Refused(f"{path}.env[{i}].value: it contains a NUL character")
    for i, mount in enumerate(container.get("volumeMounts") or []):
        where = f"{path}.volumeMounts[{i}]"
        if mount.get("name") not in volumes:
            raise Refused(f"{where}.name: there is no volume {mount.get('name')!r:.80}")
        absolute(mount.get("mountPath"), f"{where}.mountPath")
        if mount.get("subPath"):
            relative(mount["subPath"], f"{where}.subPath")


def _words(words: Any, path: str) -> None:
    for i, word in enumerate(words):
        if not isinstance(word, str) or "\0" in word:
            raise Refused(f"{path}[{i}]: must be a string without NUL characters")


def _host_alias(alias: Json, path: str) -> None:
    try:
        ipaddress.ip_address(str(alias.get("ip")))
    except ValueError:
        raise Refused(f"{path}.ip: {alias.get('ip')!r:.80} is not an IP address") from None
    for i, host in enumerate(alias.get("hostnames") or []):
        _match(SUBDOMAIN, host, f"{path}.hostnames[{i}]")
