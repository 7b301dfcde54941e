"""Which statuses are written when: after changes, acknowledgements, restarts and takeovers. The API server, the proxies
and the clock are fakes; objects, mesh and sessions are real."""

import asyncio
import math

import pytest

from lateen.ads.conversation import Request
from lateen.ads.peers import Connection
from lateen.ads.server import AdsServer
from lateen.ads.session import Session
from lateen.api import kinds
from lateen.control.findings import Found
from lateen.control.leadership import DURATION_S, RENEW_S, TAKEOVER_S, Leadership
from lateen.control.patching import Patching
from lateen.control.status import QUIET_S, StatusWriter
from lateen.control.statuses import Statuses
from lateen.control.world import World
from lateen.kube.client import KubeError, Unreachable
from lateen.kube.informer import Informer
from lateen.mesh.model import Mesh
from lateen.wire import names
from lateen.wire.node import NodeId
from lateen.wire.resource import Resource, ResourceSet

RULE, ENTRY, GATEWAY = kinds.VIRTUAL_SERVICE, kinds.SERVICE_ENTRY, kinds.GATEWAY
ROUTES = {"hosts": ["cart"], "http": [{"route": [{"destination": {"host": "cart"}}]}]}


class Api:
    """Applies patches and reports them to informers; ``fails`` answers the next ones."""

    def __init__(self):
        self.informers, self.written, self.fails = {}, [], None

    async def patch_all(self, changes, subresource, still):
        assert subresource == "status"
        if self.fails:
            return [(c, self.fails) for c in changes]
        for c in changes:
            if not still():
                break
            self.written.append((c.kind.kind, c.name))
            self.set(c.kind, c.name, status=c.body["status"])
        return []

    def set(self, kind, name, **parts):
        informer = self.informers[kind]
        old = informer.objects.get(("shop", name)) or {
            "metadata": {"namespace": "shop", "name": name, "uid": f"{kind.kind}/{name}", "generation": 0}
        }
        new = {**old, **parts}
        if "spec" in parts:
            new["metadata"] = {**old["metadata"], "generation": old["metadata"]["generation"] + 1}
        informer._change(("shop", name), new)

    def remove(self, kind, name):
        self.informers[kind]._change(("shop", name), None)

    def status(self, kind, name):
        return self.informers[kind].objects[("shop", name)]["status"]

    def condition(self, kind, name, wanted):
        return next(c for c in self.status(kind, name)["conditions"] if c["type"] == wanted)


class Mine:
    """One istiod's writer."""

    def __init__(self, api=None):
        self.api = api or Api()
        self.world = World("istio-system", lambda: None)
        self.ads = AdsServer(None, None, None, None)
        self.mesh = Mesh(self.world.objects)
        self.offered = self.world.objects
        self.statuses = Statuses(self.world, self.ads, Patching(), lambda: self.mesh, lambda: self.offered)
        self.writer = StatusWriter(self.api, self.world, self.statuses, "istio-system", "istiod-1", dict)
        for kind in kinds.watched():
            known = self.api.informers.get(kind)
            informer = Informer(self.api, kind, self._changed)
            for key, obj in (known.objects if known else {}).items():
                informer._change(key, obj)
            self.api.informers[kind] = informer
            self.statuses.informers.append(informer)
        self.writer.leadership.until = math.inf
        self.writer._gained()

    def _changed(self, kind, key, old, new):
        self.world.changed(kind, key, old, new)
        self.writer.changed(kind, key, old, new)

    def pushed(self):
        self.offered = self.world.objects
        self.mesh.advance(self.world.objects)
        self.writer.pushed()

    def write(self):
        """The objects whose status a pass has written."""
        self.api.written = []
        asyncio.run(self.writer.write())
        return sorted(self.api.written)


def made(*rules):
    """With VirtualServices that are pushed, analyzed and written."""
    mine = Mine()
    for name in rules:
        mine.api.set(RULE, name, spec=ROUTES)
    mine.writer.analyzed({})
    mine.pushed()
    assert mine.write() == [("VirtualService", name) for name in rules]
    return mine


