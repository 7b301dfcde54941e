"""How long a proxy goes on when its pod ends."""

import asyncio

import pytest

from lateen.agent import ending, envoy
from lateen.agent.options import Options
from lateen.kit import http

STATISTICS = b"""\
listener.0.0.0.0_15006.downstream_cx_active: 3
listener.0.0.0.0_15006.worker_0.downstream_cx_active: 2
listener.0.0.0.0_15006.worker_1.downstream_cx_active: 1
listener.0.0.0.0_15021.downstream_cx_active: 7
listener.0.0.0.0_15090.downstream_cx_active: 7
listener.admin.downstream_cx_active: 1
listener.admin.main_thread.downstream_cx_active: 1
listener.0.0.0.0_15001.downstream_cx_active: 2
http.inbound_0.0.0.0_8080.downstream_cx_active: 9
"""


def test_connections_of_workers_probes_and_scrapes_do_not_keep_a_proxy():
    assert ending.connected(STATISTICS) == 5
    assert ending.connected(b"") == 0


def test_exit_on_zero_active_connections_is_read_as_istio_reads_it():
    assert ending.ending({}) == (False, 5)
    assert ending.ending({ending.EMPTY: "1", ending.MINIMUM: "2s"}) == (True, 2)
    assert ending.ending({ending.EMPTY: "False"}) == (False, 5)


@pytest.mark.parametrize(("name", "value"), [(ending.EMPTY, "yes"), (ending.MINIMUM, "5")])
def test_other_values_are_named_when_the_agent_starts(name, value):
    with pytest.raises(ValueError, match=f"the environment variable {name}: "):
        ending.ending({name: value})


NOBODY = b"listener.0.0.0.0_15006.downstream_cx_active: 0\n"


def drained(monkeypatch, env, answers):
    """What the agent does when its pod ends: what it asks Envoy, and how long it waits (in seconds), in this order."""
    done = []

    async def fetch(host, port, path, **_):
        assert (host, port) == ("127.0.0.1", 15000)
        done.append(path.partition("?")[0])
        return http.Response(200, b"OK" if path.startswith("/drain_listeners") else answers.pop(0))

    async def sleep(seconds):
        done.append(seconds)

    monkeypatch.setattr(http, "fetch", fetch)
    monkeypatch.setattr(envoy.asyncio, "sleep", sleep)
    given = Options(env=env)
    running = envoy.Envoy(given, None, None, None, None, None)
    asyncio.run(running.drain())
    return done


def test_it_goes_on_until_the_last_connection_is_closed(monkeypatch):
    env = {ending.EMPTY: "true", ending.MINIMUM: "3s"}
    asked = ["/stats", ending.PAUSE_S, "/stats", ending.PAUSE_S, "/stats"]
    answers = [STATISTICS, STATISTICS, NOBODY, NOBODY]
    assert drained(monkeypatch, env, answers) == ["/drain_listeners", 3.0, *asked]
    assert answers == [NOBODY], "nobody is connected: it asks no more"


@pytest.mark.parametrize(("env", "wait"), [({}, 5.0), ({"TERMINATION_DRAIN_DURATION_SECONDS": "7"}, 7.0)])
def test_otherwise_it_ends_after_a_time_whoever_is_connected(monkeypatch, env, wait):
    assert drained(monkeypatch, env, []) == ["/drain_listeners", wait]


def test_an_envoy_that_does_not_answer_has_no_connections(monkeypatch):
    async def fetch(*_, **__):
        raise OSError

    monkeypatch.setattr(http, "fetch", fetch)
    assert asyncio.run(ending.connections()) == 0
