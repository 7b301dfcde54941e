"""Errors of the Kubernetes client."""

from __future__ import annotations

from lateen.kit.jsons import Json


class KubeError(Exception):
    """The API rejected a request: code, reason, message and details of its Status."""

    def __init__(self, code: int, reason: str, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details


class Unreachable(OSError):
    """No API server answered; the message has its address."""


class Stranger(Unreachable):
    """The server that answered is not an API server: a login page, a proxy, another service."""