def proxy(*rules, acknowledged=False):
    """A connected proxy whose listener is made from some objects."""
    made_from = Resource("l", "1", b"l", tuple(rules))
    session = Session()
    session.offer({names.LDS: (ResourceSet({made_from.name: made_from}),)})
    (response,) = session.receive(Request(names.LDS))[0]
    if acknowledged:
        session.receive(Request(names.LDS, response.nonce))
    node = NodeId("sidecar", "10.0.0.1", "a", "shop", "shop.svc.cluster.local")
    return Connection(node, "", "", session=session), response


def test_after_everything_is_written_nothing_is_written_again():
    mine = made("a", "b")
    assert mine.write() == []
    mine.pushed()
    assert mine.write() == []


def test_a_route_about_which_proxies_have_no_say_has_its_status_before_the_push():
    mine = made()
    parent = {"group": "", "kind": "Service", "name": "nowhere"}
    mine.api.set(kinds.HTTP_ROUTE, "r", spec={"parentRefs": [parent], "rules": [{}]})
    assert mine.write() == []  # the mesh has not taken it
    mine.mesh.advance(mine.world.objects)
    assert mine.write() == [("HTTPRoute", "r")]
    (at,) = mine.api.status(kinds.HTTP_ROUTE, "r")["parents"]
    assert {c["observedGeneration"] for c in at["conditions"]} == {1}


def test_a_changed_object_has_its_own_status_written_and_no_other():
    mine = made("a", "b", "c")
    mine.api.set(RULE, "b", spec={**ROUTES, "hosts": ["other"]})
    assert mine.write() == []  # proxies have not been offered it
    mine.pushed()
    assert mine.write() == [("VirtualService", "b")]
    assert mine.api.status(RULE, "b")["observedGeneration"] == 2


def test_a_finding_that_comes_and_goes_is_written_to_its_object_alone():
    mine = made("a", "b")
    finding = Found("IST0101", "ReferencedResourceNotFound", "Error", "no such host")
    mine.writer.analyzed({"VirtualService shop/a": [finding]})
    assert mine.write() == [("VirtualService", "a")]
    assert mine.api.condition(RULE, "a", "Analyzed")["reason"] == "Errors"
    assert [m["message"] for m in mine.api.status(RULE, "a")["validationMessages"]] == ["no such host"]
    mine.writer.analyzed({"VirtualService shop/a": []})
    assert mine.write() == [("VirtualService", "a")]
    assert mine.api.status(RULE, "a")["validationMessages"] == []


def test_proxies_that_come_and_go_write_nothing_to_objects_that_all_others_have():
    mine = made("a", "b")
    connection, _ = proxy("VirtualService shop/a", acknowledged=True)
    mine.ads.connections.add(connection)
    assert mine.write() == []
    late, _ = proxy("VirtualService shop/b")
    mine.ads.connections.add(late)
    assert mine.write() == []
    mine.ads.connections.clear()
    assert mine.write() == []


def test_an_object_is_reconciled_when_the_last_proxy_has_acknowledged_it():
    mine = made("a", "b")
    connection, response = proxy("VirtualService shop/a")
    mine.ads.connections.add(connection)
    mine.api.set(RULE, "a", spec={**ROUTES, "hosts": ["other"]})
    mine.pushed()
    assert mine.write() == [("VirtualService", "a")]
    assert mine.api.condition(RULE, "a", "Reconciled")["reason"] == "Pushing"
    assert mine.write() == []
    connection.session.receive(Request(names.LDS, response.nonce))
    assert mine.write() == [("VirtualService", "a")]
    assert mine.api.condition(RULE, "a", "Reconciled")["status"] == "True"


def test_a_proxy_that_refuses_an_object_later_has_it_written():
    mine = made("a", "b")
    connection, response = proxy("VirtualService shop/b")
    mine.ads.connections.add(connection)
    connection.session.receive(Request(names.LDS, response.nonce, error="l: bad cipher"))
    assert mine.write() == [("VirtualService", "b")]
    found = mine.api.condition(RULE, "b", "Reconciled")
    assert (found["status"], found["message"]) == ("False", "proxy a.shop refused it: l: bad cipher")
    mine.ads.connections.clear()
    assert mine.write() == [("VirtualService", "b")]


