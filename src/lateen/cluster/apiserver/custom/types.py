"""The types of CEL: of a schema's values, and of the functions and operators that rules may use.

Sources: k8s.io/apiserver/pkg/cel/common, SchemaDeclType; https://kubernetes.io/docs/reference/using-api/cel/;
https://github.com/google/cel-spec/blob/master/doc/langdef.md#list-of-standard-definitions. What an older or newer
Kubernetes adds to these functions is not in the table: calls of functions that it does not name have an unknown type.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from lateen.kit.jsons import Json


@dataclass(frozen=True)
class Type:
    """``inner``: of a list, map, optional value or type. ``fields``: of an object, the type of a field, or
    None; computed on demand and once, because schemas are large and rules name few of their fields, but often."""

    name: str
    inner: tuple[Type, ...] = ()
    fields: Callable[[str], Type | None] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        name = "dyn" if self.name == "?" else self.name
        return f"{name}({', '.join(map(str, self.inner))})" if self.inner else name


DYN, UNKNOWN = Type("dyn"), Type("?")
"""A value of any type; and one whose type is not known here, about which nothing is reported."""
BOOL, STRING, NULL = Type("bool"), Type("string"), Type("null")
_NULLABLE = frozenset({"optional_type", "timestamp", "duration", "net.IP", "net.CIDR", "kubernetes.Quantity"})
_PRIMITIVE = {"boolean": "bool", "integer": "int", "number": "double", "string": "string"}
_FORMATS = {"byte": "bytes", "duration": "duration", "date": "timestamp", "date-time": "timestamp"}


def of_schema(
    schema: Json,
    name: str,
    field_name: Callable[[str], str],
    root: bool = False,
    resolve: Callable[[Json], Json] = lambda schema: schema,
) -> Type | None:
    """None for a value that rules do not see: one without a type. ``field_name``: how rules write a field's name;
    ``resolve``: what follows references of Kubernetes' own definitions."""
    schema = resolve(schema)
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return DYN
    kind, extra = schema.get("type"), schema.get("additionalProperties")
    if kind == "array":
        item = of_schema(schema.get("items") or {}, f"{name}.@idx", field_name, resolve=resolve)
        return item and Type("list", (item,))
    if kind == "object" and isinstance(extra, dict):
        value = of_schema(extra, f"{name}.@elem", field_name, resolve=resolve)
        return value and Type("map", (STRING, value))
    if kind != "object":
        plain = _PRIMITIVE.get(str(kind))
        return Type(_FORMATS.get(str(schema.get("format")), plain) if plain == "string" else plain) if plain else None
    whole = root or bool(schema.get("x-kubernetes-embedded-resource"))
    return Type(name, fields=_fields(schema, name, field_name, whole, resolve))


def _fields(
    schema: Json, name: str, field_name: Callable[[str], str], whole: bool, resolve: Callable[[Json], Json]
) -> Callable[[str], Type | None]:
    """``whole``: its values are objects, which have a kind and a name, too."""

    @cache
    def named() -> dict[str, tuple[str, Json]]:
        found = {k: v for k, v in (schema.get("properties") or {}).items() if isinstance(v, dict)}
        if whole:
            texts = {"type": "object", "properties": {k: {"type": "string"} for k in ("name", "generateName")}}
            found |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": texts}
        return {field_name(key): (key, child) for key, child in found.items()}

    @cache
    def typed(field: str) -> Type | None:
        if field not in named():
            return None
        key, child = named()[field]
        return of_schema(child, f"{name}.{key}", field_name, resolve=resolve)

    return typed


# --- functions -------------------------------------------------------------------------------------------------------

