"""The log of a pod for the page: its containers' lines as they arrive, with explanations of failed requests."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web

from lateen.api import kinds
from lateen.api.reading import PROXY, containers
from lateen.console import shapes
from lateen.console.cluster import Cluster
from lateen.console.envoy import Istiod
from lateen.dump import ConfigDump, DumpError
from lateen.dump.lines import Parser, parser_of
from lateen.dump.origins import origins
from lateen.dump.outcomes import explain, told
from lateen.dump.refusals import asked, refused_by
from lateen.kit import jsons, tasks
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient, KubeError, Unreachable
from lateen.kube.connection import CONNECTIONS
from lateen.kube.informer import Key

TAIL = 200
"""The number of initial lines of each container."""
WAITING = 1000
"""The queue length in lines."""
MOST = CONNECTIONS
"""Containers whose logs are followed at the same time."""
SKIPPED = ("istio-init", "istio-validation")
BEAT_S = 15.0
"""Seconds of silence after which a comment is sent: by that it is noticed that the page was closed."""

Item = shapes.LogLine | str | None
"""A line, why there are no more of a container, or (None) that one has ended."""


class Logs:
    def __init__(self, client: HttpClient, cluster: Cluster, istiod: Istiod) -> None:
        """``client``: whose connections nobody else needs."""
        self._client, self._cluster, self._istiod = client, cluster, istiod
        self._followed = 0

    def routes(self, root: str) -> list[web.RouteDef]:
        return [web.get(f"{root}/pods/{{namespace}}/{{pod}}/log", self._log)]

    async def _log(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events, one per line of ``container``; without it, of all of the pod's. The last one is ``end``:
        nothing more will be written."""
        namespace, pod = request.match_info["namespace"], request.match_info["pod"]
        asked = request.query.get("container", "")
        names = [asked] if asked else self._containers(namespace, pod)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await answer.prepare(request)
        if self._followed + len(names) > MOST:
            says = f"{self._followed} logs are shown already; close some, or use: lateen logs {pod} -n {namespace} -f"
            await answer.write(b"event: failure\ndata: " + jsons.dumps(says) + b"\n\nevent: end\ndata: {}\n\n")
            return answer
        self._followed += len(names)
        try:
            await self._follow(answer, namespace, pod, names)
        finally:
            self._followed -= len(names)
        return answer

    async def _follow(self, answer: web.StreamResponse, namespace: str, pod: str, names: list[str]) -> None:
        queue: asyncio.Queue[Item] = asyncio.Queue(WAITING)
        explainer = Explainer(self._istiod, self._cluster, (namespace, pod), self._parser())
        reading = [tasks.spawn(self._read(namespace, pod, name, queue), "log") for name in names]
        left = len(reading)
        try:
            while left:
                try:
                    async with asyncio.timeout(BEAT_S):
                        item = await queue.get()
                except TimeoutError:
                    await answer.write(b":\n\n")
                    continue
                if item is None:
                    left -= 1
                elif isinstance(item, str):
                    await answer.write(b"event: failure\ndata: " + jsons.dumps(item) + b"\n\n")
                else:
                    item["says"] = await explainer.of(item)
                    await answer.write(b"data: " + jsons.dumps(item) + b"\n\n")
            await answer.write(b"event: end\ndata: {}\n\n")
        except (ConnectionError, asyncio.CancelledError):
            pass  # the page was closed
        finally:
            await tasks.cancel(*reading)

    async def _read(self, namespace: str, pod: str, container: str, queue: asyncio.Queue[Item]) -> None:
        found = self._client.logs(namespace, pod, container, tail=TAIL, follow=True)
        try:
            async with contextlib.aclosing(found) as lines:
                async for raw in lines:
                    text = raw.decode(errors="replace").rstrip("\n")
                    await queue.put({"container": container, "text": text, "says": []})
        except (KubeError, Unreachable) as e:
            await queue.put(f"{container}: {e}")
        except Exception:
            await queue.put(None)
            raise
        await queue.put(None)  # not when it is cancelled: nobody takes anything out of a full queue then

    def _containers(self, namespace: str, pod: str) -> list[str]:
        """The containers that may still write: init containers other than native sidecars have ended."""
        found = (
            c["name"]
            for p in self._cluster.objects(kinds.POD)
            if (p["metadata"]["namespace"], p["metadata"]["name"]) == (namespace, pod)
            for c in containers(p["spec"])
            if c["name"] not in SKIPPED
        )
        return [*found] or [PROXY]

    def _parser(self) -> Parser:
        maps = self._cluster.objects(kinds.CONFIG_MAP)
        own = (self._cluster.root, "istio")
        return parser_of(next((m for m in maps if (m["metadata"]["namespace"], m["metadata"]["name"]) == own), None))


class Explainer:
    """Explains the lines of one proxy; reads its configuration once, when the first of them needs it."""

    def __init__(self, istiod: Istiod, cluster: Cluster, pod: Key, parser: Parser) -> None:
        self._istiod, self._cluster, self._pod, self._parser = istiod, cluster, pod, parser
        self._dump: ConfigDump | None = None
        self._asked = False

    async def of(self, line: shapes.LogLine) -> list[str]:
        """Sentences about why a request failed; none for lines of applications and for requests that were served."""
        seen = self._parser.read(line["text"]) if line["container"] == PROXY else None
        if not seen:
            return []
        flags, details, failure = told(seen)
        status = int(seen.get("status") or 0)
        if not explain(flags, details, failure, status=status):
            return []
        if not self._asked:
            self._asked = True
            with contextlib.suppress(web.HTTPException, DumpError):  # then objects are not named
                self._dump = ConfigDump(await self._istiod.dump(f"{self._pod[1]}.{self._pod[0]}"))
        found = origins(self._dump, seen) if self._dump else ()
        return explain(flags, details, failure, found, self._refusing(seen), status)

    def _refusing(self, seen: Json) -> tuple[str, ...]:
        pods = self._cluster.objects(kinds.POD)
        pod = next((p for p in pods if (p["metadata"]["namespace"], p["metadata"]["name"]) == self._pod), None)
        objects = {kind: self._cluster.objects(kind) for kind in asked(told(seen)[1])}
        return refused_by(seen, self._dump, objects, pod, self._cluster.root) if pod else ()