def test_a_gateway_is_told_that_it_is_served_when_its_proxy_connects_and_that_it_is_not_when_it_leaves():
    mine = Mine()
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    mine.api.set(GATEWAY, "door", spec={"selector": {"istio": "gw"}, "servers": [server]})
    mine.writer.analyzed({})
    mine.pushed()
    assert mine.write() == [("Gateway", "door")]
    assert mine.api.condition(GATEWAY, "door", "Reconciled")["reason"] == "NoProxy"
    connection, _ = proxy("Gateway shop/door", acknowledged=True)
    mine.ads.connections.add(connection)
    assert mine.write() == [("Gateway", "door")]
    assert mine.api.condition(GATEWAY, "door", "Reconciled")["reason"] == "UpToDate"
    mine.ads.connections.clear()
    assert mine.write() == [("Gateway", "door")]


def test_an_address_that_is_made_for_a_host_is_written_once_the_mesh_has_made_it():
    mine = made("a")
    ports = [{"number": 443, "name": "tls", "protocol": "TLS"}]
    mine.api.set(ENTRY, "api", spec={"hosts": ["api.test"], "ports": ports, "resolution": "DNS"})
    mine.pushed()
    assert mine.write() == [("ServiceEntry", "api")]
    found = [(a["host"], a["value"].split(":")[0].split(".")[0]) for a in mine.api.status(ENTRY, "api")["addresses"]]
    assert found == [("api.test", "240"), ("api.test", "2001")]
    assert mine.write() == []


def test_a_status_that_somebody_else_has_overwritten_is_repaired():
    mine = made("a", "b")
    mine.api.set(RULE, "a", status={})
    assert mine.write() == [("VirtualService", "a")]
    assert mine.api.condition(RULE, "a", "Accepted")["status"] == "True"


def test_an_object_that_is_deleted_before_its_status_is_written_is_forgotten():
    mine = made("a")
    mine.api.set(RULE, "b", spec=ROUTES)
    mine.pushed()
    mine.api.remove(RULE, "b")
    mine.pushed()
    assert mine.write() == []


@pytest.mark.parametrize("error", [Unreachable("away"), KubeError(500, "InternalError", "a bad moment")])
def test_a_status_that_could_not_be_written_is_tried_again(error):
    mine = made("a", "b")
    mine.api.set(RULE, "a", spec={**ROUTES, "hosts": ["other"]})
    mine.pushed()
    mine.api.fails = error
    assert mine.write() == []
    mine.api.fails = None
    assert mine.write() == [("VirtualService", "a")]


def test_a_status_of_an_object_that_is_gone_is_not_tried_again():
    mine = made("a")
    mine.api.set(RULE, "a", spec={**ROUTES, "hosts": ["other"]})
    mine.pushed()
    mine.api.fails = KubeError(404, "NotFound", "gone")
    assert mine.write() == []
    mine.api.fails = None
    assert mine.write() == []


