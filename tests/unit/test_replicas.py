"""Commands that ask every istiod of a cluster with several."""

import asyncio

import pytest

from lateen.cli.mesh import ask_istiods
from lateen.cli.output import CliError
from lateen.kit import jsons
from lateen.kube.client import KubeError


class Istiods:
    """An API server with pods of istiod. ``answers``: by pod, what a debug request gives: JSON, or an error."""

    def __init__(self, answers, ready=()):
        self._answers, self._ready = answers, ready

    async def list(self, *_):
        status = {True: "True", False: "False"}
        return [
            {
                "metadata": {"name": name, "namespace": "istio-system"},
                "status": {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": status[name in self._ready]}],
                },
            }
            for name in self._answers
        ], ""

    async def execute(self, _namespace, pod, *_):
        answer = self._answers[pod]
        if isinstance(answer, Exception):
            raise answer
        return (b"", answer.encode()) if isinstance(answer, str) else (jsons.dumps(answer), b"")


def asked(client, **more):
    return asyncio.run(ask_istiods(client, "/debug/statusz", **more))


STARTING = "pilot-discovery: istiod does not answer"


@pytest.mark.parametrize("failure", [STARTING, KubeError(500, "InternalError", "its node is gone")])
def test_an_istiod_that_starts_is_named_and_the_others_are_shown(capsys, failure):
    assert asked(Istiods({"a": failure, "b": {"x": 1}, "c": {"x": 2}}, ready=("b", "c"))) == {
        "b": {"x": 1},
        "c": {"x": 2},
    }
    assert ("istiod (a) cannot be queried" if failure == STARTING else "its node is gone") in capsys.readouterr().err


def test_where_none_answers_it_is_an_error():
    with pytest.raises(CliError, match=r"istiod \(a\) cannot be queried"):
        asked(Istiods({"a": STARTING, "b": STARTING}))
    assert asked(Istiods({})) == {}


def test_one_that_is_ready_is_asked_first():
    assert asked(Istiods({"a": STARTING, "b": {"x": 1}}, ready=("b",)), limit=1) == {"b": {"x": 1}}
