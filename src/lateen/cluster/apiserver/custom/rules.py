"""CEL rules of custom resources (``x-kubernetes-validations``).

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules.
``declared`` finds what is wrong with rules when a definition is written. What the library does not have leaves a rule
without effect, and a warning names it.
"""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver.custom import programs, typed
from lateen.cluster.apiserver.custom.ratcheting import identity
from lateen.cluster.apiserver.errors import Cause
from lateen.cluster.apiserver.validation.fields import Causes, below, bounded
from lateen.kit import jsons
from lateen.kit.jsons import Json

RULES = "x-kubernetes-validations"
BUDGET = 500_000
"""Steps that the rules of one object may take, as far as the sizes of its lists and maps tell before: about 1.5 s."""


def check(schema: Json, new: Json, old: Json | None) -> Causes:
    """The rules' verdict on an object whose structure is valid; ``old``: the object that it replaces."""
    return bounded(_Walk().walk(schema, new, old, "", root=True))


_BLOCKING = ("NotSupported", "Required", "TooLong", "TooMany", "TypeInvalid")
_UNCHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)


def after(schema: Json, new: Json, old: Json | None, causes: Causes) -> Causes:
    """What is added to what the structure violates: the verdict of the rules, or that they were not asked."""
    if not _any(schema):
        return []
    if any(c.reason.removeprefix("FieldValue") in _BLOCKING for c in causes):
        return [Cause("<nil>", f'Invalid value: "null": {_UNCHECKED}')]
    return check(schema, new, old)


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
                    out += self.walk(inner, child, (before or {}).get(key), below(path, key))
        elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
            same = _by_keys(schema, before or [])
            for i, child in enumerate(value):
                out += self.walk(items, child, same.get(identity(schema, child)), f"{path}[{i}]")
        return out

    def _rules(self, schema: Json, rules: list[Json], value: Any, old: Any, path: str, root: bool) -> Causes:
        import cel

        own, was = typed.converted(schema, value, root), None if old is None else typed.converted(schema, old, root)
        most = programs.largest(value)
        out: Causes = []
        for rule in rules:
            text = str(rule.get("rule") or "")
            try:
                program = programs.compiled(text)
            except (programs.Unsupported, ValueError):
                continue  # a warning, or a definition from before this was refused
            compares = "oldSelf" in program.variables()
            optional = bool(rule.get("optionalOldSelf"))
            if (compares and was is None and not optional) or (
                not compares and old is not None and jsons.same(old, value)
            ):
                continue
            self._left -= most ** programs.depth(text)
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
        if program.execute(programs.context(variables)) is True:
            return []
    except programs.FAILURES as e:
        return [
            Cause(
                path or "<nil>",
                f'Invalid value: "{kind}": {programs.why(e)} evaluating rule: {says}',
                "FieldValueInvalid",
            )
        ]
    if expression := rule.get("messageExpression"):
        try:
            made = programs.compiled(expression).execute(programs.context(variables))
            says = made if isinstance(made, str) and made.strip() and "\n" not in made else says
        except (programs.Unsupported, *programs.FAILURES):
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


def _by_keys(schema: Json, items: list[Any]) -> dict[bytes, Any]:
    """The items of a list that can be told apart; none of other lists, whose items have no identity."""
    return {key: item for item in items if (key := identity(schema, item))}
