"""Requests about containers, as the API server gets them from clients and a kubelet from an API server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from lateen.cluster.apiserver.access import LogOptions
from lateen.cluster.apiserver.call import is_true, whole
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.kit import times
from lateen.kit.later import web


class Asked(NamedTuple):
    """What a request for an upgrade asks for."""

    path: list[str]
    query: dict[str, list[str]]
    headers: list[tuple[str, str]]

    @property
    def parameters(self) -> dict[str, str]:
        """Each with its last value."""
        return {k: v[-1] for k, v in self.query.items()}

    def flag(self, name: str) -> bool:
        return is_true(self.parameters.get(name))


def asked(head: str) -> Asked:
    """``head``: the request's head. Raises ApiError."""
    first, *rest = head.split("\r\n")
    try:
        _, target, _ = first.split(" ")
        url = urlsplit(target)
    except ValueError:
        raise bad_request(f'"{first[:80]}" is not the first line of a request') from None
    headers = [(k.strip(), v.strip()) for k, _, v in (line.partition(":") for line in rest)]
    return Asked(url.path.strip("/").split("/"), parse_qs(url.query, keep_blank_values=True), headers)


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """What a pod or container cannot do, as a refusal of the request."""
    try:
        yield
    except LookupError as e:
        raise bad_request(str(e.args[0])) from e
    except OSError as e:
        raise ApiError(500, "InternalError", str(e)) from e


def log_options(parameters: Mapping[str, str]) -> LogOptions:
    """Raises ApiError."""
    since: float | None = whole(parameters, "sinceSeconds")
    if text := parameters.get("sinceTime"):
        try:
            since = (times.now() - times.parse(text)).total_seconds()
        except ValueError:
            raise bad_request(f'sinceTime: "{text[:40]}" is not a time (RFC 3339)') from None
    follow, timestamps, previous = (is_true(parameters.get(n)) for n in ("follow", "timestamps", "previous"))
    return LogOptions(
        follow, whole(parameters, "tailLines"), since, timestamps, previous, whole(parameters, "limitBytes")
    )


async def log(request: web.BaseRequest, chunks: AsyncGenerator[bytes]) -> web.StreamResponse:
    """``chunks`` begins with an empty one once the log is found: a client that follows a quiet container gets its
    headers, and is noticed when it has gone. Raises ApiError where there is no such log."""
    async with contextlib.aclosing(chunks):
        with refusing():
            await anext(chunks)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        transport = request.transport
        async for chunk in chunks:
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client has gone away")
            if chunk:
                await response.write(chunk)
    return response
