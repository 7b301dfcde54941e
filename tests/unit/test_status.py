"""An object's status: its conditions, who writes it, and the analysis process."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from lateen.api import kinds
from lateen.control import conditions
from lateen.control.analyst import Analyst
from lateen.control.findings import Found
from lateen.control.leadership import NAME, Leadership
from lateen.control.reach import Reach
from lateen.kube.client import KubeError, Unreachable


def test_a_proxy_that_connects_later_does_not_change_an_objects_status():
    everywhere = conditions.reconciled(kinds.VIRTUAL_SERVICE, Reach(3, 3), before=False)
    assert everywhere["status"] == "True"
    assert conditions.reconciled(kinds.VIRTUAL_SERVICE, Reach(4, 3), before=True) == everywhere
    assert conditions.reconciled(kinds.VIRTUAL_SERVICE, Reach(4, 3), before=False)["status"] == "Unknown"
    assert conditions.reconciled(kinds.VIRTUAL_SERVICE, Reach(400, 400), before=True) == everywhere


def test_the_status_of_a_gateway_without_a_proxy_says_so():
    found = conditions.reconciled(kinds.GATEWAY, Reach(), before=True)
    assert (found["status"], found["reason"]) == ("Unknown", "NoProxy")
    assert "no connected proxy serves this Gateway" in found["message"]


def test_a_proxy_that_rejects_an_object_is_named_with_its_message():
    found = conditions.reconciled(kinds.GATEWAY, Reach(2, 1, (("gw-1.istio-system", "bad cipher"),)), before=True)
    assert (found["status"], found["message"]) == ("False", "proxy gw-1.istio-system refused it: bad cipher")


def test_a_condition_keeps_the_time_of_its_last_transition():
    old = [{"type": "Reconciled", "status": "True", "lastTransitionTime": "then"}]
    new = [{"type": "Reconciled", "status": "True"}, {"type": "Accepted", "status": "True"}]
    assert [c["lastTransitionTime"] for c in conditions.merged(old, new, "now")] == ["then", "now"]


def obj(kind, name, spec, version="networking.istio.io/v1"):
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec}


RULE = obj("VirtualService", "cart", {"hosts": ["cart"], "http": [{"route": [{"destination": {"host": "cart"}}]}]})
CART = obj("Service", "cart", {"ports": [{"port": 80, "name": "http"}]}, "v1")


def test_the_analysis_process_reports_findings_that_have_changed():
    async def main():
        analyst = Analyst("istio-system", lambda: [RULE], list)
        first = await analyst.ask()
        analyst.changed(CART, gone=False)
        second = await analyst.ask()
        third = await analyst.ask()
        analyst.close()
        return first, second, third

    first, second, third = asyncio.run(main())
    text = 'Referenced host not found: "cart"'
    assert first == {
        "VirtualService shop/cart": [Found("IST0101", "ReferencedResourceNotFound", "Error", text)],
    }
    assert second == {"VirtualService shop/cart": []}
    assert third == {}


def test_an_analysis_process_that_dies_is_restarted_with_all_objects():
    async def main():
        analyst = Analyst("istio-system", lambda: [RULE, CART], list)
        assert await analyst.ask() == {}
        os.kill(analyst._child.pid, signal.SIGKILL)
        while not analyst._reader.at_eof():
            await asyncio.sleep(0.01)
        analyst.changed(CART, gone=True)
        try:
            return await analyst.ask()
        finally:
            analyst.close()

    assert asyncio.run(main()) == {}  # the Service is there again by what everything says


FORKED = """
import asyncio, sys
from lateen.control.findings import fork
child = fork()
from lateen.api.validate.findings import no
from lateen.control.analyst import Analyst
rule = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "spec": {"hosts": ["cart"]},
        "metadata": {"name": "cart", "namespace": "shop"}}

async def main():
    analyst = Analyst("istio-system", lambda: [rule], list, lambda _: [no("spec.hosts", "by istiod")], child)
    print(analyst._waiting is child, *[f"{f.code} {f.text}" for f in (await analyst.ask())["VirtualService shop/cart"]])
    print(analyst._child is child)
    analyst.close()

asyncio.run(main())
"""


def test_the_forked_analysis_process_is_used_first_and_repeats_no_validation():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["True IST0106 Schema validation error: spec.hosts: by istiod", "True"]


class Leases:
    """The API server's side of one lease; refuses an update of an old version."""

    def __init__(self):
        self.lease, self.fails = None, None

    async def get(self, kind, _namespace, name):
        if self.fails:
            raise self.fails
        assert (kind, name) == (kinds.LEASE, NAME)
        return self.lease

    async def create(self, _kind, lease):
        if self.lease:
            raise KubeError(409, "AlreadyExists", "it is there")
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": "1"}}

    async def update(self, _kind, lease):
        version = self.lease["metadata"]["resourceVersion"]
        if lease["metadata"].get("resourceVersion") != version:
            raise KubeError(409, "Conflict", "it was changed")
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(int(version) + 1)}}

    async def patch(self, _kind, _namespace, _name, change):
        self.lease["spec"] |= change["spec"]


def member(leases, name, living):
    return Leadership(leases, "istio-system", name, living.__contains__)


def test_one_of_two_istiods_writes_statuses_and_the_other_takes_over():
    async def main():
        leases, living = Leases(), {"a", "b"}
        a, b = member(leases, "a", living), member(leases, "b", living)
        assert await a._held()
        assert not await b._held()
        assert await a._held()
        living.discard("a")
        assert await b._held()
        assert not await a._held()

    asyncio.run(main())


def test_an_istiod_that_stops_releases_the_lease():
    async def main():
        leases, living = Leases(), {"a", "b"}
        a, b = member(leases, "a", living), member(leases, "b", living)
        assert await a._held()
        assert not await b._held()
        await a.release()
        assert await b._held()

    asyncio.run(main())


@pytest.mark.parametrize(("error", "held"), [(KubeError(403, "Forbidden", "no"), True), (Unreachable("away"), False)])
def test_statuses_are_written_even_if_leases_are_forbidden(error, held):
    async def main():
        leases = Leases()
        leases.fails = error
        return await member(leases, "a", {"a"})._held()

    assert asyncio.run(main()) is held
