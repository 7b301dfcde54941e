"""The functions available to templates: Go's own, Istio's, and those of Sprig that injection templates use."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

from lateen.kit import jsons, regex, yamldoc

MAX_TEXT = 1024 * 1024


def truth(value: Any) -> bool:
    return value is not None and value is not False and value not in (0, "", [], {}, ())


def go_text(value: Any) -> str:
    """A value roughly as Go's ``fmt`` prints it; mappings are printed as JSON."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case list() | tuple():
            return "[" + " ".join(go_text(v) for v in value) + "]"
        case dict():
            return "map[" + " ".join(f"{k}:{go_text(v)}" for k, v in sorted(value.items())) + "]"
    return str(value)


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


def _indent(spaces: int, text: str) -> str:
    """Sprig's indent: every line."""
    return "\n".join(" " * min(int(spaces), 200) + line for line in text.split("\n"))


def _istio_indent(spaces: int, text: str) -> str:
    """Istio's indent: every line but the first, which the template has already indented."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(" " * min(int(spaces), 200) + line for line in rest)])


def _yaml(value: Any) -> str:
    return yamldoc.dump(value).rstrip("\n") if value not in (None, {}) else "{}"


def _default(default: Any, *given: Any) -> Any:
    return given[0] if given and truth(given[0]) else default


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda a, b: test(a, b)


def _eq(first: Any, *others: Any) -> bool:
    return any(first == o or (first is None and o == "") or (first == "" and o is None) for o in others)


def _dict(*pairs: Any) -> dict[str, Any]:
    return dict(zip(pairs[::2], pairs[1::2], strict=False))


def _ports_of(containers: Any) -> str:
    found = [p for c in containers or [] if c.get("name") != "istio-proxy" for p in c.get("ports") or []]
    return ",".join(str(p["containerPort"]) for p in found if p.get("protocol") not in ("UDP", "SCTP"))


def _fail(text: Any) -> None:
    raise ValueError(go_text(text))


def _repeat(count: int, text: str) -> str:
    if count * len(text) > MAX_TEXT:
        raise ValueError("the text becomes too long")
    return text * count


FUNCTIONS: dict[str, Callable[..., Any]] = {
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
    "applicationPorts": _ports_of,
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
    "protoToJSON": lambda v: jsons.dumps(v or {}).decode(),
    "structToJSON": lambda v: jsons.dumps(v or {}).decode(),
    "toJSON": lambda v: jsons.dumps(v or {}).decode(),
    "toJson": lambda v: jsons.dumps(v).decode(),
    "toLower": lambda text: go_text(text).lower(),
    "toYaml": _yaml,
    "valueOrDefault": lambda value, default: default if value in ("", None) else value,
    # Sprig
    "append": lambda items, item: [*(items or []), item],
    "b64dec": lambda text: base64.b64decode(text).decode(),
    "b64enc": lambda text: base64.b64encode(go_text(text).encode()).decode(),
    "coalesce": lambda *v: next((i for i in v if truth(i)), None),
    "default": _default,
    "dict": _dict,
    "empty": lambda v: not truth(v),
    "fail": _fail,
    "first": lambda items: items[0] if items else None,
    "fromJson": lambda text: jsons.loads(text),
    "get": lambda mapping, key: (mapping or {}).get(key, ""),
    "has": lambda item, items: item in (items or []),
    "hasKey": lambda mapping, key: key in (mapping or {}),
    "hasPrefix": lambda prefix, text: go_text(text).startswith(prefix),
    "hasSuffix": lambda suffix, text: go_text(text).endswith(suffix),
    "int": lambda v: int(v or 0),
    "join": lambda separator, items: separator.join(go_text(i) for i in items or []),
    "keys": lambda mapping: sorted(mapping or {}),
    "last": lambda items: items[-1] if items else None,
    "list": lambda *items: list(items),
    "lower": lambda text: go_text(text).lower(),
    "merge": lambda *maps: {k: v for m in reversed(maps) for k, v in (m or {}).items()},
    "nindent": lambda spaces, text: "\n" + _indent(spaces, text),
    "quote": lambda *v: " ".join(jsons.dumps(go_text(i)).decode() for i in v),
    "regexMatch": lambda pattern, text: regex.compiled(pattern).search(go_text(text)) is not None,
    "repeat": _repeat,
    "replace": lambda old, new, text: go_text(text).replace(old, new),
    "sha256sum": lambda text: hashlib.sha256(go_text(text).encode()).hexdigest(),
    "split": lambda separator, text: {f"_{i}": p for i, p in enumerate(text.split(separator))},
    "splitList": lambda separator, text: text.split(separator),
    "squote": lambda *v: " ".join(f"'{go_text(i)}'" for i in v),
    "ternary": lambda yes, no, test: yes if truth(test) else no,
    "toString": go_text,
    "trim": lambda text: go_text(text).strip(),
    "trimPrefix": lambda prefix, text: go_text(text).removeprefix(prefix),
    "trimSuffix": lambda suffix, text: go_text(text).removesuffix(suffix),
    "trunc": lambda count, text: go_text(text)[:count] if count >= 0 else go_text(text)[count:],
    "upper": lambda text: go_text(text).upper(),
}