_PARTS = "FullYear Month DayOfYear DayOfMonth Date DayOfWeek"
_PARTS_OF_BOTH = "Hours Minutes Seconds Milliseconds"
_ORDERED = ("bool", "int", "uint", "double", "string", "bytes", "timestamp", "duration")
_SUMMED = ("int", "uint", "double", "duration")
_NUMBERS = ("int", "uint", "double")
_OVERLOADS = [
    *("!_(bool) bool", "-_(int) int", "-_(double) double", "_?_:_(bool, A, A) A"),
    *(f"_{s}_({t}, {t}) {t}" for s in "+-*/" for t in _NUMBERS),
    *("_%_(int, int) int", "_%_(uint, uint) uint", "_+_(string, string) string", "_+_(bytes, bytes) bytes"),
    *("_+_(list(A), list(A)) list(A)", "_+_(timestamp, duration) timestamp", "_+_(duration, timestamp) timestamp"),
    *("_+_(duration, duration) duration", "_-_(timestamp, timestamp) duration", "_-_(duration, duration) duration"),
    "_-_(timestamp, duration) timestamp",
    *(f"_{s}_({t}, {t}) bool" for s in ("<", "<=", ">", ">=") for t in _ORDERED),
    *(f"_{s}_({a}, {b}) bool" for s in ("<", "<=", ">", ">=") for a in _NUMBERS for b in _NUMBERS if a != b),
    *("_==_(A, A) bool", "_!=_(A, A) bool", "@in(A, list(A)) bool", "@in(A, map(A, B)) bool"),
    *("_[_](list(A), int) A", "_[_](map(A, B), A) B"),
    *("_[_](optional_type(list(A)), int) optional_type(A)", "_[_](optional_type(map(A, B)), A) optional_type(B)"),
    *("_[?_](list(A), int) optional_type(A)", "_[?_](map(A, B), A) optional_type(B)"),
    *("_[?_](optional_type(list(A)), int) optional_type(A)", "_[?_](optional_type(map(A, B)), A) optional_type(B)"),
    *("optional_type(A).hasValue() bool", "optional_type(A).value() A", "optional_type(A).orValue(A) A"),
    "optional_type(A).or(optional_type(A)) optional_type(A)",
    *(f"size({t}) int" for t in ("string", "bytes", "list(A)", "map(A, B)")),
    *(f"{t}.size() int" for t in ("string", "bytes", "list(A)", "map(A, B)")),
    *("dyn(A) dyn", "type(A) type(A)", "bool(bool) bool", "bool(string) bool", "bytes(bytes) bytes"),
    *("bytes(string) bytes", "timestamp(timestamp) timestamp", "timestamp(string) timestamp"),
    *("timestamp(int) timestamp", "duration(duration) duration", "duration(string) duration", "duration(int) duration"),
    *(f"int({t}) int" for t in ("int", "uint", "double", "string", "timestamp", "duration")),
    *(f"{to}({t}) {to}" for to in ("uint", "double") for t in ("int", "uint", "double", "string")),
    *(f"string({t}) string" for t in (*_ORDERED, "net.IP", "net.CIDR")),
    *(f"string.{f}(string) bool" for f in ("contains", "endsWith", "startsWith", "matches")),
    "matches(string, string) bool",
    *(f"timestamp.get{p}({z}) int" for p in f"{_PARTS} {_PARTS_OF_BOTH}".split() for z in ("", "string")),
    *(f"duration.get{p}() int" for p in _PARTS_OF_BOTH.split()),
    *(f"string.{f}() string" for f in ("lowerAscii", "upperAscii", "trim")),
    *("string.charAt(int) string", "string.substring(int) string", "string.substring(int, int) string"),
    *("string.replace(string, string) string", "string.replace(string, string, int) string"),
    *("string.split(string) list(string)", "string.split(string, int) list(string)", "string.find(string) string"),
    *("string.findAll(string) list(string)", "string.findAll(string, int) list(string)"),
    *("list(string).join() string", "list(string).join(string) string", "string.format(list(dyn)) string"),
    *(f"string.{f}(string{z}) int" for f in ("indexOf", "lastIndexOf") for z in ("", ", int")),
    *(f"list(A).{f}(A) int" for f in ("indexOf", "lastIndexOf")),
    *(f"list({t}).isSorted() bool" for t in _ORDERED),
    *(f"list({t}).{f}() {t}" for f in ("min", "max") for t in _ORDERED),
    *(f"list({t}).sum() {t}" for t in _SUMMED),
    *("quantity(string) kubernetes.Quantity", "isQuantity(string) bool"),
    *(f"kubernetes.Quantity.{f}(kubernetes.Quantity) bool" for f in ("isGreaterThan", "isLessThan")),
    *("kubernetes.Quantity.compareTo(kubernetes.Quantity) int", "kubernetes.Quantity.sign() int"),
    *(f"kubernetes.Quantity.{f}(kubernetes.Quantity) kubernetes.Quantity" for f in ("add", "sub")),
    *(f"kubernetes.Quantity.{f}(int) kubernetes.Quantity" for f in ("add", "sub")),
    *("kubernetes.Quantity.isInteger() bool", "kubernetes.Quantity.asInteger() int"),
    "kubernetes.Quantity.asApproximateFloat() double",
    *("ip(string) net.IP", "isIP(string) bool", "net.CIDR.ip() net.IP", "net.IP.family() int"),
    *(f"net.IP.{f}() bool" for f in ("isLoopback", "isUnspecified")),
    *("cidr(string) net.CIDR", "isCIDR(string) bool", "net.CIDR.prefixLength() int", "net.CIDR.masked() net.CIDR"),
    *(f"net.CIDR.containsIP({t}) bool" for t in ("net.IP", "string")),
    *(f"net.CIDR.containsCIDR({t}) bool" for t in ("net.CIDR", "string")),
    *("url(string) kubernetes.URL", "isURL(string) bool", "kubernetes.URL.getQuery() map(string, list(string))"),
    *(f"kubernetes.URL.get{p}() string" for p in ("Scheme", "Host", "Hostname", "Port", "EscapedPath")),
]  # fmt: skip
AUTHORIZATION = "kubernetes.authorization."
_AUTHORIZER = [
    *("Authorizer.path(string) PathCheck", "Authorizer.group(string) GroupCheck"),
    *("Authorizer.serviceAccount(string, string) Authorizer", "GroupCheck.resource(string) ResourceCheck"),
    *(f"ResourceCheck.{f}(string) ResourceCheck" for f in ("subresource", "namespace", "name")),
    *(f"{of}.check(string) Decision" for of in ("PathCheck", "ResourceCheck")),
    *("Decision.allowed() bool", "Decision.errored() bool", "Decision.reason() string", "Decision.error() string"),
]
"""Methods of policies' ``authorizer``; names of types are without their common prefix."""
_OF_TEXT = "quote escapeKey encode decode"
_OF_LISTS = "slice sort reverse distinct flatten range first last"
_OF_NUMBERS = "greatest least abs ceil floor round"
_OF_OPTIONALS = "of ofNonZeroValue none unwrap unwrapOpt"
_OF_SETS = "contains equivalent intersects"
_OF_FORMATS = "named validate dns1123Label dns1123Subdomain dns1035Label qualifiedName dns1123LabelPrefix labelValue"
_OF_FORMATS += " dns1123SubdomainPrefix dns1035LabelPrefix uri uuid byte date datetime"
_OF_ADDRESSES = "isCanonical isGlobalUnicast isLinkLocalMulticast isLinkLocalUnicast"
_OF_VERSIONS = "semver isSemver major minor patch"
_OF_VALUES = f"{_OF_TEXT} {_OF_LISTS} {_OF_NUMBERS} {_OF_OPTIONALS} {_OF_SETS}"
UNTYPED = frozenset(f"{_OF_VALUES} {_OF_FORMATS} {_OF_ADDRESSES} {_OF_VERSIONS}".split())
"""Functions that some Kubernetes has besides those above."""
_SIGNATURE = re.compile(
    r"(?:(?P<of>[\w.]+(?:\(.*?\))?)\.)?(?P<name>[^.()]+|_\[\??_\]|_\?_:_)\((?P<args>.*)\) (?P<result>.+)"
)


