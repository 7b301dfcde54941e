"""Errors of the Kubernetes client."""

from __future__ import annotations


class KubeError(Exception):
    """The API rejected a request: code, reason and message of its Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class Unreachable(OSError):
    """No API server answered; the message has its address."""


class Stranger(Unreachable):
    """The server that answered is not an API server: a login page, a proxy, another service."""
