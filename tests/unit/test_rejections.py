"""What a proxy rejects is not offered again, and keeps nothing else from it."""

import pytest
from conversing import ack, connected, sent, sets
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lateen.ads.conversation import Request
from lateen.ads.session import Session
from lateen.wire import names
from lateen.wire.resource import EMPTY


def test_a_rejection_is_recorded_with_its_objects_and_not_offered_again():
    session, responses = connected(a="1")
    ack(session, responses[0])
    bad = session.offer({names.CDS: (sets(a="2"),)})
    after, rejection = ack(session, bad[0], "a: bad value")
    assert after == []
    assert rejection.origins == ("VirtualService default/a",)
    assert session.synced(names.CDS) == "ERROR"
    assert session.offer({names.CDS: (sets(a="2"),)}) == []
    fixed = session.offer({names.CDS: (sets(a="3"),)})
    assert sent(fixed) == [("CDS", {"a": "3"}, ())]
    ack(session, fixed[0])
    assert session.synced(names.CDS) == "SYNCED"


def test_one_bad_resource_among_many_does_not_block_the_others():
    """Envoy refuses a response whole; in the end the proxy has everything but the culprit."""
    for says in ("{}: bad value", "bad value"):
        session, has = Session(), {}
        session.offer({names.CDS: (sets(**dict.fromkeys(("r1", "r2", "r3", "r4", "r5", "r6", "r7"), "1")),)})
        pending = session.receive(Request(names.CDS))[0]
        while pending:
            response = pending.pop(0)
            bad = [r.name for r in response.resources if r.name == "r3"]
            if not bad:
                has |= {r.name: r.version for r in response.resources}
            pending += ack(session, response, says.format(bad[0]) if bad else "")[0]
        assert has == dict.fromkeys(("r1", "r2", "r4", "r5", "r6", "r7"), "1")


def test_a_rejection_stands_while_the_proxy_takes_others_and_ends_with_its_resource():
    session, responses = connected(a="1")
    ack(session, responses[0])
    both = session.offer({names.CDS: (sets(a="1", good="1", bad="1"),)})
    half, _ = ack(session, both[0], "it cannot be read")  # names neither
    other, _ = ack(session, half[0], "it cannot be read")
    assert ack(session, other[0]) == ([], None)
    assert session.refusals(names.CDS) == {"bad": "it cannot be read"}
    assert session.synced(names.CDS) == "ERROR"
    session.offer({names.CDS: (sets(a="1", good="1"),)})
    assert (session.refusals(names.CDS), session.synced(names.CDS)) == ({}, "SYNCED")
    again = session.offer({names.CDS: (sets(a="1", good="1", bad="1"),)})
    assert sent(again) == [("CDS", {"bad": "1"}, ())]  # the same object, applied anew, is told about anew


def test_of_a_rejected_change_that_is_a_part_for_this_proxy_the_rest_is_offered_again():
    session = Session()
    session.offer({names.EDS: (sets(one="1", two="1", c="1"),)})
    (first,), _ = session.receive(Request(names.EDS, subscribe=("one", "two")))
    ack(session, first)
    (second,) = session.offer({names.EDS: (sets(one="2", two="2", c="2"),)})
    again, rejection = ack(session, second, "one is broken")
    assert rejection.resources == ("one",)
    assert sent(again) == [("EDS", {"two": "2"}, ())]
    ack(session, again[0])
    assert session.refusals(names.EDS) == {"one": "one is broken"}
    assert sent(session.offer({names.EDS: (sets(one="3", two="2", c="2"),)})) == [("EDS", {"one": "3"}, ())]


def test_what_is_withdrawn_in_a_rejected_response_is_withdrawn_again():
    """Envoy takes all of a response or nothing."""
    session = Session()
    session.offer({names.LDS: (sets(a="1", b="1"),)})
    responses, _ = session.receive(Request(names.LDS))
    ack(session, responses[0])
    both = session.offer({names.LDS: (sets(a="2"),)})
    assert sent(both) == [("LDS", {"a": "2"}, ("b",))]
    after, _ = ack(session, both[0], "a: bad value")
    assert sent(after) == [("LDS", {}, ("b",))]
    assert ack(session, after[0])[0] == []
    assert session.offer({names.LDS: (sets(a="2"),)}) == []


def extended(listener="1"):
    """A session whose proxy has a listener that names an extension."""
    session = Session()
    session.offer({names.ECDS: (sets(script="good"),), names.LDS: (sets(inbound=listener),)})
    (listeners,), _ = session.receive(Request(names.LDS))
    ack(session, listeners)
    (extensions,), _ = session.receive(Request(names.ECDS, subscribe=("script",)))
    ack(session, extensions)
    return session


def test_after_a_broken_script_the_proxy_gets_the_last_good_one_back():
    """Envoy rejects each listener that names an extension whose latest configuration it could not use."""
    session = extended()
    (broken,) = session.offer({names.ECDS: (sets(script="broken"),), names.LDS: (sets(inbound="1"),)})
    after, rejection = ack(session, broken, error="script load error")
    assert sent(after) == [("ECDS", {"script": "good"}, ())]
    assert ack(session, after[0]) == ([], None)
    assert session.rejections == {names.ECDS: rejection}, "it is still told"
    assert session.missing(names.ECDS)[1] == {"script"}
    (repaired,) = session.offer({names.ECDS: (sets(script="better"),), names.LDS: (sets(inbound="1"),)})
    assert sent([repaired]) == [("ECDS", {"script": "better"}, ())]
    assert ack(session, repaired) == ([], None)
    assert not session.rejections


