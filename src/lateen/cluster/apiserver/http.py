"""The HTTPS face of the API: paths, authentication, bodies, tables, watches, upgrades."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from aiohttp import web

from lateen.cluster.apiserver import auth, openapi, protobuf, resources, streams, tables
from lateen.cluster.apiserver.access import LogOptions, PodAccess
from lateen.cluster.apiserver.api import PATCH_TYPES, Api, Call
from lateen.cluster.apiserver.auth import Attributes, User
from lateen.cluster.apiserver.errors import ApiError, bad_request, forbidden, unknown_path
from lateen.kit import jsons, tasks, times, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kit.spdy import Session

log = logging.getLogger("lateen.apiserver.http")

MAX_BODY = 3 * 1024 * 1024
VERSION = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.0+lateen",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "cpython",
    "platform": "linux/amd64",
}
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
GNOSTIC = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


class Server:
    def __init__(self, api: Api, access: PodAccess) -> None:
        self._api, self._access = api, access
        self._openapi: dict[str, tuple[int, bytes]] = {}
        self._http = web.Server(self._handle, keepalive_timeout=75)

    def protocol(self) -> asyncio.Protocol:
        """A connection: SPDY upgrades go to our own framing, everything else to aiohttp."""
        return _FrontDoor(self._http, self._spdy)

    # --- one request -----------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._route(cast(web.Request, request))
        except ApiError as e:
            return _json(e.status(), e.code)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as e:  # our own mistake: the client gets a Status, the log the traceback
            log.exception("%s %s", request.method, request.path_qs)
            return _json(ApiError(500, "InternalError", f"internal error: {type(e).__name__}").status(), 500)

    def _user(self, transport: asyncio.BaseTransport | None, authorization: str) -> User:
        if authorization.startswith("Bearer "):
            found = self._api.tokens.verify(authorization[7:].strip(), [auth.DEFAULT_AUDIENCE])
            if found is None:
                raise ApiError(
                    401,
                    "Unauthorized",
                    "the bearer token is not valid (expired, or its service account or pod is gone)",
                )
            return found[0]
        peer = transport.get_extra_info("peercert") if transport else None
        return auth.from_certificate(peer) or auth.ANONYMOUS

    async def _route(self, request: web.Request) -> web.StreamResponse:
        user = self._user(request.transport, request.headers.get("Authorization", ""))
        path = request.path.rstrip("/") or "/"
        parts = path.strip("/").split("/")
        if (parts[0] == "api" and len(parts) > 2) or (parts[0] == "apis" and len(parts) > 3):
            return await self._resource(request, parts, user)
        if not auth.allowed(self._api.store, user, Attributes(request.method.lower(), path=path)):
            raise forbidden(f'User "{user.name}" cannot {request.method.lower()} path "{path}"')
        return self._document(request, path, parts)

    def _document(self, request: web.Request, path: str, parts: list[str]) -> web.Response:
        registry, accept = self._api.registry, request.headers.get("Accept", "")
        if path == "/version":
            return _json(VERSION)
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        if path in ("/api", "/apis") and "as=APIGroupDiscoveryList" in accept:
            version = "v2" if "v=v2;" in accept.replace(" ", "") else "v2beta1"
            body = resources.aggregated(registry, core=path == "/api")
            body["apiVersion"] = f"apidiscovery.k8s.io/{version}"
            return web.Response(
                body=jsons.dumps(body), headers={"Content-Type": AGGREGATED.replace("v=v2;", f"v={version};")}
            )
        if path == "/api":
            return _json({"kind": "APIVersions", "versions": ["v1"]})
        if path == "/apis":
            return _json(
                {
                    "kind": "APIGroupList",
                    "apiVersion": "v1",
                    "groups": [_group(g, v) for g, v in registry.groups().items() if g],
                }
            )
        if parts[0] == "apis" and len(parts) == 2 and parts[1] in registry.groups():
            return _json({"kind": "APIGroup", "apiVersion": "v1", **_group(parts[1], registry.groups()[parts[1]])})
        if (parts[0] == "api" and parts[1:] == ["v1"]) or (parts[0] == "apis" and len(parts) == 3):
            group, version = ("", "v1") if parts[0] == "api" else (parts[1], parts[2])
            found = [r for r in registry.all() if r.group == group and version in r.served]
            if found:
                return _json(
                    {
                        "kind": "APIResourceList",
                        "apiVersion": "v1",
                        "groupVersion": f"{group}/{version}" if group else version,
                        "resources": resources.discovery(found, version),
                    }
                )
        if parts[0] == "openapi":
            return self._openapi_document(path, parts, accept, "hash" in request.query)
        raise unknown_path()

    def _openapi_document(self, path: str, parts: list[str], accept: str, hashed: bool) -> web.Response:
        registry = self._api.registry
        kind = "application/json"
        key = path
        if path == "/openapi/v2" and "proto-openapi" in accept:
            kind, key = GNOSTIC, path + "+pb"
        generation, body = self._openapi.get(key, (-1, b""))
        if generation != registry.generation:
            if key == "/openapi/v2":
                body = jsons.dumps(openapi.v2(registry))
            elif key == "/openapi/v2+pb":
                body = openapi.v2_protobuf(registry)
            elif path == "/openapi/v3":
                body = jsons.dumps(openapi.v3_index(registry))
            else:
                group, version = (
                    ("", parts[3])
                    if parts[2:3] == ["api"] and len(parts) == 4
                    else ((parts[3], parts[4]) if len(parts) == 5 else ("", ""))
                )
                document = openapi.v3(registry, group, version)
                if document is None:
                    raise unknown_path()
                body = jsons.dumps(document)
            self._openapi[key] = (registry.generation, body)
        headers = {"Content-Type": kind}
        if hashed:
            headers["Cache-Control"] = "public, immutable"
        return web.Response(body=body, headers=headers)

    # --- resources -------------------------------------------------------------------------------------------

    def _call(self, parts: list[str], query: dict[str, str], user: User) -> Call:
        group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        resource = self._api.registry.find(group, version, rest[0])
        if resource is None or len(rest) > 3 or (namespace and not resource.namespaced):
            raise unknown_path()
        if resource.namespaced and not namespace and len(rest) > 1:
            raise unknown_path()
        name, sub = (rest[1] if len(rest) > 1 else ""), (rest[2] if len(rest) > 2 else "")
        known = (
            {s for s, _ in resource.subresources}
            | ({"status"} if resource.status else set())
            | ({"scale"} if resource.scale else set())
            | ({"finalize"} if resource.kind == "Namespace" else set())
        )
        if sub and sub not in known:
            raise unknown_path()
        return Call(resource, version, namespace, name, sub, query, user=user)

    def _authorize(self, c: Call, verb: str) -> None:
        r = c.resource
        resource = r.plural + (f"/{c.subresource}" if c.subresource else "")
        if not auth.allowed(self._api.store, c.user, Attributes(verb, r.group, resource, c.namespace, c.name)):
            where = f' in the namespace "{c.namespace}"' if c.namespace else " at the cluster scope"
            named = f' "{c.name}"' if c.name else ""
            raise forbidden(
                f'{r.collection}{named} is forbidden: User "{c.user.name}" cannot {verb} resource '
                f'"{resource}" in API group "{r.group}"{where}'
            )

    async def _resource(self, request: web.Request, parts: list[str], user: User) -> web.StreamResponse:
        query = dict(request.query)
        c = self._call(parts, query, user)
        method = request.method
        watch = query.get("watch") in ("true", "1")
        verb = {
            "GET": "watch" if watch else "get" if c.name else "list",
            "POST": "create",
            "PUT": "update",
            "PATCH": "patch",
            "DELETE": "delete" if c.name else "deletecollection",
        }.get(method, "")
        if c.subresource in ("exec", "attach", "portforward"):
            verb = "create"
        self._authorize(c, verb)
        if c.subresource in ("log", "exec", "attach", "portforward"):
            return await self._stream(request, c)
        if method in ("POST", "PUT", "PATCH", "DELETE"):
            c.body = await self._body(request, c)
        if watch:
            return await self._watch(request, c)
        obj, code = await self._verb(c, verb)
        return self._answer(request, c, obj, code)

    async def _verb(self, c: Call, verb: str) -> tuple[Json | list[Json], int]:
        api = self._api
        match (verb, c.subresource):
            case ("get", "scale"):
                return api.scale(c), 200
            case ("update" | "patch", "scale"):
                return await api.set_scale(c), 200
            case ("update", "finalize"):
                return api.finalize(c), 200
            case ("create", "token"):
                return api.token(c), 201
            case ("create", "eviction"):
                return await api.delete(Call(c.resource, c.version, c.namespace, c.name, user=c.user)), 201
            case ("get", "" | "status"):
                return api.get(c), 200
            case ("list", ""):
                items, rv = api.list(c)
                return {"items": items, "rv": rv, "": True}, 200
            case ("create", "") if c.resource.group in ("authorization.k8s.io", "authentication.k8s.io"):
                return self._ask(c), 201
            case ("create", ""):
                return await api.create(c), 201
            case ("update", "" | "status"):
                return await api.update(c), 200
            case ("patch", "" | "status"):
                return await api.patch(c), 200
            case ("delete", ""):
                return await api.delete(c), 200
            case ("deletecollection", ""):
                return await api.delete_collection(c), 200
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _ask(self, c: Call) -> Json:
        """TokenReview and the access reviews: questions that are answered, not stored."""
        spec = dig(c.body, "spec", default={})
        out = {"kind": c.resource.kind, "apiVersion": c.resource.api_version(), "metadata": {}, "spec": spec}
        if c.resource.kind == "TokenReview":
            audiences = spec.get("audiences") or [auth.DEFAULT_AUDIENCE]
            found = self._api.tokens.verify(str(spec.get("token", "")), audiences)
            if found is None:
                return {**out, "status": {"authenticated": False, "error": "the token is not valid"}}
            user, claims = found
            pod = dig(claims, "kubernetes.io", "pod", "name")
            extra = {"authentication.kubernetes.io/pod-name": [pod]} if pod else {}
            return {
                **out,
                "status": {
                    "authenticated": True,
                    "audiences": [a for a in audiences if a in claims["aud"]],
                    "user": {"username": user.name, "uid": user.uid, "groups": list(user.groups), "extra": extra},
                },
            }
        who = c.user
        if c.resource.kind == "SubjectAccessReview":
            who = User(str(spec.get("user", "")), tuple(spec.get("groups") or ()))
        a = spec.get("resourceAttributes") or {}
        resource = str(a.get("resource", "")) + (f"/{a['subresource']}" if a.get("subresource") else "")
        path = dig(spec, "nonResourceAttributes", "path", default="")
        ok = auth.allowed(
            self._api.store,
            who,
            Attributes(
                str(a.get("verb", "")),
                str(a.get("group", "")),
                resource,
                str(a.get("namespace", "")),
                str(a.get("name", "")),
                path,
            ),
        )
        return {**out, "status": {"allowed": ok}}

    def _answer(self, request: web.Request, c: Call, obj: Any, code: int) -> web.Response:
        accept = request.headers.get("Accept", "")
        listed = isinstance(obj, dict) and "" in obj
        if "as=Table" in accept and request.method == "GET":
            items = obj["items"] if listed else [obj]
            rv = obj["rv"] if listed else ""
            include = c.query.get("includeObject", "Metadata")
            obj = tables.table(c.resource, c.version, items, rv, include, single=not listed)
        elif listed:
            obj = {
                "kind": f"{c.resource.kind}List",
                "apiVersion": c.resource.api_version(c.version),
                "metadata": {"resourceVersion": obj["rv"]},
                "items": obj["items"],
            }
        headers = [("Warning", f'299 - "{_header(w)}"') for w in c.warnings[:20]]
        response = _json(obj, code)
        for k, v in headers:
            response.headers.add(k, v)
        return response

    async def _body(self, request: web.Request, c: Call) -> Any:
        kind = request.content_type
        if (request.content_length or 0) > MAX_BODY:
            raise ApiError(413, "RequestEntityTooLarge", f"the body has more than {MAX_BODY} bytes")
        raw = await request.content.read(MAX_BODY + 1)
        while raw and not request.content.at_eof() and len(raw) <= MAX_BODY:
            more = await request.content.read(MAX_BODY + 1)
            raw += more
        if len(raw) > MAX_BODY:
            raise ApiError(413, "RequestEntityTooLarge", f"the body has more than {MAX_BODY} bytes")
        if not raw:
            return {}
        if kind == "application/vnd.kubernetes.protobuf":
            try:
                return protobuf.decode(raw)
            except protobuf.Unsupported as e:
                raise ApiError(415, "UnsupportedMediaType", str(e)) from e
        if request.method == "PATCH":
            c.patch_type = kind
            if kind not in PATCH_TYPES:
                return {}
        try:
            return yamldoc.load(raw.decode()) if kind == "application/yaml" else jsons.loads(raw)
        except (ValueError, UnicodeDecodeError) as e:
            raise bad_request(f"the body cannot be read: {e}") from e

    async def _watch(self, request: web.Request, c: Call) -> web.StreamResponse:
        as_table = "as=Table" in request.headers.get("Accept", "")
        include = c.query.get("includeObject", "Metadata")
        timeout = min(float(c.query.get("timeoutSeconds") or 3600), 3600)
        events = self._api.watch(c)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        started = False
        try:
            async with asyncio.timeout(timeout):
                if not (c.query.get("resourceVersion") or "0").isdigit():
                    raise bad_request("resourceVersion is not a number")
                if c.query.get("resourceVersion", "0") not in ("", "0"):
                    self._api.store.unwatch(
                        c.resource.collection,
                        self._api.store.watch(c.resource.collection, c.namespace, int(c.query["resourceVersion"])),
                    )
                await response.prepare(request)
                started = True
                async for event in events:
                    obj = event.obj
                    if as_table and event.type != "BOOKMARK":
                        obj = tables.table(c.resource, c.version, [obj], "", include, single=True)
                    await response.write(jsons.dumps({"type": event.type, "object": obj}) + b"\n")
        except ApiError as e:
            if not started:
                raise
            await response.write(jsons.dumps({"type": "ERROR", "object": e.status()}) + b"\n")
        except Exception as e:
            if type(e).__name__ == "Expired":
                raise ApiError(410, "Expired", "too old resource version; list again") from None
            if not isinstance(e, (TimeoutError, ConnectionError)):
                raise
        finally:
            await events.aclose()  # type: ignore[attr-defined]
        return response

    # --- logs, exec, port-forward ----------------------------------------------------------------------------

    async def _stream(self, request: web.Request, c: Call) -> web.StreamResponse:
        self._api.get(c)
        if c.subresource == "log":
            return await self._log(request, c)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise bad_request("Upgrade request required")
        if c.subresource == "portforward":
            if "SPDY/3.1+portforward.k8s.io" not in request.headers.get("Sec-WebSocket-Protocol", ""):
                raise bad_request("only SPDY/3.1+portforward.k8s.io is served over WebSocket")
            return await streams.websocket_forward(request, self._access, c.namespace, c.name)
        running = await self._execute(c, list(request.query.getall("command", [])))
        return await streams.websocket_exec(request, running)

    async def _execute(self, c: Call, command: list[str]) -> Any:
        if c.subresource == "attach":
            raise ApiError(
                501, "NotImplemented", "attach is not available here; use `kubectl logs -f` or `kubectl exec`"
            )
        if not command:
            raise bad_request("you must specify at least one command for the container")
        yes = ("true", "1")
        try:
            return await self._access.execute(
                c.namespace,
                c.name,
                c.query.get("container", ""),
                command,
                c.query.get("tty") in yes,
                c.query.get("stdin") in yes,
            )
        except LookupError as e:
            raise bad_request(str(e.args[0])) from e
        except OSError as e:
            raise ApiError(500, "InternalError", str(e)) from e

    async def _log(self, request: web.Request, c: Call) -> web.StreamResponse:
        q = c.query
        since = float(q["sinceSeconds"]) if q.get("sinceSeconds") else None
        if q.get("sinceTime"):
            since = (times.now() - times.parse(q["sinceTime"])).total_seconds()
        options = LogOptions(
            q.get("follow") == "true",
            int(q["tailLines"]) if q.get("tailLines") else None,
            since,
            q.get("timestamps") == "true",
            q.get("previous") == "true",
            int(q["limitBytes"]) if q.get("limitBytes") else None,
        )
        chunks = self._access.logs(c.namespace, c.name, q.get("container", ""), options)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        try:
            first = await anext(chunks, None)
        except LookupError as e:
            raise bad_request(str(e.args[0])) from e
        await response.prepare(request)
        if first is not None:
            await response.write(first)
            async for chunk in chunks:
                await response.write(chunk)
        return response

    async def _spdy(
        self, head: str, transport: asyncio.Transport, reader: asyncio.StreamReader, write: streams.Write
    ) -> None:
        """One upgraded connection; ``head`` is the request's head."""
        first, *rest = head.split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in rest)}
        versions = [
            v
            for line in rest
            if line.lower().startswith("x-stream-protocol-version:")
            for v in (p.strip() for p in line.partition(":")[2].split(","))
        ]
        try:
            url = urlsplit(first.split(" ")[1])
            query = parse_qs(url.query, keep_blank_values=True)
            user = self._user(transport, headers.get("authorization", ""))
            c = self._call(url.path.strip("/").split("/"), {k: v[-1] for k, v in query.items()}, user)
            self._authorize(c, "create")
            self._api.get(c)
            chosen = next((v for v in ("v4.channel.k8s.io", "portforward.k8s.io") if v in versions), "")
            if c.subresource not in ("exec", "attach", "portforward") or not chosen:
                raise bad_request("this path cannot be upgraded to SPDY/3.1 with these protocol versions")
            running = None
            if c.subresource != "portforward":
                running = await self._execute(c, query.get("command", []))
        except ApiError as e:
            body = jsons.dumps(e.status())
            await write(
                f"HTTP/1.1 {e.code} {e.reason}\r\nContent-Type: application/json\r\nConnection: close\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            return
        await write(
            f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            f"X-Stream-Protocol-Version: {chosen}\r\n\r\n".encode()
        )
        session = Session(reader, write)
        pump = tasks.spawn(session.run(), "spdy")
        try:
            if running is None:
                await streams.forward(session, self._access, c.namespace, c.name)
            else:
                tty = c.query.get("tty") in ("true", "1")
                wanted = (
                    1
                    + sum(c.query.get(n) in ("true", "1") for n in ("stdin", "stdout"))
                    + (1 if tty else c.query.get("stderr") in ("true", "1"))
                )
                await streams.spdy_exec(session, running, wanted)
                await asyncio.sleep(0.05)
        finally:
            await tasks.cancel(pump)


Spdy = Callable[[str, asyncio.Transport, asyncio.StreamReader, streams.Write], Awaitable[None]]


class _FrontDoor(asyncio.Protocol):
    """Looks at the first request's head: aiohttp knows no upgrade but WebSocket's."""

    def __init__(self, http: web.Server, spdy: Spdy) -> None:
        self._http, self._spdy = http, spdy
        self._inner: asyncio.Protocol | None = None
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._reader is not None:
            self._reader.feed_data(data)
        elif self._inner is not None:
            self._inner.data_received(data)
        else:
            self._buffer += data
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if found and b"\nupgrade: spdy/3.1" in head.lower():
                self._upgrade(head.decode("latin-1"), rest)
            elif found or len(self._buffer) > 65536:
                assert self._transport is not None
                self._inner = self._http()
                self._inner.connection_made(self._transport)
                buffer, self._buffer = self._buffer, b""
                self._inner.data_received(buffer)

    def _upgrade(self, head: str, rest: bytes) -> None:
        self._reader = asyncio.StreamReader(limit=4 * 1024 * 1024)
        if rest:
            self._reader.feed_data(rest)
        transport = self._transport
        assert transport is not None

        async def write(data: bytes) -> None:
            await self._writable.wait()
            if transport.is_closing():
                raise ConnectionResetError("the client is gone")
            transport.write(data)

        async def run() -> None:
            try:
                assert self._reader is not None
                await self._spdy(head, transport, self._reader, write)
            except ConnectionError:
                pass  # the client went away
            finally:
                transport.close()

        tasks.spawn(run(), "spdy connection")

    def eof_received(self) -> bool | None:
        if self._reader is not None:
            self._reader.feed_eof()
            return False
        return self._inner.eof_received() if self._inner else False

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        if self._reader is not None:
            self._reader.feed_eof()
        elif self._inner:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._writable.clear()
        if self._inner:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._writable.set()
        if self._inner:
            self._inner.resume_writing()


def tls(certificate: str, key: str, client_ca: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


def _group(group: str, versions: list[str]) -> Json:
    listed = [{"groupVersion": f"{group}/{v}", "version": v} for v in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}


def _json(obj: Any, code: int = 200) -> web.Response:
    return web.Response(body=jsons.dumps(obj), status=code, content_type="application/json")


def _header(text: str) -> str:
    return (
        "".join(ch if ch.isprintable() and ord(ch) < 128 else " " for ch in text)
        .replace("\\", "")
        .replace('"', '\\"')[:500]
    )
