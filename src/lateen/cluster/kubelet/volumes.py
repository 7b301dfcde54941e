"""Volumes and environments of pods: from API objects to directories and variables."""

from __future__ import annotations

import base64
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lateen.api import kinds
from lateen.cluster.kubelet import claims, downward, names, scratch
from lateen.cluster.kubelet.published import Files, publish
from lateen.cluster.rules import amounts, storage
from lateen.kit import beneath
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

_VARIABLE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


class NotReady(Exception):
    """Something that the pod refers to does not exist (yet); the message names it."""


def expand(text: str, env: dict[str, str]) -> str:
    """Expand ``$(NAME)`` for known variables; ``$$`` is a literal dollar sign."""
    return _VARIABLE.sub(lambda m: "$" if m[0] == "$$" else env.get(m[1], m[0]), text)


async def environment(client: Client, pod: Json, container: Json, base: dict[str, str]) -> dict[str, str]:
    """Raises NotReady for a missing ConfigMap or Secret that is not optional."""
    namespace = pod["metadata"]["namespace"]
    env = dict(base)
    for source in container.get("envFrom") or []:
        for key, kind in (("configMapRef", kinds.CONFIG_MAP), ("secretRef", kinds.SECRET)):
            if ref := source.get(key):
                found = await _object(client, kind, namespace, ref)
                prefixed = {source.get("prefix", "") + k: v for k, v in (found.get("data") or {}).items()}
                env |= {k: _text(kind, v) for k, v in prefixed.items() if names.variable(k)}
    for item in container.get("env") or []:
        if "valueFrom" not in item:
            env[item["name"]] = expand(str(item.get("value") or ""), env)
            continue
        source = item["valueFrom"]
        if ref := source.get("fieldRef"):
            env[item["name"]] = downward.field(pod, ref["fieldPath"])
        elif ref := source.get("resourceFieldRef"):
            env[item["name"]] = downward.resource(_container(pod, ref.get("containerName")) or container, ref)
        else:
            kind, ref = (
                (kinds.CONFIG_MAP, source["configMapKeyRef"])
                if "configMapKeyRef" in source
                else (kinds.SECRET, source["secretKeyRef"])
            )
            found = await _object(client, kind, namespace, ref)
            if ref["key"] in (found.get("data") or {}):
                env[item["name"]] = _text(kind, found["data"][ref["key"]])
            elif not ref.get("optional"):
                raise NotReady(f"couldn't find key {ref['key']} in {kind.kind} {namespace}/{ref['name']}")
    return env


def _text(kind: kinds.Kind, value: str) -> str:
    text = base64.b64decode(value).decode(errors="replace") if kind is kinds.SECRET else value
    if "\0" in text:
        raise NotReady("a value with NUL characters cannot be an environment variable")
    return text


async def _object(client: Client, kind: kinds.Kind, namespace: str, ref: Json) -> Json:
    name = ref.get("name") or ref.get("secretName") or ""
    found = await client.get(kind, namespace, name)
    if found is None and not ref.get("optional"):
        raise NotReady(f'{kind.kind.lower()} "{name}" not found')
    return found or {}