def test_a_script_that_never_worked_is_taken_away():
    session = extended()
    session.offer({names.ECDS: (sets(script="good", other="broken"),), names.LDS: (sets(inbound="1"),)})
    (broken,), _ = session.receive(Request(names.ECDS, subscribe=("other",)))
    after, _ = ack(session, broken, error="script load error")
    assert sent(after) == [("ECDS", {}, ("other",))]


def test_a_listener_waits_until_a_broken_script_is_gone():
    session = extended()
    (broken,) = session.offer({names.ECDS: (sets(script="broken"),), names.LDS: (sets(inbound="2"),)})
    assert sent([broken]) == [("ECDS", {"script": "broken"}, ())]
    (mending,), _ = ack(session, broken, error="script load error")
    assert sent([mending]) == [("ECDS", {"script": "good"}, ())]
    after, _ = ack(session, mending)
    assert sent(after) == [("LDS", {"inbound": "2"}, ())]


def test_what_a_proxy_had_before_a_restart_of_istiod_is_not_taken_away_for_a_broken_version():
    session = Session()
    session.receive(Request(names.ECDS, subscribe=("script",), initial={"script": "good"}))
    (broken,) = session.offer({names.ECDS: (sets(script="broken"),)})
    after, _ = ack(session, broken, error="script load error")
    assert [r.removed for r in after] == [()]
    assert [r.resources for r in after] == [()]


CLUSTERS = st.dictionaries(st.sampled_from(["one", "two", "three", "bad"]), st.sampled_from("12"), max_size=4)

EVENTS = st.one_of(
    st.tuples(st.just("offer"), CLUSTERS, CLUSTERS),
    st.tuples(st.just("answer"), st.booleans()),
    st.tuples(st.just("subscribe"), st.sampled_from(["one", "two", "three"])),
    st.tuples(st.just("unsubscribe"), st.sampled_from(["one", "two", "three"])),
    st.tuples(st.just("reconnect")),
)


class Envoy:
    """Takes what it is sent, except for everything that comes with ``bad``; asks for endpoints by name."""

    def __init__(self):
        self.has = {names.CDS: {}, names.EDS: {}}
        self.wanted, self.sets = {"one"}, {names.CDS: (EMPTY,), names.EDS: (EMPTY,)}
        self.connect()

    def connect(self):
        self.session, self.pending = Session(), []
        self.session.offer(self.sets)
        self.pending += self.session.receive(Request(names.CDS, initial=dict(self.has[names.CDS])))[0]
        self.has[names.EDS] = {n: v for n, v in self.has[names.EDS].items() if n in self.wanted}
        first = Request(names.EDS, subscribe=tuple(sorted(self.wanted)), initial=dict(self.has[names.EDS]))
        self.pending += self.session.receive(first)[0]

    def answer(self, says="bad: no"):
        response = self.pending.pop(0)
        bad = any(r.name == "bad" for r in response.resources)
        has = self.has[response.type_url]
        if not bad:
            wanted = self.wanted if response.type_url == names.EDS else {r.name for r in response.resources}
            has.update({r.name: r.version for r in response.resources if r.name in wanted})
            for name in response.removed:
                has.pop(name, None)
        self.pending += ack(self.session, response, says if bad else "")[0]

    def ask(self, more=(), less=()):
        self.wanted = (self.wanted | set(more)) - set(less)
        for name in less:
            self.has[names.EDS].pop(name, None)
        request = Request(names.EDS, subscribe=tuple(more), unsubscribe=tuple(less))
        self.pending += self.session.receive(request)[0]


FOUR = {"one": "1", "two": "1", "three": "1", "bad": "1"}
REFUSED = [("answer", False), ("offer", FOUR, {}), ("answer", False), ("answer", False)]


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=14))
@example([*REFUSED, ("offer", {"bad": "2"}, {})])
@example([*REFUSED, ("offer", {}, {}), ("answer", False), ("answer", False), ("offer", {"two": "1"}, {})])
def test_whatever_happens_a_proxy_ends_with_what_it_wants_and_takes(events):
    envoy = Envoy()
    for event, *about in [*events, ("answers",)]:
        if event == "offer":
            envoy.sets = {names.CDS: (sets(**about[0]), sets(own="1")), names.EDS: (sets(**about[1]),)}
            envoy.pending += envoy.session.offer(envoy.sets)
        elif event == "answer" and envoy.pending:
            envoy.answer("bad: no" if about[0] else "no")
        elif event == "subscribe":
            envoy.ask(more=about)
        elif event == "unsubscribe":
            envoy.ask(less=about)
        elif event == "reconnect":
            envoy.connect()
    while envoy.pending:
        envoy.answer()
    clusters, endpoints = (
        {n: r.version for s in envoy.sets[t] for n, r in s.resources.items() if n != "bad"} for t in envoy.has
    )
    assert envoy.has[names.CDS] == clusters
    assert envoy.has[names.EDS] == {n: v for n, v in endpoints.items() if n in envoy.wanted}
    assert envoy.session.offer(dict(envoy.sets)) == []


@pytest.mark.parametrize("says", ["bad: no", "no"])
def test_what_goes_while_a_newer_version_of_it_is_rejected_is_withdrawn(says):
    envoy = Envoy()
    for offer in ({"one": "1", "two": "1"}, {"one": "2", "two": "1", "bad": "1"}):
        envoy.answer()
        envoy.sets = {names.CDS: (sets(**offer),), names.EDS: (EMPTY,)}
        envoy.pending += envoy.session.offer(envoy.sets)
    envoy.answer(says)
    envoy.sets = {names.CDS: (sets(two="1"),), names.EDS: (EMPTY,)}
    envoy.pending += envoy.session.offer(envoy.sets)
    while envoy.pending:
        envoy.answer()
    assert envoy.has[names.CDS] == {"two": "1"}
