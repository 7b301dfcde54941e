"""Cases of validation: a reason in a user's words, an object, and what is said of it."""

import pytest

from lateen.api import kinds, validate


def said(kind, spec, name="x", **meta):
    """(errors, warnings) of an object of the namespace ``shop``, each "path: sentence"."""
    found = kinds.named(kind)
    obj = {
        "apiVersion": found.api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop", **meta},
        "spec": spec,
    }
    return [f"{p}: {s}" for p, s in validate.problems(obj)], [f"{p}: {s}" for p, s in validate.warnings(obj)]


def table(*rows):
    """Rows of (why, spec, what is said): ``None`` for nothing, "no …" for a refusal, "warn …" for a warning."""
    return pytest.mark.parametrize(("spec", "says"), [pytest.param(s, w, id=why) for why, s, w in rows])


def check(kind, spec, says, **meta):
    errors, warnings = said(kind, spec, **meta)
    if says is None:
        assert (errors, warnings) == ([], [])
        return
    how, _, words = says.partition(" ")
    found = {"no": errors, "warn": warnings}[how]
    assert any(words in text for text in found), (errors, warnings)
    if how == "warn":
        assert errors == []
