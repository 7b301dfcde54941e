"""Logging in the format of Istio's components: time, level, scope and message, separated by tabs."""

from __future__ import annotations

import json
import logging
import sys


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        level = {"WARNING": "warn", "CRITICAL": "fatal"}.get(record.levelname, record.levelname.lower())
        text = (
            f"{at}.{int(record.msecs):03d}000Z\t{level}\t{record.name.removeprefix('lateen.')}\t{record.getMessage()}"
        )
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = {"WARNING": "warn", "CRITICAL": "fatal"}.get(record.levelname, record.levelname.lower())
        at = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        out = {
            "level": level,
            "time": f"{at}.{int(record.msecs):03d}000Z",
            "scope": record.name.removeprefix("lateen."),
            "msg": record.getMessage(),
        }
        return json.dumps(out | ({"stack": self.formatException(record.exc_info)} if record.exc_info else {}))


def setup(level: int = logging.INFO, as_json: bool = False) -> None:
    import time

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if as_json else _Formatter())
    _JsonFormatter.converter = time.gmtime
    _Formatter.converter = time.gmtime
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


SCOPES = {
    "ads": "pushes to proxies, and what they reject",
    "ca": "certificates of workloads",
    "control": "the control plane as a whole",
    "control.webhooks": "injection and validation",
    "control.world": "objects that cannot be read",
    "control.status": "conditions of the mesh's objects",
    "kube": "the Kubernetes API",
    "tasks": "failures of background work",
}
"""Scopes whose log levels can be changed at run time."""
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "none": logging.CRITICAL + 10,
}


def parse_levels(text: str) -> dict[str, int]:
    """``default:info,agent:debug`` -> level by scope; a bare level is the default's. Raises ValueError."""
    out = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        scope, _, level = part.rpartition(":")
        level = {"warning": "warn"}.get(level, level)
        if level not in _LEVELS:
            raise ValueError(f'there is no level "{level}"; there are: {", ".join(_LEVELS)}')
        out[scope or "default"] = _LEVELS[level]
    return out


def scopes() -> list[dict[str, str]]:
    names = {number: name for name, number in _LEVELS.items()}
    out = []
    for scope, text in SCOPES.items():
        number = logging.getLogger(f"lateen.{scope}").getEffectiveLevel()
        out.append({"scope": scope, "description": text, "level": names.get(number, str(number))})
    return out


def set_level(scope: str, level: str) -> None:
    """Set the level of one scope, or of ``all``. Raises ValueError."""
    if level not in _LEVELS:
        raise ValueError(f'there is no level "{level}"; there are: {", ".join(_LEVELS)}')
    if scope != "all" and scope not in SCOPES:
        raise ValueError(f'there is no scope "{scope}"; there are: {", ".join(SCOPES)}')
    for name in SCOPES if scope == "all" else (scope,):
        logging.getLogger(f"lateen.{name}").setLevel(_LEVELS[level])
