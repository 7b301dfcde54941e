"""CEL rules of custom resources (``x-kubernetes-validations``).

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules.
The library evaluates rules without types; ``declared`` finds what does not fit them when a definition is written. What
the library does not have (macros with two variables) leaves a rule without effect, and a warning names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any

from lateen.cluster.apiserver.custom import optionals
from lateen.cluster.apiserver.custom.checking import NAMESPACES
from lateen.cluster.apiserver.custom.functions import FUNCTIONS
from lateen.cluster.apiserver.errors import Cause
from lateen.cluster.apiserver.validation.fields import Causes
from lateen.kit import duration, jsons, times
from lateen.kit.jsons import Json, dig

RULES = "x-kubernetes-validations"
BUDGET = 500_000
"""Steps that the rules of one object may take, as far as the sizes of its lists and maps tell before: about 1.5 s."""

_STANDARD = {
    *("contains", "endsWith", "matches", "startsWith", "size", "type", "bool", "bytes", "double", "duration", "dyn"),
    *("int", "string", "timestamp", "uint", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear"),
    *("getHours", "getMilliseconds", "getMinutes", "getMonth", "getSeconds", "hasValue", "orValue", "value"),
}
_TYPES = {
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "uint",
}
_STRINGS = re.compile(r"""[rRbB]*(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""")
_MACRO = re.compile(r"\.\s*(?:all|exists|exists_one|filter|map)\s*\(\s*(\w+)\s*,")
_SIZE = re.compile(r"\bsize\s*\(")
_KEYWORDS = frozenset(
    {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import"}
    | {"let", "loop", "package", "namespace", "return"}
)


FAILURES = (RuntimeError, ValueError, TypeError, KeyError, IndexError, ArithmeticError)
"""Exceptions that the library raises during evaluation."""


class Unsupported(Exception):
    """The rule uses a feature that is not available here, which the message names."""


_OF_OBJECTS = frozenset({"self", "oldSelf"})


@lru_cache(maxsize=4096)
def compiled(expression: str, known: frozenset[str] = _OF_OBJECTS, more: frozenset[str] = frozenset()) -> Any:
    """The library's program. ``known``: the variables that there are; ``more``: functions besides Kubernetes' usual
    ones. Raises ValueError for a mistake, and Unsupported."""
    import cel

    plain = _sized(optionals.rewritten(expression))
    try:
        program = cel.compile(plain)
    except ValueError as e:
        if (found := re.search(r"unsupported syntax '([^']*)'", str(e))) is not None:
            raise Unsupported(f"the syntax {found[1]}") from None
        says = str(e).removeprefix("compilation failed: ")
        says = (says.partition(": ")[2] or says).splitlines()[0]
        place = re.match(r"ERROR: <input>:(\d+):(\d+): ", says) if plain == expression else None
        raise ValueError(f"compilation failed: {says}{_pointer(expression, place) if place else ''}") from None
    named = {f for f in program.functions() if f[0].isalpha()} - _STANDARD - set(FUNCTIONS) - more - {"codePoints"}
    if named:
        raise Unsupported(f"the function or macro {min(named)}")
    bound = set(_MACRO.findall(_STRINGS.sub('""', expression)))
    if unknown := sorted(set(program.variables()) - bound - _TYPES - known):
        if of := NAMESPACES.intersection(unknown):
            raise Unsupported(f"the functions of {min(of)}")
        raise ValueError(f"compilation failed: undeclared reference to '{unknown[0]}' (in container '')")
    return program


def _pointer(expression: str, place: re.Match[str]) -> str:
    """The line of a mistake, and what points to its column."""
    line = expression.split("\n")[int(place[1]) - 1 :][:1]
    return f"\n | {line[0]}\n | {'.' * (int(place[2]) - 1)}^" if line else ""


def _sized(expression: str) -> str:
    """The library counts the bytes of a string; Kubernetes counts its characters."""
    out, end = "", 0
    for text in _STRINGS.finditer(expression):
        out += _SIZE.sub("codePoints(", expression[end : text.start()]) + text[0]
        end = text.end()
    return out + _SIZE.sub("codePoints(", expression[end:])


@lru_cache(maxsize=4096)
def depth(expression: str) -> int:
    """How deeply macros over lists and maps are nested."""
    plain = _STRINGS.sub('""', expression)
    starts = {m.end() - len(m[0]) + m[0].index("(") for m in _MACRO.finditer(plain)}
    deepest, stack = 0, list[bool]()
    for at, ch in enumerate(plain):
        if ch == "(":
            stack.append(at in starts)
            deepest = max(deepest, sum(stack))
        elif ch == ")" and stack:
            stack.pop()
    return deepest


# --- objects ---------------------------------------------------------------------------------------------------------


def check(schema: Json, new: Json, old: Json | None) -> Causes:
    """The rules' verdict on an object whose structure is valid; ``old``: the object that it replaces."""
    return _Walk().walk(schema, new, old, "", root=True)


_BLOCKING = ("NotSupported", "Required", "TooLong", "TooMany", "TypeInvalid")
_UNCHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)


