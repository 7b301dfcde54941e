"""Conversations in the incremental xDS protocol."""

import pytest
from conversing import ack, connected, sent, sets
from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.ads.conversation import Request
from lateen.ads.session import MAX_NAME, MAX_NAMES, Session, TooMany
from lateen.ads.sotw import SotwSession
from lateen.ads.subscription import Subscription
from lateen.wire import names
from lateen.wire.resource import EMPTY, Offer, Part, Resource, ResourceSet


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


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["called", "served"]), st.sampled_from(names.ORDER), st.integers(0, 2)),
        st.tuples(st.sampled_from(["taken", "rejected"]), st.integers(0, 3)),
        st.tuples(st.just("subscribe"), st.sampled_from(names.ORDER)),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_an_offer_in_parts_says_the_same_as_everything_at_once(steps):
    """What is known not to have changed is not looked at, and nothing is missed by that."""
    versions = {which: [sets(**{f"{which}/{n}": str(v) for n in "ab"}) for v in range(3)] for which in "cs"}
    parts = {which: Part(dict.fromkeys(names.ORDER, (EMPTY,))) for which in ("called", "served")}
    sessions = {"in parts": Session(), "at once": Session()}
    flying: list = []
    for what, *about in steps:
        if what in parts:
            type_url, version = about
            parts[what] = Part({**parts[what], type_url: (versions[what[0]][version],)})
            offer = Offer(**parts)
            both = [sessions["in parts"].offer(offer), sessions["at once"].offer(dict(offer))]
        elif what == "subscribe":
            asked = () if about[0] in (names.CDS, names.LDS) else ("c/a", "c/b", "s/a", "c")
            both = [s.receive(Request(about[0], subscribe=asked))[0] for s in sessions.values()]
        else:
            if not flying:
                continue
            one = flying.pop(about[0] % len(flying))
            both = [ack(s, one, "no" if what == "rejected" else "")[0] for s in sessions.values()]
        assert both[0] == both[1] or [(*r[:2], r.content.names, r.removed) for r in both[0]] == [
            (*r[:2], r.content.names, r.removed) for r in both[1]
        ]
        flying += both[0]
    assert dict(sessions["in parts"].sets()) == dict(sessions["at once"].sets())


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


def test_a_reconnecting_proxy_gets_the_endpoints_of_clusters_that_have_changed_though_it_has_them():
    """Envoy warms such a cluster until endpoints arrive, and acknowledges no cluster before."""
    session = Session()
    session.offer({names.CDS: (sets(a="2", b="1"),), names.EDS: (sets(a="1", b="1"),)})
    clusters, _ = session.receive(Request(names.CDS, initial={"a": "1", "b": "1"}))
    endpoints, _ = session.receive(Request(names.EDS, subscribe=("a", "b"), initial={"a": "1", "b": "1"}))
    assert sent(clusters) == [("CDS", {"a": "2"}, ())]
    assert sent(endpoints) == [("EDS", {"a": "1"}, ())]
    ack(session, endpoints[0])
    ack(session, clusters[0])
    assert (session.synced(names.CDS), session.synced(names.EDS)) == ("SYNCED", "SYNCED")
    assert session.offer({names.CDS: (sets(a="2", b="1"),), names.EDS: (sets(a="1", b="1"),)}) == []


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


def test_what_two_parts_have_is_sent_once():
    """Envoy refuses a message with a resource that comes twice."""
    host = Resource("x", "1", b"x=1", ())
    parts = tuple(ResourceSet({n: Resource(n, "1", n.encode(), ()), "x": host}) for n in ("a", "b"))
    session = Session()
    session.offer({names.CDS: (ResourceSet.union(parts),)})
    responses, _ = session.receive(Request(names.CDS))
    assert sorted(r.name for r in responses[0].resources) == ["a", "b", "x"]


def test_proxies_in_step_are_told_the_same_which_is_made_once():
    first, second = (Session() for _ in range(2))
    before, after = (sets(a="1", b="1"),), (sets(a="1", b="2"),)
    for content in (before, after):
        told = []
        for session in (first, second):
            responses = session.offer({names.CDS: content})
            responses += session.receive(Request(names.CDS))[0] if content is before else []
            ack(session, responses[0])
            told.append(responses[0].content)
        assert told[0] is told[1]


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


def test_of_a_change_a_proxy_is_told_what_it_asked_for_and_stays_in_step():
    """Otherwise a gateway with few of many services would be compared with all of them for each change."""
    before, after, less = (sets(a="1", b="1", c="1"),), (sets(a="2", b="1", c="2", d="1"),), (sets(a="2", b="1"),)
    state = Subscription(names.EDS, names={"a", "b"}, offered=before, versions=None)
    told = state.common(after)
    assert told is not None
    assert [(r.name, r.version) for r in told.resources] == [("a", "2")]
    told = state.common(less)
    assert told is not None
    assert (told.resources, told.removed) == ((), ()), "it does not have what is gone"
    assert state.common((sets(a="2"),)) is None, "something of its own goes"


def test_unions_in_which_the_same_part_is_replaced_tell_the_same_content():
    def part(*versions):
        return ResourceSet({n: Resource(n, v, f"{n}{v}".encode()) for n, v in versions})

    old, new, others = part(("a", "1"), ("b", "1")), part(("a", "2"), ("b", "1")), [part(("c", "1")), part(("d", "1"))]
    found = [ResourceSet.union((o, new)).since(ResourceSet.union((o, old))) for o in others]
    assert found[0] is found[1]
    assert (found[0].changed, found[0].removed) == ({"a"}, frozenset())
    fewer = part(("a", "2"))
    moved = ResourceSet.union((fewer, part(("b", "1")))).since(ResourceSet.union((old, others[0])))
    assert moved.removed == {"c"}
