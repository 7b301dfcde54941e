"""Conversations in the incremental xDS protocol."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.ads.session import MAX_NAME, MAX_NAMES, Request, Session, TooMany
from lateen.ads.sotw import SotwSession
from lateen.wire import names
from lateen.wire.resource import EMPTY, Resource, ResourceSet


def sets(**versions):
    return ResourceSet(
        {n: Resource(n, v, f"{n}={v}".encode(), (f"VirtualService default/{n}",)) for n, v in versions.items()}
    )


def sent(responses):
    return [(names.SHORT[r.type_url], {x.name: x.version for x in r.resources}, r.removed) for r in responses]


def ack(session, response, error=""):
    return session.receive(Request(response.type_url, response.nonce, error=error))


def connected(**clusters):
    session = Session()
    session.offer({names.CDS: (sets(**clusters),)})
    responses, _ = session.receive(Request(names.CDS))
    return session, responses


def test_a_wildcard_subscription_gets_everything_once():
    session, responses = connected(a="1", b="1")
    assert sent(responses) == [("CDS", {"a": "1", "b": "1"}, ())]
    assert ack(session, responses[0]) == ([], None)
    assert session.offer({names.CDS: (sets(a="1", b="1"),)}) == []


def test_only_what_changed_is_sent():
    session, responses = connected(a="1", b="1")
    ack(session, responses[0])
    assert sent(session.offer({names.CDS: (sets(a="1", b="2", c="1"),)})) == [("CDS", {"b": "2", "c": "1"}, ())]


def test_removed_resources_are_withdrawn_by_name():
    session, responses = connected(a="1", b="1")
    ack(session, responses[0])
    assert sent(session.offer({names.CDS: (sets(a="1"),)})) == [("CDS", {}, ("b",))]


def test_changes_while_a_response_is_in_flight_are_merged_into_the_next_one():
    session, responses = connected(a="1")
    assert session.offer({names.CDS: (sets(a="2"),)}) == []
    assert session.offer({names.CDS: (sets(a="3"),)}) == []
    after, _ = ack(session, responses[0])
    assert sent(after) == [("CDS", {"a": "3"}, ())]


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


def test_a_resource_subscribed_to_before_it_exists_is_sent_once_it_does():
    session = Session()
    session.offer({names.EDS: (EMPTY,)})
    first, _ = session.receive(Request(names.EDS, subscribe=("x",)))
    ack(session, first[0])
    assert sent(session.offer({names.EDS: (sets(x="1"),)})) == [("EDS", {"x": "1"}, ())]


def test_endpoints_follow_a_changed_cluster_even_if_unchanged():
    session, responses = connected(a="1")
    ack(session, responses[0])
    session.offer({names.CDS: (sets(a="1"),), names.EDS: (sets(a="e"),)})
    eds, _ = session.receive(Request(names.EDS, subscribe=("a",)))
    ack(session, eds[0])
    both = session.offer({names.CDS: (sets(a="2"),), names.EDS: (sets(a="e"),)})
    assert sent(both) == [("CDS", {"a": "2"}, ()), ("EDS", {"a": "e"}, ())]


def test_routes_wait_until_new_clusters_are_acknowledged():
    session, responses = connected(a="1")
    ack(session, responses[0])
    session.offer({names.CDS: (sets(a="1"),), names.RDS: (sets(r="1"),)})
    rds, _ = session.receive(Request(names.RDS, subscribe=("r",)))
    ack(session, rds[0])
    first = session.offer({names.CDS: (sets(a="1", b="1"),), names.RDS: (sets(r="2"),)})
    assert [names.SHORT[r.type_url] for r in first] == ["CDS"]
    after, _ = ack(session, first[0])
    assert sent(after) == [("RDS", {"r": "2"}, ())]


def test_a_stale_nonce_is_ignored():
    session, responses = connected(a="1")
    ack(session, responses[0])
    assert session.receive(Request(names.CDS, nonce="1")) == ([], None)


def test_a_reconnecting_proxy_gets_only_what_it_lacks():
    session = Session()
    session.offer({names.CDS: (sets(a="1", b="2"),)})
    responses, _ = session.receive(Request(names.CDS, initial={"a": "1", "b": "1", "gone": "1"}))
    assert sent(responses) == [("CDS", {"b": "2"}, ())]
    after, _ = ack(session, responses[0])
    assert sent(after) == [("CDS", {}, ("gone",))]


def test_virtual_hosts_come_with_the_route_configuration_that_asks_for_them():
    session = Session()
    session.offer({names.RDS: (sets(**{"80": "1"}),), names.VHDS: (sets(**{"80/a": "1", "81/b": "1"}),)})
    routes, _ = session.receive(Request(names.RDS, subscribe=("80",)))
    hosts, _ = session.receive(Request(names.VHDS))
    assert sent(routes + hosts) == [("RDS", {"80": "1"}, ()), ("VHDS", {"80/a": "1"}, ())]
    ack(session, routes[0])
    ack(session, hosts[0])
    one = session.offer({names.RDS: (sets(**{"80": "1"}),), names.VHDS: (sets(**{"80/a": "2", "81/b": "1"}),)})
    assert sent(one) == [("VHDS", {"80/a": "2"}, ())]
    ack(session, one[0])
    gone = session.offer({names.RDS: (sets(**{"80": "1"}),), names.VHDS: (sets(**{"81/b": "1"}),)})
    assert sent(gone) == [("VHDS", {}, ("80/a",))]
    ack(session, gone[0])
    again, _ = session.receive(Request(names.RDS, subscribe=("81",)))
    assert ("VHDS", {"81/b": "1"}, ()) in sent(again)


VERSIONS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("12"), max_size=4)


@settings(max_examples=80, deadline=None)
@given(st.lists(VERSIONS, min_size=1, max_size=8))
def test_whatever_was_offered_the_proxy_ends_with_the_last(offers):
    session, has, pending = Session(), {}, []
    session.offer({names.CDS: (sets(**offers[0]),)})
    pending += session.receive(Request(names.CDS))[0]
    for offer in [*offers, offers[-1]]:
        pending += session.offer({names.CDS: (sets(**offer),)})
        while pending:
            response = pending.pop(0)
            has |= {r.name: r.version for r in response.resources}
            for name in response.removed:
                has.pop(name, None)
            pending += ack(session, response)[0]
    assert has == offers[-1]


def test_a_cluster_is_removed_after_the_routes_that_referred_to_it():
    session, responses = connected(a="1", b="1")
    ack(session, responses[0])
    both = {names.CDS: (sets(a="1", b="1"),), names.RDS: (sets(r="to-b"),)}
    session.offer(both)
    (routes,), _ = session.receive(Request(names.RDS, subscribe=("r",)))
    ack(session, routes)
    out = session.offer({names.CDS: (sets(a="1"),), names.RDS: (sets(r="to-a"),)})
    assert sent(out) == [("RDS", {"r": "to-a"}, ())]
    after, _ = ack(session, out[0])
    assert sent(after) == [("CDS", {}, ("b",))]
    assert ack(session, after[0]) == ([], None)


def test_a_cluster_that_returns_before_its_removal_stays():
    session, responses = connected(a="1", b="1")
    ack(session, responses[0])
    session.offer({names.CDS: (sets(a="1", b="1"),), names.RDS: (sets(r="1"),)})
    (routes,), _ = session.receive(Request(names.RDS, subscribe=("r",)))
    assert session.offer({names.CDS: (sets(a="1"),), names.RDS: (sets(r="1"),)}) == []
    assert session.offer({names.CDS: (sets(a="1", b="1"),), names.RDS: (sets(r="1"),)}) == []
    assert ack(session, routes) == ([], None)


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


# --- gRPC without a proxy: the state of the world ----------------------------------------------------------------


def test_a_client_that_does_not_answer_is_sent_nothing_more():
    session = SotwSession()
    session.offer({names.EDS: (sets(a="1"),)})
    (first,) = session.receive(names.EDS, (), "")
    assert session.offer({names.EDS: (sets(a="2"),)}) == []
    assert session.offer({names.EDS: (sets(a="3"),)}) == []
    (newest,) = session.receive(names.EDS, (), first.nonce)
    assert [r.version for r in newest.resources] == ["3"]


def test_names_that_a_client_asks_for_are_bounded():
    session = SotwSession()
    with pytest.raises(TooMany):
        session.receive(names.EDS, tuple(map(str, range(MAX_NAMES + 1))), "")
    with pytest.raises(TooMany):
        session.receive(names.EDS, ("x" * (MAX_NAME + 1),), "")
