"""Fetches Wasm modules from web servers and from image registries, within limits.

Source: the OCI distribution specification (manifests, blobs, tokens); for the layer of an image with the module,
https://github.com/istio-ecosystem/wasm-extensions and
https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from lateen.control.fetching import Answer, Fetcher, NotFetched, absolute, shown
from lateen.control.turns import Turns
from lateen.kit.jsons import Json, dig
from lateen.mesh.plugins import Module, ModuleSource, scheme

MAX_MODULE = 32 << 20
"""The limit for one module in bytes, since it is sent with the configuration of each proxy."""
MAX_UNPACKED = 2 * MAX_MODULE
TIMEOUT_S = 60.0
AT_ONCE, OF_ONE = 4, 2
"""Concurrent fetches, which bounds their memory: in total, and of one namespace."""
MAGIC = b"\0asm\1\0\0\0"
HUB = "registry-1.docker.io"
_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io", "")
FILE = "plugin.wasm"
"""The module's file name in an image's file system."""
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_BARE = ("application/vnd.module.wasm.content.layer.v1+wasm", "application/wasm")
_PLATFORMS = (("linux", "amd64"), ("wasip1", "wasm"), ("wasi", "wasm"))
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*")
_REFERENCE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|sha256:[a-f0-9]{64}")
Secret = Callable[[tuple[str, str]], Awaitable[Json | None]]
"""(namespace, name) -> a Secret; None if it does not exist, or istiod may not read it"""


@dataclass(frozen=True)
class Image:
    registry: str
    repository: str
    reference: str
    """A tag, or ``sha256:…``"""

    @classmethod
    def of(cls, text: str) -> Image:
        """Parse a reference as container engines do. Raises NotFetched."""
        text = text.partition("://")[2] if "://" in text else text
        rest, _, digest = text.partition("@")
        first, slash, remaining = rest.partition("/")
        hosted = bool(slash) and (any(c in first for c in ".:") or first == "localhost")
        registry, path = (first, remaining) if hosted else ("", rest)
        path, colon, tag = path.partition(":")
        if registry in _HUB_NAMES:
            registry, path = HUB, path if "/" in path else f"library/{path}"
        reference = digest or (tag if colon else "latest")
        if not _REPOSITORY.fullmatch(path) or not _REFERENCE.fullmatch(reference):
            raise NotFetched(f'"{text[:200]}" is not an image reference such as ghcr.io/me/plugin:1.0')
        return cls(registry, path, reference)

    def url(self, what: str, reference: str, insecure: bool) -> URL:
        return absolute(f"{'http' if insecure else 'https'}://{self.registry}/v2/{self.repository}/{what}/{reference}")


class Puller:
    def __init__(self, fetcher: Fetcher, secret: Secret, insecure: frozenset[str] = frozenset()) -> None:
        """``insecure``: registries (``host:port``) that are contacted without TLS."""
        self._fetcher, self._secret, self._insecure = fetcher, secret, insecure
        self._turns = Turns(AT_ONCE, OF_ONE)

    async def module(self, source: ModuleSource, namespace: str) -> Module:
        """Fetch a module for a namespace. Raises NotFetched. Time spent waiting for other fetches does not count."""
        try:
            async with self._turns.turn(namespace), asyncio.timeout(TIMEOUT_S), self._fetcher.session() as session:
                get = self._image if scheme(source.url) == "oci" else self._file
                code = await get(session, source)
        except TimeoutError:
            raise NotFetched(f"{shown(source.url)} did not answer within {TIMEOUT_S:g} s") from None
        if not code.startswith(MAGIC):
            raise NotFetched(f"{shown(source.url)} is not a WebAssembly module")
        return Module(hashlib.sha256(code).hexdigest(), code)

    async def _file(self, session: aiohttp.ClientSession, source: ModuleSource) -> bytes:
        answer = await self._fetcher.get(session, absolute(source.url), {}, MAX_MODULE)
        _check(answer.body, source.sha256, shown(source.url))
        if answer.body.startswith(MAGIC):
            return answer.body
        return await asyncio.to_thread(_unpacked, answer.body, shown(source.url))

    async def _image(self, session: aiohttp.ClientSession, source: ModuleSource) -> bytes:
        image = Image.of(source.url)
        insecure = image.registry in self._insecure
        headers = {"Accept": ", ".join((*_MANIFESTS, *_INDEXES))}
        account = await self._account(source, image)
        url = image.url("manifests", image.reference, insecure)
        answer = await self._fetcher.get(session, url, headers, also=(401,))
        if answer.status == 401:
            headers["Authorization"] = await self._login(session, answer, account)
            answer = await self._fetcher.get(session, url, headers)
        named = image.reference.removeprefix("sha256:") if image.reference.startswith("sha256:") else ""
        for asked in dict.fromkeys((named, source.sha256)):
            _check(answer.body, asked, shown(url))
        manifest = _json(answer)
        if "manifests" in manifest:
            digest = _chosen(manifest["manifests"], url)
            answer = await self._fetcher.get(session, image.url("manifests", digest, insecure), headers)
            _check(answer.body, digest.removeprefix("sha256:"), shown(answer.url))
            manifest = _json(answer)
        headers.pop("Accept")
        for layer in reversed(_layers(manifest, url)):
            digest, kind = layer["digest"], str(layer.get("mediaType", ""))
            blob = await self._fetcher.get(session, image.url("blobs", digest, insecure), headers, MAX_MODULE)
            _check(blob.body, digest.removeprefix("sha256:"), shown(blob.url))
            if kind in _BARE:
                return blob.body
            try:
                return await asyncio.to_thread(_unpacked, blob.body, shown(url))
            except _NoModule:
                continue
        raise NotFetched(f"{shown(url)} has no layer with {FILE}")

    async def _account(self, source: ModuleSource, image: Image) -> str:
        """``user:password`` in Base64; empty without a Secret. Raises NotFetched."""
        namespace, name = source.secret
        if not name:
            return ""
        found = await self._secret(source.secret)
        if found is None:
            raise NotFetched(
                f"the Secret {name} in {namespace} (imagePullSecret) does not exist, or istiod may not read it: "
                "lateen check says how to allow it"
            )
        try:
            text = base64.b64decode(dig(found, "data", ".dockerconfigjson", default=""), validate=True)
            given: dict[str, Any] = json.loads(text)["auths"]
            return next(_basic(v) for k, v in given.items() if _host(k) == image.registry)
        except StopIteration:
            raise NotFetched(f"the Secret {name} in {namespace} has no account for {image.registry}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise NotFetched(
                f"the Secret {name} in {namespace} is not of type kubernetes.io/dockerconfigjson"
            ) from None

    async def _login(self, session: aiohttp.ClientSession, answer: Answer, account: str) -> str:
        """The ``Authorization`` that the registry requires."""
        kind, _, rest = answer.headers.get("WWW-Authenticate", "").partition(" ")
        basic = {"Authorization": f"Basic {account}"} if account else {}
        if kind.lower() == "basic" and account:
            return basic["Authorization"]
        asked = dict(_CHALLENGE.findall(rest))
        if kind.lower() != "bearer" or "realm" not in asked:
            raise NotFetched(f"{shown(answer.url)} asks for an account; name a Secret with one in imagePullSecret")
        realm = absolute(asked["realm"], answer.url)
        realm = realm.update_query({k: asked[k] for k in ("service", "scope") if k in asked})
        found = _json(await self._fetcher.get(session, realm, basic))
        token = found.get("token") or found.get("access_token")
        if not isinstance(token, str):
            raise NotFetched(f"{shown(realm)} returned no token")
        return f"Bearer {token}"


def _basic(entry: Mapping[str, Any]) -> str:
    if entry.get("auth"):
        return str(entry["auth"])
    return base64.b64encode(f"{entry['username']}:{entry['password']}".encode()).decode()


def _host(key: str) -> str:
    """The registry of a key of ``auths``."""
    host = key.partition("://")[2] if "://" in key else key
    host = host.partition("/")[0]
    return HUB if host in _HUB_NAMES else host


def _check(content: bytes, sha256: str, where: str) -> None:
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise NotFetched(f"{where} has another checksum than sha256 {sha256}")


def _json(answer: Answer) -> dict[str, Any]:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NotFetched(f"{shown(answer.url)} answers with something that is not JSON")
    return found


def _chosen(manifests: Any, url: URL) -> str:
    """The digest of the preferred image among those for several platforms."""
    found = [m for m in manifests if isinstance(m, dict) and _digested(m)] if isinstance(manifests, list) else []

    def rank(m: dict[str, Any]) -> int:
        platform = m.get("platform")
        of = (platform.get("os"), platform.get("architecture")) if isinstance(platform, dict) else None
        return next((i for i, p in enumerate(_PLATFORMS) if p == of), len(_PLATFORMS))

    if not found:
        raise NotFetched(f"{shown(url)} lists no image")
    return str(min(found, key=rank)["digest"])


def _layers(manifest: Mapping[str, Any], url: URL) -> list[dict[str, Any]]:
    found = manifest.get("layers")
    if not isinstance(found, list) or not found or not all(isinstance(m, dict) and _digested(m) for m in found):
        raise NotFetched(f"{shown(url)} is not an image: it has no layers")
    return found


def _digested(found: Mapping[str, Any]) -> bool:
    return isinstance(d := found.get("digest"), str) and bool(re.fullmatch(r"sha256:[a-f0-9]{64}", d))


class _NoModule(NotFetched):
    """An archive contains no module."""


def _unpacked(content: bytes, where: str) -> bytes:
    """The module in an archive (tar, perhaps gzip), or a compressed module. Raises NotFetched."""
    if content.startswith(b"\x1f\x8b"):
        try:
            inflating = zlib.decompressobj(wbits=31)
            content = inflating.decompress(content, MAX_UNPACKED)
        except zlib.error as e:
            raise NotFetched(f"{where} cannot be decompressed: {e}") from None
        if inflating.unconsumed_tail:
            raise NotFetched(f"{where} has more than {MAX_UNPACKED} bytes when it is decompressed")
    if content.startswith(MAGIC):
        return content
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                if member.isfile() and member.name.removeprefix("./") == FILE and member.size <= MAX_MODULE:
                    opened = archive.extractfile(member)
                    return opened.read() if opened else b""
    except (tarfile.TarError, ValueError, EOFError) as e:
        raise NotFetched(f"{where} is neither a WebAssembly module nor an archive with one: {e}") from None
    raise _NoModule(f"{where} has no {FILE} in it")
