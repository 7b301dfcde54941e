"""label_replace and label_join: new labels out of others."""

from __future__ import annotations

import re
from functools import partial

from lateen.console.promql.parsing import compile_
from lateen.console.promql.values import QueryError, Vector, failed, merged
from lateen.console.series.codec import Labels

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_REFERENCE = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))")


def name(label: str, problem: str) -> str:
    """A label that the result is to have. Raises QueryError for what is no label's name."""
    if not _NAME.fullmatch(label):
        raise failed(f'{problem}: "{label}"')
    return label


def _with(labels: Labels, label: str, value: str) -> Labels:
    out = {k: v for k, v in labels.items() if k != label}
    return {**out, label: value} if value else out


def label_replace(vector: Vector, to: str, replacement: str, source: str, expression: str) -> Vector:
    """Raises QueryError."""
    try:
        compiled = compile_(expression)
    except QueryError:
        raise failed(f"invalid regular expression in label_replace(): {expression}") from None
    name(to, "invalid destination label name in label_replace()")
    out: list[Labels] = []
    for labels in vector.labels:
        found = compiled.fullmatch(labels.get(source, ""))
        if found is None:
            out.append(labels)
            continue
        groups: dict[str, str | None] = {
            "0": found.group(0),
            **{str(i + 1): g for i, g in enumerate(found.groups())},
            **found.groupdict(),
        }
        out.append(_with(labels, to, _REFERENCE.sub(partial(_referred, groups), replacement)))
    return merged(Vector(out, vector.values, vector.there))


def _referred(groups: dict[str, str | None], reference: re.Match[str]) -> str:
    return "$" if reference[1] else groups.get(reference[2] or reference[3]) or ""


def label_join(vector: Vector, to: str, separator: str, sources: tuple[str, ...]) -> Vector:
    """Raises QueryError."""
    name(to, "invalid destination label name in label_join()")
    out = [_with(labels, to, separator.join(labels.get(s, "") for s in sources)) for labels in vector.labels]
    return merged(Vector(out, vector.values, vector.there))