def test_whoever_takes_over_writes_what_is_missing_and_leaves_the_findings_until_it_has_its_own():
    before = made("a", "b")
    finding = Found("IST0101", "ReferencedResourceNotFound", "Error", "no such host")
    before.writer.analyzed({"VirtualService shop/a": [finding]})
    assert before.write() == [("VirtualService", "a")]
    before.api.set(RULE, "b", spec={**ROUTES, "hosts": ["other"]})  # and dies
    after = Mine(before.api)
    after.pushed()
    assert after.write() == [("VirtualService", "b")]
    assert after.api.condition(RULE, "a", "Analyzed")["reason"] == "Errors"
    after.writer.analyzed({})
    assert after.write() == [("VirtualService", "a"), ("VirtualService", "b")]
    assert after.api.condition(RULE, "a", "Analyzed")["reason"] == "NoFindings"


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Leases:
    """The API server's side of one lease."""

    def __init__(self):
        self.lease = None

    async def get(self, _kind, _namespace, _name):
        return self.lease

    async def create(self, _kind, lease):
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": "1"}}

    async def update(self, _kind, lease):
        if lease["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise KubeError(409, "Conflict", "it was changed")
        version = str(int(lease["metadata"]["resourceVersion"]) + 1)
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": version}}


@pytest.mark.parametrize(("pod_is_gone", "limit"), [(True, RENEW_S), (False, TAKEOVER_S)])
@pytest.mark.parametrize("shift", [0.0, 0.3, 0.9])
def test_another_istiod_has_the_lease_within_five_seconds_of_its_writers_death(pod_is_gone, limit, shift):
    clock, leases, living = Clock(), Leases(), {"a", "b"}
    a, b = (Leadership(leases, "istio-system", m, living.__contains__, clock=clock) for m in ("a", "b"))

    async def main():
        assert await a._held()
        for _ in range(3):
            clock.now += shift
            assert not await b._held()
            clock.now += RENEW_S - shift
            assert await a._held()
        if pod_is_gone:
            living.discard("a")
        died = clock.now
        clock.now += shift
        while not await b._held():
            clock.now += RENEW_S
        return clock.now - died

    assert asyncio.run(main()) <= limit + shift
    assert TAKEOVER_S + QUIET_S <= 5


def istiods(*names):
    clock, leases = Clock(), Leases()
    made = [Leadership(leases, "istio-system", m, set(names).__contains__, clock=clock) for m in names]
    gained = {}
    for name, one in zip(names, made, strict=True):
        gained[name] = []
        one.gained.append(lambda name=name: gained[name].append(clock.now))
    return clock, leases, made, gained


def test_an_istiod_that_was_stopped_does_not_write_before_it_has_looked_at_the_lease():
    """A frozen machine, kill -STOP and -CONT: in the meantime another one may have begun."""
    clock, _, (a, b), gained = istiods("a", "b")

    async def main():
        await a.renew()
        await b.renew()
        assert (a.held, b.held) == (True, False)
        clock.now += DURATION_S
        assert not a.held
        await b.renew()
        assert b.held
        await a.renew()
        assert (a.held, b.held, a.holder) == (False, True, "b")
        assert len(gained["a"]) == len(gained["b"]) == 1

    asyncio.run(main())


def test_an_istiod_whose_lease_ran_out_unnoticed_looks_at_everything_again():
    """What was due in the meantime has been left out."""
    clock, _, (a, _), gained = istiods("a", "b")

    async def main():
        await a.renew()
        clock.now += DURATION_S + 1
        await a.renew()
        assert a.held
        clock.now += RENEW_S
        await a.renew()
        assert len(gained["a"]) == 2

    asyncio.run(main())


def test_a_slow_answer_does_not_lengthen_the_lease():
    """Others count from the write, which was before the answer."""
    clock, leases, (a, b), _ = istiods("a", "b")
    update = leases.update

    async def slow(*args):
        await update(*args)
        clock.now += 2

    async def main():
        await a.renew()
        leases.update = slow
        await a.renew()
        leases.update = update
        await b.renew()
        clock.now += DURATION_S - 2
        assert not a.held

    asyncio.run(main())


def test_a_lease_that_somebody_has_deleted_stays_its_holders():
    clock, leases, (a, b), _ = istiods("a", "b")

    async def main():
        await a.renew()
        await b.renew()
        leases.lease = None
        await b.renew()
        assert (a.held, b.held) == (True, False)
        await a.renew()
        await b.renew()
        assert (a.held, b.held) == (True, False)
        leases.lease = None
        clock.now += DURATION_S
        await b.renew()
        assert b.held

    asyncio.run(main())


def test_conflicts_are_counted_while_they_last():
    mine = made("a", "b")
    shadowed = Found("LAT0101", "ShadowedRule", "Warning", "…")
    mine.writer.analyzed({"VirtualService shop/b": [shadowed, shadowed]})
    assert (mine.statuses.having("LAT0101"), mine.statuses.having("LAT0106")) == (1, 0)
    mine.writer.analyzed({"VirtualService shop/b": []})
    assert mine.statuses.having("LAT0101") == 0
