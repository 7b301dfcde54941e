"""Parses lines of access logs. Pure.

The parser is derived from the mesh's log format, so that custom formats are understood, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from lateen.api.mesh.accesslog import JSON, TEXT, json_labels
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json, dig

KEYS = {
    "START_TIME": "start",
    "REQ(:METHOD)": "method",
    "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)": "path",
    "REQ(:PATH)": "path",
    "REQ(:AUTHORITY)": "authority",
    "REQ(X-REQUEST-ID)": "requestId",
    "PROTOCOL": "protocol",
    "RESPONSE_CODE": "status",
    "RESPONSE_FLAGS": "flags",
    "RESPONSE_CODE_DETAILS": "details",
    "CONNECTION_TERMINATION_DETAILS": "terminated",
    "UPSTREAM_TRANSPORT_FAILURE_REASON": "failure",
    "REQUESTED_SERVER_NAME": "sni",
    "DURATION": "durationMs",
    "UPSTREAM_HOST": "destination",
    "UPSTREAM_CLUSTER": "cluster",
    "UPSTREAM_CLUSTER_RAW": "cluster",
    "DOWNSTREAM_REMOTE_ADDRESS": "source",
    "DOWNSTREAM_LOCAL_ADDRESS": "local",
    "ROUTE_NAME": "route",
}
"""Envoy's operators -> keys of a request, as in ``wire.tap``."""
_OPERATOR = re.compile(r"%([A-Z_]+(?:\([^)]*\))?)(?::\d+)?%")
_NUMBERS = ("status", "durationMs")
LONGEST = 64 * 1024


class Parser:
    """``text``: the mesh's accessLogFormat, empty for Istio's; ``labels``: that of JSON logs, empty for Istio's."""

    def __init__(self, text: str = "", labels: Mapping[str, Any] | None = None) -> None:
        self._text, self._names = _pattern(text or TEXT)
        self._labels = _keys(labels or JSON)

    def read(self, line: str) -> Json | None:
        """None if it is not a line of an access log."""
        if len(line) > LONGEST:
            return None
        found = self._json(line) if line.startswith("{") else self._plain(line)
        return found if found and ("status" in found or "path" in found) else None

    def _json(self, line: str) -> Json | None:
        try:
            given = jsons.loads(line)
        except ValueError:
            return None
        if not isinstance(given, dict):
            return None
        return _typed({self._labels[k]: v for k, v in given.items() if k in self._labels})

    def _plain(self, line: str) -> Json | None:
        match = self._text.fullmatch(line)
        return _typed(dict(zip(self._names, match.groups(), strict=True))) if match else None


@lru_cache(maxsize=16)
def _pattern(text: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """A pattern in which operators match up to the following literal, which prevents backtracking over several of
    them."""
    names, pattern, at = [], "", 0
    text = text.rstrip("\n")
    for found in _OPERATOR.finditer(text):
        pattern += re.escape(text[at : found.start()])
        at = found.end()
        stop = text[at : at + 1]
        names.append(KEYS.get(found[1], f"%{found[1]}"))
        pattern += f"([^{re.escape(stop)}]*)" if stop and stop != "%" else "(.*)"
    return re.compile(pattern + re.escape(text[at:]), re.DOTALL), tuple(names)


def _keys(labels: Mapping[str, Any]) -> dict[str, str]:
    out = {}
    for label, value in labels.items():
        found = _OPERATOR.fullmatch(str(value))
        if found and found[1] in KEYS:
            out[label] = KEYS[found[1]]
    return out


def _typed(given: Json) -> Json:
    out: Json = {}
    for key, value in given.items():
        if key.startswith("%") or value in ("-", "", None):
            continue
        if key in _NUMBERS:
            try:
                value = int(value)
            except (TypeError, ValueError):
                continue
        out[key] = value
    return out


def parser_of(config_map: Json | None) -> Parser:
    """A parser for the format in the mesh configuration (the ConfigMap ``istio``), by default Istio's."""
    try:
        mesh = yamldoc.load(str(dig(config_map or {}, "data", "mesh", default=""))) or {}
    except ValueError:
        return Parser()
    text = str(mesh.get("accessLogFormat") or "") if isinstance(mesh, dict) else ""
    encoded = isinstance(mesh, dict) and mesh.get("accessLogEncoding") == "JSON"
    return Parser(labels=json_labels(text)) if encoded else Parser(text)
