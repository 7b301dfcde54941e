"""The functions available to templates: Go's own, those of Istio's injector, and Sprig's.

Source: istio.io/istio ``pkg/kube/inject/template.go``, createInjectionFuncmap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lateen.inject.environment import DEFAULT_CONFIG
from lateen.inject.gotemplate.sprig import SPRIG, mapping
from lateen.inject.gotemplate.values import go_text, truth
from lateen.inject.networks import with_network
from lateen.kit import jsons, yamldoc


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list | tuple) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        elif value is not None:
            raise ValueError(f"index {key!r} is out of range")
    return "" if value is None else value


def _and(*values: Any) -> Any:
    return next((v for v in values if not truth(v)), values[-1])


def _or(*values: Any) -> Any:
    return next((v for v in values if truth(v)), values[-1])


def _printf(pattern: str, *values: Any) -> str:
    out, rest, at = "", list(values), 0
    while at < len(pattern):
        if pattern[at] == "%" and at + 1 < len(pattern):
            verb = pattern[at + 1]
            at += 2
            if verb == "%":
                out += "%"
            elif not rest:
                out += f"%!{verb}(MISSING)"
            else:
                value = rest.pop(0)
                out += jsons.dumps(go_text(value)).decode() if verb == "q" else go_text(value)
        else:
            out += pattern[at]
            at += 1
    return out


def _annotation(meta: Any, name: str, default: Any) -> str:
    given = (meta.get("annotations") or {}).get(name)
    return go_text(default if given is None else given)


def _exclude_port(port: Any, ports: str) -> str:
    number = go_text(port).strip()
    found = [p.strip() for p in ports.split(",") if p.strip()]
    return ports if number in ("", "0") or number in found else ",".join([*found, number])


def _istio_indent(spaces: int, text: str) -> str:
    """Istio's indent: every line but the first, which the template has already indented."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(" " * min(int(spaces), 200) + line for line in rest)])


def _proto(value: Any) -> str:
    """A proxy's configuration without Istio's defaults."""
    given = value if isinstance(value, dict) else {}
    return jsons.dumps({k: v for k, v in given.items() if DEFAULT_CONFIG.get(k) != v}).decode()


def _yaml(value: Any) -> str:
    return yamldoc.dump(value).rstrip("\n") if value not in (None, {}) else "{}"


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda a, b: test(a, b)


def _eq(first: Any, *others: Any) -> bool:
    return any(first == o or (first is None and o == "") or (first == "" and o is None) for o in others)


def _ports_of(containers: Any, but: str = "") -> str:
    found = [p for c in containers or [] if c.get("name") != but for p in c.get("ports") or []]
    return ",".join(str(p["containerPort"]) for p in found if p.get("protocol") not in ("UDP", "SCTP"))


def _without_nil(value: Any) -> Any:
    """Without nil values, at any depth, and what becomes empty by that; None if nothing is left."""
    if not isinstance(value, dict | list) or not _has_nil(value):
        return value
    if isinstance(value, list):
        return [v for i in value if (v := _without_nil(i)) is not None] or None
    return {k: v for k, i in value.items() if (v := _without_nil(i)) is not None} or None


def _has_nil(value: Any) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(map(_has_nil, inside))


FUNCTIONS: dict[str, Callable[..., Any]] = SPRIG | {
    # Go
    "and": _and,
    "or": _or,
    "not": lambda v: not truth(v),
    "len": lambda v: len(v or ()),
    "index": _index,
    "eq": _eq,
    "ne": lambda a, b: not _eq(a, b),
    "lt": _compare(lambda a, b: a < b),
    "le": _compare(lambda a, b: a <= b),
    "gt": _compare(lambda a, b: a > b),
    "ge": _compare(lambda a, b: a >= b),
    "print": lambda *v: "".join(go_text(i) for i in v),
    "printf": _printf,
    # Istio's injector
    "annotation": _annotation,
    "appendMultusNetwork": with_network,
    "applicationPorts": lambda containers: _ports_of(containers, "istio-proxy"),
    "contains": lambda needle, text: go_text(needle) in go_text(text),
    "directory": lambda path: path.rpartition("/")[0] + "/" if "/" in path else "",
    "env": lambda *named: named[-1],  # always the default: templates have no access to istiod's environment
    "excludeInboundPort": _exclude_port,
    "formatDuration": go_text,
    "fromJSON": lambda text: jsons.loads(text),
    "includeInboundPorts": _ports_of,
    "indent": _istio_indent,
    "isset": lambda mapping, key: key in (mapping or {}),
    "kubevirtInterfaces": go_text,
    "omit": lambda mapping, *keys: {k: v for k, v in (mapping or {}).items() if k not in keys},
    "omitNil": _without_nil,
    "protoToJSON": _proto,
    "strdict": mapping,
    "structToJSON": lambda v: jsons.dumps(v or {}).decode(),
    "toJSON": lambda v: jsons.dumps(v or {}).decode(),
    "toJson": lambda v: jsons.dumps(v).decode(),
    "toJsonMap": lambda *maps: jsons.dumps({k: v for m in maps for k, v in (m or {}).items()}).decode(),
    "toLower": lambda text: go_text(text).lower(),
    "toYaml": _yaml,
    "valueOrDefault": lambda value, default: default if value in ("", None) else value,
}
