"""Volumes and environments of pods: from API objects to directories and variables."""

from __future__ import annotations

import base64
import re
import shutil
import time
from pathlib import Path

from lateen.api import kinds
from lateen.kit.files import write_atomic
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]$")
_VARIABLE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


class NotReady(Exception):
    """Something that the pod refers to is not there (yet); the message names it."""


def field(pod: Json, path: str) -> str:
    """The downward API's field reference as text."""
    if m := _FIELD.match(path):
        return str(dig(pod, "metadata", m[1], m[2], default=""))
    if path in ("metadata.labels", "metadata.annotations"):
        values = dig(pod, *path.split("."), default={})
        return "".join(f"{k}={_quote(str(v))}\n" for k, v in sorted(values.items()))
    return str(dig(pod, *path.split("."), default=""))


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def resource(container: Json, ref: Json) -> str:
    name = str(ref.get("resource", ""))
    kind, _, what = name.partition(".")
    value = dig(container, "resources", kind, what) or dig(container, "resources", "requests", what, default="0")
    divisor = quantity(str(ref.get("divisor") or "1")) or 1
    return str(-int(-quantity(str(value)) // divisor))


_SUFFIX = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(text: str) -> float:
    m = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text)
    return float(m[1]) * _SUFFIX.get(m[2], 1) if m else 0.0


def expand(text: str, env: dict[str, str]) -> str:
    """``$(NAME)`` with a known variable; ``$$`` is a dollar."""
    return _VARIABLE.sub(lambda m: "$" if m[0] == "$$" else env.get(m[1], m[0]), text)


async def environment(client: Client, pod: Json, container: Json, base: dict[str, str]) -> dict[str, str]:
    """Raises NotReady for a missing ConfigMap or Secret that is not optional."""
    namespace = pod["metadata"]["namespace"]
    env = dict(base)
    for source in container.get("envFrom") or []:
        for key, kind in (("configMapRef", kinds.CONFIG_MAP), ("secretRef", kinds.SECRET)):
            if ref := source.get(key):
                found = await _object(client, kind, namespace, ref)
                env |= {source.get("prefix", "") + k: _text(kind, v) for k, v in (found.get("data") or {}).items()}
    for item in container.get("env") or []:
        if "valueFrom" not in item:
            env[item["name"]] = expand(str(item.get("value") or ""), env)
            continue
        source = item["valueFrom"]
        if ref := source.get("fieldRef"):
            env[item["name"]] = field(pod, ref["fieldPath"])
        elif ref := source.get("resourceFieldRef"):
            env[item["name"]] = resource(container, ref)
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
    return base64.b64decode(value).decode(errors="replace") if kind is kinds.SECRET else value


async def _object(client: Client, kind: kinds.Kind, namespace: str, ref: Json) -> Json:
    name = ref.get("name") or ref.get("secretName") or ""
    found = await client.get(kind, namespace, name)
    if found is None and not ref.get("optional"):
        raise NotReady(f'{kind.kind.lower()} "{name}" not found')
    return found or {}


class Volumes:
    """The volumes of one pod below a directory of its own."""

    def __init__(self, client: Client, root: Path) -> None:
        self._client, self._root = client, root
        self._tokens: dict[Path, float] = {}

    def path(self, volume: str) -> Path:
        return self._root / "volumes" / volume

    async def prepare(self, pod: Json) -> None:
        """Make or refresh every volume; call it again now and then. Raises NotReady."""
        for volume in pod["spec"].get("volumes") or []:
            await self._volume(pod, volume)

    async def _volume(self, pod: Json, volume: Json) -> None:
        directory = self.path(volume["name"])
        directory.mkdir(parents=True, exist_ok=True)
        if "emptyDir" in volume:
            directory.chmod(0o777)
            return
        directory.chmod(0o755)
        if "hostPath" in volume:
            return
        if "configMap" in volume:
            files = await self._items(pod, kinds.CONFIG_MAP, volume["configMap"])
        elif "secret" in volume:
            files = await self._items(pod, kinds.SECRET, volume["secret"])
        elif "downwardAPI" in volume:
            files = self._downward(pod, volume["downwardAPI"])
        elif "projected" in volume:
            files = {}
            for source in volume["projected"].get("sources") or []:
                files |= await self._projected(pod, source, directory)
        else:
            kind = next(k for k in volume if k != "name")
            raise NotReady(
                f'volume "{volume["name"]}": the volume type {kind} is not available in the embedded '
                "cluster (emptyDir, configMap, secret, downwardAPI, projected and hostPath are)"
            )
        for name, data in files.items():
            target = directory / name
            if not target.exists() or target.read_bytes() != data:
                target.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(target, data)

    async def _items(self, pod: Json, kind: kinds.Kind, source: Json) -> dict[str, bytes]:
        found = await _object(self._client, kind, pod["metadata"]["namespace"], source)
        data: dict[str, bytes] = {}
        for key, value in (found.get("data") or {}).items():
            data[key] = base64.b64decode(value) if kind is kinds.SECRET else value.encode()
        data |= {k: base64.b64decode(v) for k, v in (found.get("binaryData") or {}).items()}
        if not source.get("items"):
            return data
        return {item["path"]: data[item["key"]] for item in source["items"] if item["key"] in data}

    def _downward(self, pod: Json, source: Json) -> dict[str, bytes]:
        return {
            item["path"]: field(pod, item["fieldRef"]["fieldPath"]).encode()
            for item in source.get("items") or []
            if "fieldRef" in item
        }

    async def _projected(self, pod: Json, source: Json, directory: Path) -> dict[str, bytes]:
        if "configMap" in source:
            return await self._items(pod, kinds.CONFIG_MAP, source["configMap"])
        if "secret" in source:
            return await self._items(pod, kinds.SECRET, source["secret"])
        if "downwardAPI" in source:
            return self._downward(pod, source["downwardAPI"])
        token = source.get("serviceAccountToken") or {}
        target = directory / token.get("path", "token")
        if self._tokens.get(target, 0) > time.time() and target.exists():
            return {}
        lifetime = int(token.get("expirationSeconds") or 3600)
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
        if token.get("audience"):
            body["spec"]["audiences"] = [token["audience"]]
        account = dig(pod, "spec", "serviceAccountName", default="default")
        answer = await self._client.request(kinds.SERVICE_ACCOUNT, pod["metadata"]["namespace"], account, "token", body)
        self._tokens[target] = time.time() + lifetime * 0.8
        return {token.get("path", "token"): answer["status"]["token"].encode()}

    def mounts(self, pod: Json, container: Json) -> list[tuple[str, str, bool]]:
        """(source, target, read-only), outer directories first."""
        hosts = {v["name"]: v["hostPath"]["path"] for v in pod["spec"].get("volumes") or [] if "hostPath" in v}
        out = []
        for m in container.get("volumeMounts") or []:
            source = hosts.get(m["name"]) or str(self.path(m["name"]))
            if m.get("subPath"):
                source = f"{source}/{m['subPath']}"
                Path(source).mkdir(parents=True, exist_ok=True) if not Path(source).exists() else None
            out.append((source, str(m["mountPath"]), bool(m.get("readOnly"))))
        return sorted(out, key=lambda m: m[1])

    def remove(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)


def hosts_file(pod: Json, address: str) -> dict[str, str]:
    """The files in /etc that belong to the pod."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    hosts = f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{address} {name}\n"
    for alias in pod["spec"].get("hostAliases") or []:
        hosts += f"{alias['ip']} {' '.join(alias.get('hostnames') or [])}\n"
    return {
        "hosts": hosts,
        "hostname": f"{name}\n",
        "resolv.conf": (
            f"search {namespace}.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\n"
            "options ndots:5\n"
        ),
    }