def _read(text: str) -> Type:
    name, _, rest = text.partition("(")
    return Type(name, tuple(map(_read, _split(rest[:-1])))) if rest else Type(name)


def _split(text: str) -> list[str]:
    """At the commas that are not in brackets."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]


@cache
def overloads(authorizer: bool = False) -> dict[tuple[str, bool], list[tuple[tuple[Type, ...], Type]]]:
    """Of (function, whether it is a method): the types of its arguments (the receiver first), and of its result.
    ``authorizer``: with the functions of policies."""
    out: dict[tuple[str, bool], list[tuple[tuple[Type, ...], Type]]] = {}
    ours = [re.sub(r"\b[A-Z]\w+", rf"{AUTHORIZATION}\g<0>", text) for text in _AUTHORIZER] if authorizer else []
    for text in [*_OVERLOADS, *ours]:
        if (found := _SIGNATURE.fullmatch(text)) is None:
            raise ValueError(f"not a signature: {text}")
        receiver = [found["of"]] if found["of"] else []
        given = tuple(map(_read, receiver + _split(found["args"])))
        out.setdefault((found["name"], bool(receiver)), []).append((given, _read(found["result"])))
    return out


Bound = dict[str, Type]


def fits(wanted: Type, given: Type, bound: Bound) -> bool:
    """Whether a value may be where another type is wanted; ``bound`` gets what the letters in it stand for."""
    if len(wanted.name) == 1 and wanted.name.isupper():
        known = bound.get(wanted.name)
        if known is None or (loose(known) and not loose(given)) or (known == NULL and fits(given, NULL, bound)):
            bound[wanted.name] = given
            return True
        return fits(known, given, bound)
    if loose(wanted) or loose(given):
        return True
    if given == NULL and wanted != NULL:
        return wanted.fields is not None or wanted.name in _NULLABLE
    same = wanted.name == given.name and len(wanted.inner) == len(given.inner)
    return same and all(fits(w, g, bound) for w, g in zip(wanted.inner, given.inner, strict=True))


def loose(given: Type) -> bool:
    return given in (DYN, UNKNOWN)


def filled(made: Type, bound: Bound) -> Type:
    """A result with what the letters in it stand for; anything, where no argument has said."""
    if made.inner:
        return Type(made.name, tuple(filled(t, bound) for t in made.inner))
    return bound.get(made.name, DYN) if len(made.name) == 1 and made.name.isupper() else made
