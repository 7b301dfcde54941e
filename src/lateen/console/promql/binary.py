"""Operators between two values: arithmetic, comparison, sets, and which series belong together.

Source: "Vector matching" in https://prometheus.io/docs/prometheus/latest/querying/operators/ and ``VectorBinop`` in
promql/engine.go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lateen.console.promql.values import Key, Scalar, Value, Vector, failed, key, merged, refused, unnamed, without
from lateen.console.series.codec import Bools, Floats, Ints, Labels
from lateen.console.series.registry import NAME

ARITHMETIC: dict[str, Callable[[Floats, Floats], Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "atan2": np.arctan2,
}
COMPARISON: dict[str, Callable[[Floats, Floats], Bools]] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}
SETS = ("and", "or", "unless")


@dataclass(frozen=True)
class Matching:
    """``on``: only ``labels`` count, else all but them. ``many``: the side that may have several series for one of the
    other: left, right, or empty. ``include``: labels that the result takes from the one side."""

    boolean: bool = False
    on: bool = False
    labels: tuple[str, ...] = ()
    many: str = ""
    include: tuple[str, ...] = ()

    def signature(self, labels: Labels) -> Key:
        if self.on:
            return tuple((n, labels.get(n, "")) for n in self.labels)
        return key(without(labels, (*self.labels, NAME)))


def operate(op: str, left: Value, right: Value, matching: Matching) -> Value:
    """Raises QueryError."""
    if isinstance(left, str) or isinstance(right, str):
        raise refused("operators are not defined for strings")
    if op in SETS:
        if not isinstance(left, Vector) or not isinstance(right, Vector):
            raise refused(f'set operator "{op}" not allowed in binary scalar expression')
        return _sets(op, left, right, matching)
    if op not in ARITHMETIC and op not in COMPARISON:
        raise refused(f'the operator "{op}" is not supported')
    with np.errstate(all="ignore"):
        if isinstance(left, Vector) and isinstance(right, Vector):
            return _matched(op, left, right, matching)
        if isinstance(left, Vector):
            return _with_scalar(op, left, right, matching.boolean, False)
        if isinstance(right, Vector):
            return _with_scalar(op, right, left, matching.boolean, True)
        if op in ARITHMETIC:
            return ARITHMETIC[op](left, right)
        return COMPARISON[op](left, right).astype(np.float64)


def _with_scalar(op: str, vector: Vector, scalar: Scalar | Value, boolean: bool, swapped: bool) -> Vector:
    assert isinstance(scalar, np.ndarray)
    other = np.broadcast_to(scalar, vector.values.shape)
    pair = (other, vector.values) if swapped else (vector.values, other)
    if op in ARITHMETIC:
        return unnamed(Vector(vector.labels, ARITHMETIC[op](*pair), vector.there))
    true = COMPARISON[op](*pair)
    if boolean:
        return unnamed(Vector(vector.labels, true.astype(np.float64), vector.there))
    return Vector(vector.labels, vector.values, vector.there & true)


def _sets(op: str, left: Vector, right: Vector, matching: Matching) -> Vector:
    own = [matching.signature(labels) for labels in left.labels]
    theirs = [matching.signature(labels) for labels in right.labels]
    steps = left.there.shape[1]

    def present(keys: list[Key], there: Bools, asked: list[Key]) -> Bools:
        """For each asked signature: at which steps some series has it."""
        found: dict[Key, Bools] = {}
        for k, row in zip(keys, there, strict=True):
            found[k] = found[k] | row if k in found else row
        nothing = np.zeros(steps, np.bool_)
        return np.array([found.get(k, nothing) for k in asked], np.bool_).reshape(len(asked), steps)

    if op == "and":
        return Vector(left.labels, left.values, left.there & present(theirs, right.there, own))
    if op == "unless":
        return Vector(left.labels, left.values, left.there & ~present(theirs, right.there, own))
    added = right.there & ~present(own, left.there, theirs)
    values = np.concatenate([left.values, right.values])
    return merged(Vector([*left.labels, *right.labels], values, np.concatenate([left.there, added])))


def _unique(vector: Vector, keys: list[Key], side: str, compared: Bools) -> dict[Key, list[int]]:
    """Signature -> rows. Raises QueryError if two rows of it have a value at the same one of the steps that are
    ``compared``: those at which the other side has anything at all, as in Prometheus."""
    rows: dict[Key, list[int]] = {}
    for row, k in enumerate(keys):
        rows.setdefault(k, []).append(row)
    for k, several in rows.items():
        if len(several) > 1 and ((vector.there[several].sum(axis=0) > 1) & compared).any():
            group = ", ".join(f'{n}="{v}"' for n, v in k)
            raise failed(
                f"found duplicate series for the match group {{{group}}} on the {side} hand-side of the operation; "
                "many-to-many matching not allowed: matching labels must be unique on one side"
            )
    return rows


def _matched(op: str, left: Vector, right: Vector, matching: Matching) -> Vector:
    swapped = matching.many == "right"
    many, one = (right, left) if swapped else (left, right)
    many_keys = [matching.signature(labels) for labels in many.labels]
    one_keys = [matching.signature(labels) for labels in one.labels]
    ones = _unique(one, one_keys, "left" if swapped else "right", np.asarray(many.there.any(axis=0)))
    pairs = [(i, j) for i, k in enumerate(many_keys) for j in ones.get(k, ())]
    steps = left.there.shape[1]
    if not pairs:
        return Vector([], np.empty((0, steps)), np.empty((0, steps), np.bool_))
    index = np.array(pairs, np.int64)
    a, b = index[:, 0], index[:, 1]
    there = many.there[a] & one.there[b]
    operands = (one.values[b], many.values[a]) if swapped else (many.values[a], one.values[b])
    if op in ARITHMETIC:
        values = ARITHMETIC[op](*operands)
    else:
        true = COMPARISON[op](*operands)
        values = true.astype(np.float64) if matching.boolean else operands[0]
        there = there if matching.boolean else there & true
    nameless = op in ARITHMETIC or matching.boolean
    labels = [_result(many.labels[i], one.labels[j], matching, nameless) for i, j in pairs]
    if matching.many:
        return merged(
            Vector(labels, values, there), "multiple matches for labels: grouping labels must ensure unique matches"
        )
    _once(many_keys, many.there[a] & one.there[b], a)
    return merged(Vector(labels, values, there))


def _once(keys: list[Key], there: Bools, rows: Ints) -> None:
    """Without group_left and group_right each signature has one series a step. Raises QueryError."""
    seen: dict[Key, Bools] = {}
    for row, present in zip(rows.tolist(), there, strict=True):
        k = keys[row]
        if k in seen and (seen[k] & present).any():
            raise failed("multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)")
        seen[k] = seen[k] | present if k in seen else present


def _result(many: Labels, one: Labels, matching: Matching, nameless: bool) -> Labels:
    out = without(many, (NAME,)) if nameless else dict(many)
    if not matching.many:
        if matching.on:
            return {k: v for k, v in out.items() if k in matching.labels}
        return without(out, matching.labels)
    for name in matching.include:
        if one.get(name):
            out[name] = one[name]
        else:
            out.pop(name, None)
    return out