class Volumes:
    """The volumes of one pod, below a directory of its own.

    Containers write to emptyDir volumes, and keys of ConfigMaps become file names, so everything below it is opened
    through ``kit.beneath``.
    """

    def __init__(
        self,
        client: Client,
        root: Path,
        folders: Path,
        one_group: bool = False,
        of_node: Mapping[Path, Path] = MappingProxyType({}),
    ) -> None:
        """``folders``: where the folders of claims are. ``one_group``: without root on the host there is no other group
        that files could belong to, and none is needed. ``of_node``: paths of the node that are elsewhere on this
        machine."""
        self._of_node = of_node
        self._client, self._root, self._folders, self._one_group = client, root, folders, one_group
        self._claimed: dict[str, claims.Backing] = {}
        self._tokens: dict[tuple[str, str], tuple[float, bytes]] = {}

    def path(self, volume: str) -> Path:
        return self._root / "volumes" / volume

    async def prepare(self, pod: Json) -> None:
        """Create or refresh every volume; called again periodically. Raises NotReady, OSError."""
        self._root.mkdir(parents=True, exist_ok=True)
        group = -1 if self._one_group else int(dig(pod, "spec", "securityContext", "fsGroup", default=-1))
        for volume in pod["spec"].get("volumes") or []:
            await self._volume(pod, volume, group)

    def _at(self, path: str) -> Path:
        """Where a path of the node is on this machine."""
        for seen, there in self._of_node.items():
            if Path(path).is_relative_to(seen):
                return there / Path(path).relative_to(seen)
        return Path(path)

    async def _volume(self, pod: Json, volume: Json, group: int) -> None:
        if "hostPath" in volume:
            host_path(self._at(volume["hostPath"]["path"]), volume["hostPath"].get("type") or "")
            return
        if volume["name"] in storage.claims_of(pod):
            if volume["name"] not in self._claimed:  # once: another pod may give the same files to its own group
                self._claimed[volume["name"]] = await self._backing(pod, volume, group)
            return
        if "emptyDir" in volume:
            files = None
        else:
            files = await self._files(pod, volume)
        path = f"volumes/{volume['name']}"
        there = self.path(volume["name"])
        new = not there.exists()
        with beneath.Directory.open(self._root) as own:
            if scratch.in_memory(volume) and not os.path.ismount(there):
                with own.directory(path, make=True) as directory:
                    scratch.mount(directory.fd, pod, volume)
                new = True
            directory = own.directory(path, make=True)
        with directory:
            if files is None and new:  # containers may have given it another owner or mode since
                _owned(directory, 0o777 if group < 0 else 0o2777, group)
            if files is not None:
                _owned(directory, 0o755, group)
                publish(directory, files, group)

    async def _backing(self, pod: Json, volume: Json, group: int) -> claims.Backing:
        try:
            return await claims.backing(self._client, pod, volume, self._folders, group)
        except claims.Unbound as e:
            raise NotReady(str(e)) from None

    async def _files(self, pod: Json, volume: Json) -> Files:
        if "configMap" in volume:
            return await self._items(pod, kinds.CONFIG_MAP, volume["configMap"])
        if "secret" in volume:
            return await self._items(pod, kinds.SECRET, volume["secret"])
        if "downwardAPI" in volume:
            return self._downward(pod, volume["downwardAPI"])
        if "projected" in volume:
            files: Files = {}
            for source in volume["projected"].get("sources") or []:
                files |= await self._projected(pod, source, volume)
            return files
        kind = next((k for k in volume if k != "name"), "none")
        raise NotReady(
            f'volume "{volume["name"]}": the volume type {kind} is not available in the embedded cluster (emptyDir, '
            "configMap, secret, downwardAPI, projected, hostPath, persistentVolumeClaim and ephemeral are)"
        )

    async def _items(self, pod: Json, kind: kinds.Kind, source: Json, mode: object = None) -> Files:
        found = await _object(self._client, kind, pod["metadata"]["namespace"], source)
        default = _mode(source.get("defaultMode", mode))
        data: dict[str, bytes] = {}
        for key, value in (found.get("data") or {}).items():
            data[key] = base64.b64decode(value) if kind is kinds.SECRET else value.encode()
        data |= {k: base64.b64decode(v) for k, v in (found.get("binaryData") or {}).items()}
        if not source.get("items"):
            for key in data:
                if not names.KEY.fullmatch(key) or key in (".", ".."):
                    raise NotReady(
                        f"{kind.kind.lower()} {source.get('name') or source.get('secretName')!r}: "
                        f"the key {key!r:.80} cannot be used as a file name"
                    )
            return {k: (v, default) for k, v in data.items()}
        out: Files = {}
        for item in source["items"]:
            if item["key"] in data:
                out[item["path"]] = (data[item["key"]], _mode(item.get("mode", default)))
            elif not source.get("optional"):
                raise NotReady(f"{kind.kind.lower()} references non-existent key: {item['key']}")
        return out

    def _downward(self, pod: Json, source: Json, mode: object = None) -> Files:
        out: Files = {}
        for item in source.get("items") or []:
            if "fieldRef" in item:
                text = downward.field(pod, item["fieldRef"]["fieldPath"])
            else:
                ref = item.get("resourceFieldRef") or {}
                if (container := _container(pod, ref.get("containerName"))) is None:
                    raise NotReady(f"downwardAPI: there is no container {ref.get('containerName')!r:.80}")
                text = downward.resource(container, ref)
            out[item["path"]] = (text.encode(), _mode(item.get("mode", source.get("defaultMode", mode))))
        return out

    async def _projected(self, pod: Json, source: Json, volume: Json) -> Files:
        mode = volume["projected"].get("defaultMode")
        if "configMap" in source:
            return await self._items(pod, kinds.CONFIG_MAP, source["configMap"], mode)
        if "secret" in source:
            return await self._items(pod, kinds.SECRET, source["secret"], mode)
        if "downwardAPI" in source:
            return self._downward(pod, source["downwardAPI"], mode)
        if "serviceAccountToken" not in source:
            kind = next(iter(source), "none")
            raise NotReady(f'volume "{volume["name"]}": the source {kind} is not available in the embedded cluster')
        wanted = source["serviceAccountToken"]
        path = str(wanted.get("path") or "token")
        return {path: (await self._token(pod, wanted, (volume["name"], path)), _mode(mode))}

    async def _token(self, pod: Json, wanted: Json, key: tuple[str, str]) -> bytes:
        """Requested again after four fifths of its lifetime."""
        until, token = self._tokens.get(key, (0.0, b""))
        if until > time.time():
            return token
        lifetime = int(wanted.get("expirationSeconds") or 3600)
        body: Json = {
            "spec": {
                "expirationSeconds": lifetime,
                "boundObjectRef": {
                    "kind": "Pod",
                    "apiVersion": "v1",
                    "name": pod["metadata"]["name"],
                    "uid": pod["metadata"]["uid"],
                },
            }
        }
        if wanted.get("audience"):
            body["spec"]["audiences"] = [wanted["audience"]]
        account = dig(pod, "spec", "serviceAccountName", default="") or "default"
        answer = await self._client.request(kinds.SERVICE_ACCOUNT, pod["metadata"]["namespace"], account, "token", body)
        token = str(answer["status"]["token"]).encode()
        self._tokens[key] = (time.time() + lifetime * 0.8, token)
        return token

    def mounts(self, pod: Json, container: Json, env: dict[str, str]) -> list[Json]:
        """The form that the runtime reads; ``env``: the container's variables, which a subPathExpr may name. Volumes
        filled from the API are read-only, as in Kubernetes. Raises NotReady."""
        volumes = {v["name"]: v for v in pod["spec"].get("volumes") or []}
        out: list[Json] = []
        for m in container.get("volumeMounts") or []:
            volume = volumes[m["name"]]
            host = dig(volume, "hostPath", "path")
            sub = m.get("subPath") or _sub_path(m, env)
            claimed = self._claimed.get(m["name"])
            path = claimed.path if claimed else self._at(host) if host else self.path(m["name"])
            fixed = claimed.read_only if claimed else not (host or "emptyDir" in volume)
            out.append(
                {
                    "source": str(path),
                    "sub": names.relative(sub, "subPath") if sub else "",
                    "target": str(m["mountPath"]),
                    "readOnly": bool(m.get("readOnly")) or fixed,
                    "own": claimed.own if claimed else not host,
                    "links": fixed and not claimed,
                }
            )
        return out

    def exceeded(self, pod: Json) -> str:
        """Which volume is larger than it may be; empty if none is."""
        return scratch.exceeded(pod, self._root / "volumes")

    def remove(self) -> None:
        scratch.release(self._root)
        shutil.rmtree(self._root, ignore_errors=True)


