"""Probes and lifecycle hooks."""

from __future__ import annotations

import re
from typing import Any

from lateen.cluster.apiserver.validation import names
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, required, unsupported
from lateen.kit.jsons import Json

_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_HEADER = re.compile(r"[-A-Za-z0-9]+")
_NUMBERS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


def probe(value: Json, path: str) -> Causes:
    out = handler(value, path)
    for key in _NUMBERS:
        if value.get(key, 0) < 0:
            out.append(bad(f"{path}.{key}", value[key], "must be greater than or equal to 0"))
    if value.get("terminationGracePeriodSeconds", 1) <= 0:
        says = "must be greater than 0"
        out.append(bad(f"{path}.terminationGracePeriodSeconds", value["terminationGracePeriodSeconds"], says))
    return out


def only_one_success(value: Json, path: str) -> Causes:
    """Liveness and startup probes."""
    out = probe(value, path)
    if value.get("successThreshold", 1) not in (0, 1):
        out.append(bad(f"{path}.successThreshold", value["successThreshold"], "must be 1"))
    return out


def readiness(value: Json, path: str) -> Causes:
    out = probe(value, path)
    if (given := value.get("terminationGracePeriodSeconds")) is not None:
        out.append(bad(f"{path}.terminationGracePeriodSeconds", given, "must not be set for readinessProbes"))
    return out


def lifecycle(value: Json, path: str) -> Causes:
    hooks = [(value[hook], f"{path}.{hook}") for hook in ("postStart", "preStop") if value.get(hook) is not None]
    return [cause for hook, at in hooks for cause in handler(hook, at)]


def handler(value: Json, path: str) -> Causes:
    """Exactly one of exec, httpGet, tcpSocket, grpc (probes) or sleep (hooks)."""
    given = [k for k in _HANDLERS if value.get(k) is not None]
    if not given:
        return [required(path, "must specify a handler type")]
    out: Causes = [denied(f"{path}.{k}", "may not specify more than 1 handler type") for k in given[1:]]
    kind = given[0]
    what, at = value[kind], f"{path}.{kind}"
    match kind:
        case "exec" if not what.get("command"):
            out.append(required(f"{at}.command"))
        case "httpGet":
            out += [] if what.get("path") else [required(f"{at}.path")]
            out += _port(what.get("port"), f"{at}.port")
            if what.get("scheme", "HTTP") not in ("HTTP", "HTTPS"):
                out.append(unsupported(f"{at}.scheme", what["scheme"], ("HTTP", "HTTPS")))
            for header in what.get("httpHeaders") or []:
                name = str(header.get("name") or "")
                if not _HEADER.fullmatch(name):
                    says = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name')"
                    out.append(bad(f"{at}.httpHeaders", name, says))
        case "tcpSocket" | "grpc":
            out += _port(what.get("port"), f"{at}.port")
    return out


def _port(port: Any, path: str) -> Causes:
    if isinstance(port, str):
        return [bad(path, port, s) for s in names.port_name(port)]
    return [bad(path, port or 0, s) for s in names.port_number(port or 0)]
