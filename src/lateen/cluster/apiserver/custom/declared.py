"""Rules when a definition is written: what can hold for no object, and what has no effect here.

After k8s.io/apiextensions-apiserver, ValidateCustomResourceDefinitionOpenAPISchema and schema/cel/compilation.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from lateen.cluster.apiserver.custom import checking, costs, programs, rules, sizes, typed, types
from lateen.cluster.apiserver.errors import Cause
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, required, unsupported
from lateen.kit.jsons import Json


class Declared(NamedTuple):
    """A rule, and where it is. ``about``: the schema of the values that it judges. ``adrift``: the path of the list
    around it whose items have no identity, so no old values; "" if there is none. ``times``: how many such values an
    object has at most; None where nothing limits that but the size of requests."""

    at: str
    rule: Json
    about: Json
    adrift: str
    times: int | None


def declared(schema: Json, path: str, adrift: str = "", times: int | None = 1) -> Iterator[Declared]:
    """Every rule of a schema."""
    for i, rule in enumerate(schema.get(rules.RULES) or []):
        yield Declared(f"{path}.{rules.RULES}[{i}]", rule, schema, adrift, times)
    most = sizes.contained(schema)
    times = None if times is None or most is None else times * most
    for key, child in (schema.get("properties") or {}).items():
        if isinstance(child, dict):
            yield from declared(child, f"{path}.properties[{key}]", adrift, times)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            lost = path if key == "items" and schema.get("x-kubernetes-list-type") != "map" else ""
            yield from declared(schema[key], f"{path}.{key}", adrift or lost, times)


_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_UNTYPED = (
    "Internal error: internal error: failed to construct type information for x-kubernetes-validations rules: unable "
    "to convert structural schema to CEL declarations"
)


def mistakes(schema: Json, path: str, known: bool = False) -> Causes:
    """Rules that cannot be evaluated for any object, or cost too much. ``schema``: of whole objects; ``known``: it is
    in effect already, so that nobody loses it for its costs."""
    out: Causes = []
    spent = _Spent()
    about: Json | None = None
    own: types.Type | None = None
    for found in declared(schema, path):
        at, rule = found.at, found.rule
        if not str(rule.get("rule") or "").strip():
            out.append(required(f"{at}.rule", "rule is not specified"))
        if rule.get("reason") not in (None, *_REASONS):
            out.append(unsupported(f"{at}.reason", rule["reason"], _REASONS))
        out += _messages(rule, at)
        if (where := rule.get("fieldPath")) and not _leads(found.about, str(where)):
            out.append(bad(f"{at}.fieldPath", where, "fieldPath must be a valid path"))
        if found.about is not about:  # the rules of a schema follow each other
            about = found.about
            own = types.of_schema(about, "selfType", typed.escaped, root=about is schema)
        if own is not None:
            out += (wrong := _misfits(rule, at, own)) or _past(found)
            if not wrong and not known:
                spent.on(found, own, found.about is schema)
        elif at.endswith("[0]"):
            out.append(Cause(at.removesuffix("[0]"), _UNTYPED, "InternalError"))
    return out + spent.over + spent.total(path)


class _Spent:
    """What the rules of a schema cost, and those among them that cost too much."""

    def __init__(self) -> None:
        self.over: Causes = []
        self._costs: list[tuple[int, str]] = []
        self._sizes = sizes.Sizes(typed.escaped)

    def on(self, found: Declared, own: types.Type, root: bool) -> None:
        variables = {"self": own, "oldSelf": own}
        for key, called in (("rule", "estimated rule cost"), ("messageExpression", "estimated messageExpression cost")):
            if not (text := str(found.rule.get(key) or "").strip()):
                continue
            cost = costs.estimate(text, found.about, variables, self._sizes, root)
            if key == "rule":
                cost = min(
                    cost * (self._sizes.repeats(found.about) if found.times is None else found.times), costs.WORST
                )
            if cost > costs.RULE:
                self.over.append(denied(f"{found.at}.{key}", _exceeds(called, cost, costs.RULE)))
            self._costs.append((cost, f"{found.at}.{key}"))

    def total(self, path: str) -> Causes:
        cost = min(sum(cost for cost, _ in self._costs), costs.WORST)
        if cost <= costs.SCHEMA:
            return []
        most = sorted((c for c in self._costs if c[0] >= costs.SCHEMA // 100), key=lambda c: -c[0])[:_NAMED]
        called = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        return [*(denied(at, _CONTRIBUTES) for _, at in most), denied(path, _exceeds(called, cost, costs.SCHEMA))]


_NAMED = 4
_CONTRIBUTES = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"


def _exceeds(called: str, cost: int, limit: int) -> str:
    factor = cost / limit
    shown = "more than 100x" if factor > 100 else f"{factor:.6f}x" if factor < 1.5 else f"{factor:.1f}x"
    return (
        f"{called} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, "
        "and maxLength where arrays, maps, and strings are declared)"
    )


def _misfits(rule: Json, at: str, own: types.Type) -> Causes:
    """What is wrong with the expressions. ``own``: the type of the values that they are about."""
    old = types.Type("optional_type", (own,)) if rule.get("optionalOldSelf") else own
    out: Causes = []
    for key, wanted in (("rule", types.BOOL), ("messageExpression", types.STRING)):
        text = str(rule.get(key) or "")
        if text.strip() and (says := _misfit(text, {"self": own, "oldSelf": old}, wanted)):
            out.append(bad(f"{at}.{key}", text, says if key == "rule" else _OF_MESSAGES.get(says, f"{key} {says}")))
    return out


def _past(found: Declared) -> Causes:
    """Rules that compare, or not, with a value from before. Those that are not evaluated here are not judged."""
    text, optional = str(found.rule.get("rule") or ""), found.rule.get("optionalOldSelf")
    try:
        compares = text.strip() and "oldSelf" in programs.compiled(text).variables()
    except (programs.Unsupported, ValueError):
        return []
    if not compares and optional is not None:
        return [bad(f"{found.at}.optionalOldSelf", optional, "may not be set if oldSelf is not used in rule")]
    if compares and found.adrift:
        says = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {found.adrift}"
        return [bad(f"{found.at}.rule", text, says)]
    return []


_NOT_BOOL = "cel expression must evaluate to a bool"
_OF_MESSAGES = {_NOT_BOOL: "messageExpression must evaluate to a string"}


def _messages(rule: Json, at: str) -> Causes:
    message, made = str(rule.get("message") or ""), str(rule.get("messageExpression") or "")
    out: Causes = []
    if message and not message.strip():
        out.append(bad(f"{at}.message", message, "message must be non-empty if specified"))
    elif "\n" in message.strip():
        out.append(bad(f"{at}.message", message, "message must not contain line breaks"))
    if made and not made.strip():
        out.append(required(f"{at}.messageExpression", "messageExpression must be non-empty if specified"))
    return out


def _misfit(text: str, variables: dict[str, types.Type], wanted: types.Type) -> str:
    """Why an expression cannot have a value of the wanted type; "" if it can, or if that is not known."""
    made, wrong = checking.checked(text, variables)
    try:
        programs.compiled(text)
    except ValueError as e:
        return f"compilation failed: {wrong}" if wrong else str(e)
    except programs.Unsupported:
        pass  # which is a warning, not a mistake
    if wrong:
        return f"compilation failed: {wrong}"
    return "" if made in (wanted, types.UNKNOWN) else _NOT_BOOL


_STEP = re.compile(r"\.([^.\[\]]+)|\['((?:[^'\\]|\\.)*)'\]")


def _leads(schema: Json, path: str) -> bool:
    """Whether a rule's path, from the value that the rule is about, is one of fields that there are."""
    at = 0
    while at < len(path):
        if (step := _STEP.match(path, at)) is None:
            return False
        found = (schema.get("properties") or {}).get(step[1] or step[2], schema.get("additionalProperties"))
        if not isinstance(found, dict):
            return False
        schema, at = found, step.end()
    return True


def warnings(schema: Json, path: str) -> list[str]:
    """Rules that have no effect here."""
    out = []
    for at, rule, *_ in declared(schema, path):
        try:
            programs.compiled(str(rule.get("rule") or ""))
        except programs.Unsupported as e:
            out.append(f"{at}: this rule is not evaluated here, which lacks {e}: {rule['rule'][:120]}")
        except ValueError:
            pass
    return out
