"""Decodes Istio's protobuf configuration from YAML or JSON, and reports every error with its path.

Follows protobuf's JSON mapping (https://protobuf.dev/programming-guides/json/): fields in camelCase or snake_case,
numbers also as strings, null for "not set". Unknown fields and enum values are errors. Durations may also be in Go's
syntax ("1m30s").
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from lateen.api.config import Config, Duration, decode, fields, table, unwrap
from lateen.api.mesh.config import MeshConfig
from lateen.api.mesh.networks import MeshNetworks
from lateen.api.mesh.proxy import ProxyConfig
from lateen.api.mesh.rules import RULES
from lateen.api.validate.shapes import values
from lateen.kit import duration, faults, yamldoc
from lateen.kit.jsons import Json

T = TypeVar("T", bound=Config)


class Problem(NamedTuple):
    path: str
    says: str

    def __str__(self) -> str:
        return f"{self.path}: {self.says}" if self.path else self.says


class Invalid(ValueError):
    """The configuration is invalid; ``problems`` has every error, the message the first three."""

    def __init__(self, problems: list[Problem]) -> None:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        super().__init__("; ".join(str(p) for p in problems[:3]) + more)
        self.problems = problems


def mesh_config(text: str) -> MeshConfig:
    """The key ``mesh`` of the ConfigMap ``istio``. Raises Invalid."""
    try:
        value = yamldoc.load(text)
    except yamldoc.YamlError as e:
        raise Invalid([Problem("mesh", str(e))]) from e
    return read(MeshConfig, value, "")


def mesh_networks(text: str) -> MeshNetworks:
    """The key ``meshNetworks`` of the ConfigMap ``istio``. Raises Invalid."""
    try:
        value = yamldoc.load(text)
    except yamldoc.YamlError as e:
        raise Invalid([Problem("meshNetworks", str(e))]) from e
    return read(MeshNetworks, value, "meshNetworks")


def problems(value: Any, path: str = "meshConfig") -> list[Problem]:
    """Errors in a mesh configuration that was decoded from YAML."""
    return _problems(MeshConfig, value, path)


def proxy_config_problems(value: Any, path: str = "proxy.istio.io/config") -> list[Problem]:
    """Errors in the value of an annotation ``proxy.istio.io/config``."""
    return _problems(ProxyConfig, value, path)


def _problems(kind: type[Config], value: Any, path: str) -> list[Problem]:
    try:
        read(kind, value, path)
    except Invalid as e:
        return e.problems
    return []


def read(kind: type[T], value: Any, path: str) -> T:
    """The typed form of a decoded document; None counts as empty. Raises Invalid."""
    found: list[Problem] = []
    normal = _value(kind, {} if value is None else value, path, found)
    if not found:
        out = decode(kind, normal, path)
        try:
            found += (Problem(f.path, f.says) for f in values(kind, normal, path))
            found += (Problem(_join(path, where), says) for where, says in RULES.get(kind, _none)(out))
        except Exception as e:  # noqa: BLE001 - a fault in one rule is a problem of the configuration, not of istiod
            found.append(Problem(path or "mesh", faults.sentence(e)))
        if not found:
            return out
    raise Invalid(found)


def canonical(kind: type[Config], value: Any, path: str) -> Json:
    """A decoded document with the names and types of its fields: camelCase, numbers as numbers, nothing that is null.
    Raises Invalid."""
    read(kind, value, path)
    out: Json = _value(kind, {} if value is None else value, path, [])
    return out


def _none(_: Config) -> list[tuple[str, str]]:
    return []


def type_at(kind: Any, steps: Sequence[object]) -> Any:
    """The type at a path of field names and list items; None if the path does not exist."""
    for step in steps:
        kind = unwrap(kind)
        origin = typing.get_origin(kind)
        if origin is tuple and not isinstance(step, str):
            kind = typing.get_args(kind)[0]
        elif origin is dict and isinstance(step, str):
            kind = typing.get_args(kind)[1]
        elif isinstance(kind, type) and issubclass(kind, Config) and isinstance(step, str):
            kind = fields(kind).get(step)
        else:
            return None
    return unwrap(kind)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _value(kind: Any, value: Any, path: str, found: list[Problem]) -> Any:
    """``value`` in its canonical form; errors are appended to ``found``."""
    kind = unwrap(kind)
    origin = typing.get_origin(kind)
    if kind is Any:
        return value
    if origin is tuple:
        return _list(typing.get_args(kind)[0], value, path, found)
    if origin is dict:
        return _map(typing.get_args(kind)[1], value, path, found)
    if isinstance(kind, type) and issubclass(kind, Config):
        return _message(kind, value, path, found)
    if origin is Literal:
        return _enum(typing.get_args(kind), value, path, found)
    return _scalar(kind, value, path, found)


def _list(item: Any, value: Any, path: str, found: list[Problem]) -> Any:
    if not isinstance(value, list):
        found.append(Problem(path, f"expected a list, got {spoken(value)}"))
        return []
    return [_value(item, v, f"{path}[{i}]", found) for i, v in enumerate(value)]


def _map(item: Any, value: Any, path: str, found: list[Problem]) -> Any:
    if not isinstance(value, dict):
        found.append(Problem(path, f"expected a map, got {spoken(value)}"))
        return {}
    return {str(k): _value(item, v, f"{path}[{k}]", found) for k, v in value.items()}


def _message(kind: type[Config], value: Any, path: str, found: list[Problem]) -> Json:
    known = fields(kind)
    if not isinstance(value, dict):
        example = f"write it as {{mode: {value}}}" if "mode" in known and isinstance(value, str) else "an object"
        hint = example if example != "an object" else f"its fields are {', '.join(list(known)[:6])}"
        found.append(
            Problem(path or ("mesh" if kind is MeshConfig else ""), f"expected an object, got {spoken(value)}; {hint}")
        )
        return {}
    spelled = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    out: Json = {}
    for key, child in value.items():
        name = key if key in known else spelled.get(str(key))
        at = _join(path, str(key))
        if name is None:
            near = difflib.get_close_matches(str(key), list(known), 1)
            hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known)}"
            found.append(Problem(at, f"unknown field; {hint if len(hint) < 400 else 'remove it'}"))
        elif child is not None:
            out[name] = _value(known[name], child, at, found)
    found += [Problem(_join(path, name), "is required") for name in table(kind).required if name not in out]
    return out


def _enum(values: tuple[str, ...], value: Any, path: str, found: list[Problem]) -> Any:
    if value in values:
        return value
    near = difflib.get_close_matches(str(value).upper(), values, 1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    found.append(Problem(path, f'unknown value "{value}"; {hint}it can be {" or ".join(values)}'))
    return values[0]


def _scalar(kind: type, value: Any, path: str, found: list[Problem]) -> Any:
    says = ""
    if kind is Duration:
        try:
            duration.nanoseconds(str(value) if isinstance(value, str) else "")
            return value
        except ValueError:
            says = 'expected a duration such as "10s" or "1m30s"'
    elif kind is bool:
        if isinstance(value, bool):
            return value
        says = "expected true or false"
    elif kind in (int, float):
        try:
            number = kind(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
        except ValueError:
            number = None
        if number is not None and (kind is float or not isinstance(value, float) or value == number):
            return number
        says = "expected a whole number" if kind is int else "expected a number"
    elif isinstance(value, str):
        return value
    else:
        says = f'expected text; quote it ("{str(value).lower() if isinstance(value, bool) else value}")'
        if isinstance(value, dict | list):
            says = "expected text"
    found.append(Problem(path, f"{says}, got {spoken(value)}"))
    return None


def spoken(value: Any) -> str:
    """A value in a message: the text "x", the number 3, a list."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'the text "{value[:80]}"'
        case int() | float():
            return f"the number {value}"
        case list():
            return "a list"
        case None:
            return "nothing"
    return "an object"