def _container(pod: Json, name: object) -> Json | None:
    return next((c for c in amounts.containers(pod["spec"]) if c["name"] == name), None)


def _sub_path(mount: Json, env: dict[str, str]) -> str:
    """What the subPathExpr comes to. Raises NotReady where it names no variable."""
    text = str(mount.get("subPathExpr") or "")
    if missing := [m[1] for m in _VARIABLE.finditer(text) if m[0] != "$$" and m[1] not in env]:
        says = f"missing value for {missing[0]!r}"
        raise NotReady(f"failed to expand the subPathExpr {text!r} of volumeMount {mount['name']!r}: {says}")
    try:
        return names.relative(expand(text, env), "subPathExpr") if text else ""
    except names.Refused as e:
        raise NotReady(f"volumeMount {mount['name']!r}: {e}") from None


def _mode(value: object) -> int:
    return int(value) & 0o777 if isinstance(value, int) else 0o644


def _owned(directory: beneath.Directory, mode: int, group: int) -> None:
    if group >= 0:
        os.fchown(directory.fd, -1, group)
    os.fchmod(directory.fd, mode)


def host_path(path: Path, kind: str) -> None:
    """Check the type of a hostPath as Kubernetes does. Raises NotReady, OSError."""
    if kind in ("", "DirectoryOrCreate") and not path.exists():
        path.mkdir(parents=True, exist_ok=True)
    if kind == "FileOrCreate" and not path.exists():
        path.touch()
    tests = {
        "Directory": path.is_dir,
        "DirectoryOrCreate": path.is_dir,
        "File": path.is_file,
        "FileOrCreate": path.is_file,
        "Socket": path.is_socket,
        "CharDevice": path.is_char_device,
        "BlockDevice": path.is_block_device,
    }
    if kind in tests and not tests[kind]():
        raise NotReady(f"hostPath type check failed: {path} is not a {kind.removesuffix('OrCreate').lower()}")