def after(schema: Json, new: Json, causes: Causes) -> Causes:
    """What is added to what the structure violates: the verdict of the rules, or that they were not asked."""
    if not _any(schema):
        return []
    if any(c.reason.removeprefix("FieldValue") in _BLOCKING for c in causes):
        return [Cause("<nil>", f'Invalid value: "null": {_UNCHECKED}')]
    return check(schema, new, None)


def _any(schema: Json) -> bool:
    """Whether a schema has rules."""
    inner = [*(schema.get("properties") or {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return bool(schema.get(RULES)) or any(isinstance(s, dict) and _any(s) for s in inner)


class _Walk:
    def __init__(self) -> None:
        self._left = float(BUDGET)

    def walk(self, schema: Json, value: Any, old: Any, path: str, root: bool = False) -> Causes:
        """``old`` is None where there is nothing that the value can be compared with."""
        out: Causes = []
        if rules := schema.get(RULES):
            out += self._rules(schema, rules, value, old, path, root)
        before = old if isinstance(old, type(value)) else None
        if isinstance(value, dict):
            properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
            for key, child in value.items():
                inner = properties.get(key, extra)
                if isinstance(inner, dict):
                    at = f"{path}.{key}" if path else key
                    out += self.walk(inner, child, (before or {}).get(key), at)
        elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
            same = _by_keys(schema, before or [])
            for i, child in enumerate(value):
                out += self.walk(items, child, same.get(_identity(schema, child)), f"{path}[{i}]")
        return out

    def _rules(self, schema: Json, rules: list[Json], value: Any, old: Any, path: str, root: bool) -> Causes:
        import cel

        own, was = _converted(schema, value, root), None if old is None else _converted(schema, old, root)
        most = largest(value)
        out: Causes = []
        for rule in rules:
            text = str(rule.get("rule") or "")
            try:
                program = compiled(text)
            except (Unsupported, ValueError):
                continue  # a warning, or a definition from before this was refused
            compares = "oldSelf" in program.variables()
            optional = bool(rule.get("optionalOldSelf"))
            if (compares and was is None and not optional) or (not compares and old is not None and old == value):
                continue
            self._left -= most ** depth(text)
            if self._left < 0:
                says = "validation failed due to running out of cost budget, no further validation rules will be run"
                return [*out, Cause(path or "<nil>", f"Forbidden: {says}", "FieldValueForbidden")]
            before = was
            if optional:
                before = cel.OptionalValue.none() if was is None else cel.OptionalValue.of(was)
            out += _judge(program, rule, {"self": own, "oldSelf": before}, schema, path)
        return out


def _judge(program: Any, rule: Json, variables: Json, schema: Json, path: str) -> Causes:
    kind, text = schema.get("type") or "object", rule["rule"]
    says = rule.get("message") or f"failed rule: {text.strip()}"
    try:
        if program.execute(context(variables)) is True:
            return []
    except FAILURES as e:
        return [
            Cause(path or "<nil>", f'Invalid value: "{kind}": {why(e)} evaluating rule: {says}', "FieldValueInvalid")
        ]
    if expression := rule.get("messageExpression"):
        try:
            made = compiled(expression).execute(context(variables))
            says = made if isinstance(made, str) and made.strip() and "\n" not in made else says
        except (Unsupported, *FAILURES):
            pass  # the plain message stands
    where = (path + str(rule.get("fieldPath") or "")).lstrip(".") or "<nil>"
    match rule.get("reason"):
        case "FieldValueForbidden":
            return [Cause(where, f"Forbidden: {says}", "FieldValueForbidden")]
        case "FieldValueRequired":
            return [Cause(where, f"Required value: {says}", "FieldValueRequired")]
        case "FieldValueDuplicate":
            return [Cause(where, f'Duplicate value: "{kind}"', "FieldValueDuplicate")]
    return [Cause(where, f'Invalid value: "{kind}": {says}', "FieldValueInvalid")]


def context(variables: Json, more: Mapping[str, Callable[..., Any]] | None = None) -> Any:
    """``more``: functions besides Kubernetes' usual ones."""
    import cel

    made = cel.Context(variables=variables)
    made.add_function("codePoints", len)
    for name, function in {**FUNCTIONS, **(more or {})}.items():
        made.add_function(name, function)
    return made


def why(e: Exception) -> str:
    return f"no such key: {e.args[0]}" if isinstance(e, KeyError) else str(e).splitlines()[0]


def largest(value: Any) -> int:
    """The number of entries of the largest list or map in it."""
    if isinstance(value, dict):
        return max([len(value), *map(largest, value.values())])
    return max([len(value), *map(largest, value)]) if isinstance(value, list) else 1


def longest(value: Any) -> int:
    """The length of the longest string in it."""
    if isinstance(value, dict | list):
        return max(map(longest, value.values() if isinstance(value, dict) else value), default=0)
    return len(value) if isinstance(value, str) else 0


def _identity(schema: Json, item: Any) -> bytes:
    keys = schema.get("x-kubernetes-list-map-keys") or []
    if schema.get("x-kubernetes-list-type") != "map" or not isinstance(item, dict):
        return b""
    return jsons.canonical([item.get(k) for k in keys])


def _by_keys(schema: Json, items: list[Any]) -> dict[bytes, Any]:
    """The items of a list that can be told apart; none of other lists, whose items have no identity."""
    return {key: item for item in items if (key := _identity(schema, item))}


def _converted(schema: Json, value: Any, root: bool = False) -> Any:
    """The value with the types that CEL has for it, and names of fields that it can write."""
    if isinstance(value, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        if root:
            meta = {k: v for k, v in dig(value, "metadata", default={}).items() if k in ("name", "generateName")}
            rest = {k: v for k, v in value.items() if k in properties and k != "metadata"}
            value = {"apiVersion": value.get("apiVersion"), "kind": value.get("kind"), "metadata": meta} | rest
        out = {}
        for key, child in value.items():
            if key in properties:
                out[escaped(key)] = _converted(properties[key], child)
            elif isinstance(extra, dict):
                out[key] = _converted(extra, child)
            else:
                out[escaped(key) if properties else key] = child
        return out
    if isinstance(value, list):
        items = schema.get("items") or {}
        return [_converted(items, v) for v in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if schema.get("type") == "number" or not -(1 << 63) <= value < 1 << 63 else value
    return _formatted(str(schema.get("format") or ""), value) if isinstance(value, str) else value


def _formatted(name: str, text: str) -> Any:
    try:
        if name in ("date-time", "date"):
            return times.parse(text if name == "date-time" else text + "T00:00:00+00:00")
        if name == "duration":
            return timedelta(seconds=duration.seconds(text))
        if name == "byte":
            return text.encode()
    except ValueError:
        pass  # the format check has already reported it
    return text


@lru_cache(maxsize=4096)
def escaped(name: str) -> str:
    """A field's name as rules write it."""
    if name in _KEYWORDS:
        return f"__{name}__"
    for plain, word in (("__", "underscores"), (".", "dot"), ("-", "dash"), ("/", "slash")):
        name = name.replace(plain, f"\0{word}\0")
    return name.replace("\0", "__")
