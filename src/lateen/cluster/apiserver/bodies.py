"""Request bodies: bounded in size, in time and in total, and decoded by content type."""

from __future__ import annotations

import asyncio
from typing import Any

from lateen.cluster.apiserver import protobuf
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.cluster.apiserver.verbs import PATCH_TYPES
from lateen.kit import jsons
from lateen.kit.later import web

MAX_BODY = 3 * 1024 * 1024
MAX_ALL = 24 * 1024 * 1024
"""Bytes of bodies that may be in transit at the same time."""
TIMEOUT_S = 30.0
PROTOBUF = "application/vnd.kubernetes.protobuf"
_YAML = ("application/yaml", "application/apply-patch+yaml")


class Bodies:
    def __init__(self) -> None:
        self._held = 0

    async def read(self, request: web.BaseRequest) -> bytes:
        """The whole body. Raises ApiError if it is too large, too slow, or if too many others are in transit."""
        if (request.content_length or 0) > MAX_BODY:
            raise _too_large()
        out = bytearray()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                async for part in request.content.iter_any():
                    out += part
                    self._held += len(part)
                    if len(out) > MAX_BODY:
                        raise _too_large()
                    if self._held > MAX_ALL:
                        details = {"retryAfterSeconds": 1}
                        raise ApiError(429, "TooManyRequests", "too many large requests at a time; try again", details)
        except TimeoutError:
            raise ApiError(408, "Timeout", f"the body has not arrived within {TIMEOUT_S:.0f} s") from None
        finally:
            self._held -= len(out)
        return bytes(out)


def _too_large() -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY}")


def decode(raw: bytes, kind: str, c: Call, patch: bool) -> Any:
    """The body as a value; sets the call's patch type. Raises ApiError."""
    if patch:
        c.patch_type = kind
        if kind not in PATCH_TYPES:
            return {}
    if not raw:
        return {}
    if kind == PROTOBUF:
        try:
            return protobuf.decode(raw)
        except protobuf.Unsupported as e:
            raise ApiError(415, "UnsupportedMediaType", str(e)) from e
    if kind in ("application/x-www-form-urlencoded", "multipart/form-data"):
        raise ApiError(415, "UnsupportedMediaType", f"the body must be JSON, YAML or Kubernetes' protobuf, not {kind}")
    try:
        return jsons.nestable(_yaml(raw) if kind in _YAML else jsons.loads(raw))
    except (ValueError, TypeError, UnicodeDecodeError) as e:
        raise bad_request(f"the body cannot be read: {e}") from e


def _yaml(raw: bytes) -> Any:
    from lateen.kit import yamldoc  # imported late: most requests need none

    return yamldoc.load(raw.decode())
