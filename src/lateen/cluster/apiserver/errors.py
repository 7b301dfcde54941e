"""Every failure of the API is a metav1.Status; kubectl formats its messages from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lateen.kit.jsons import Json


class ApiError(Exception):
    """A refused request: HTTP code, machine-readable reason, and human-readable message."""

    def __init__(self, code: int, reason: str, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details

    def status(self) -> Json:
        """The Status object. ``details`` is always set: `kubectl debug` reads it without checking for nil."""
        about = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message}
        reason = {"reason": self.reason} if self.reason else {}
        return {**about, **reason, "details": self.details or {}, "code": self.code}


@dataclass(frozen=True)
class Cause:
    """One invalid field. ``reason`` is a metav1.CauseType such as FieldValueRequired."""

    path: str
    says: str
    reason: str = "FieldValueInvalid"


def not_found(resource: str, name: str, group: str = "") -> ApiError:
    return ApiError(
        404, "NotFound", f'{_qualified(resource, group)} "{name}" not found', _details(resource, name, group)
    )


def unknown_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def exists(resource: str, name: str, group: str) -> ApiError:
    message = f'{_qualified(resource, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _details(resource, name, group))


def conflict(resource: str, name: str, group: str, why: str = "") -> ApiError:
    says = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {_qualified(resource, group)} "{name}": {says}'
    return ApiError(409, "Conflict", message, _details(resource, name, group))


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """422 with one cause per field, worded as the real API server words it."""
    listed = [f"{c.path}: {c.says}" for c in causes]
    text = listed[0] if len(listed) == 1 else f"[{', '.join(listed)}]"
    details = _details(kind, name, group) | {
        "causes": [{"reason": c.reason, "message": c.says, "field": c.path} for c in causes]
    }
    return ApiError(422, "Invalid", f'{_qualified(kind, group)} "{name}" is invalid: {text}', details)


def forbidden(message: str, resource: str = "", name: str = "", group: str = "") -> ApiError:
    return ApiError(403, "Forbidden", message, _details(resource, name, group) if resource else None)


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def _details(resource: str, name: str, group: str) -> Json:
    return {"name": name, "kind": resource} | ({"group": group} if group else {})
