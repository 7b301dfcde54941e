"""The ConfigMap with the configuration that istiod had in effect last."""

import asyncio

from lateen.api import kinds
from lateen.control import accepted
from lateen.control.accepted import Accepted
from lateen.kit import tasks
from lateen.kube.client import KubeError
from lateen.wire.revision import Revision

KEY = ("istio-system", "istio-accepted-config")


class Api:
    def __init__(self, fails=0):
        self.data, self.fails, self.writes, self.owners, self.forbids = None, fails, [], None, False

    async def get(self, kind, _namespace, name):
        if kind is kinds.DEPLOYMENT:
            if self.forbids:
                raise KubeError(403, "Forbidden", "deployments.apps is forbidden")
            return {"metadata": {"name": name, "uid": "of-istiod"}}
        return None if self.data is None else {"data": dict(self.data)}

    async def create(self, _kind, body):
        self.owners = body["metadata"]["ownerReferences"]
        await self._write("create", body["data"])

    async def patch(self, _kind, _namespace, _name, body):
        await self._write("patch", body["data"])

    async def _write(self, how, data):
        if self.fails:
            self.fails -= 1
            raise KubeError(409, "AlreadyExists", "another istiod was first")
        self.writes.append(how)
        self.data = {k: v for k, v in {**(self.data or {}), **data}.items() if v is not None}


def kept(api, *steps, seen=None):
    async def work():
        found = Accepted("istio-system", Revision())
        if seen is not None:
            found.changed(KEY, {"data": seen})
        task = tasks.spawn(found.keep(api), "kept")
        for step in steps:
            found.take(**step)
            await asyncio.sleep(0.02)
            if api.data is not None:
                found.changed(KEY, {"data": dict(api.data)})
        await tasks.cancel(task)

    asyncio.run(work())
    return api


def test_sources_share_the_config_map_and_each_changes_its_own_keys():
    api = kept(Api(), {"mesh": "a", "meshNetworks": None}, {"injectorValues": "{}"}, {"mesh": "b"})
    assert api.data == {"mesh": "b", "injectorValues": "{}"}
    assert api.writes == ["create", "patch", "patch"]


def test_what_is_stored_is_not_written_again():
    assert kept(Api(), {"mesh": "a"}, seen={"mesh": "a", "injectorValues": "{}"}).writes == []


def test_a_key_that_is_not_in_effect_anymore_is_removed():
    api = Api()
    api.data = {"mesh": "a", "meshNetworks": "{}"}
    assert kept(api, {"mesh": "a", "meshNetworks": None}, seen=dict(api.data)).data == {"mesh": "a"}


def test_a_write_that_fails_is_repeated(monkeypatch):
    monkeypatch.setattr(accepted, "RETRY_S", 0)
    assert kept(Api(fails=2), {"mesh": "a"}).data == {"mesh": "a"}


def test_it_goes_with_istiod():
    """helm uninstall istiod: Helm knows only what its chart has."""
    (owner,) = kept(Api(), {"mesh": "a"}).owners
    assert owner == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "istiod", "uid": "of-istiod"}


def test_it_is_kept_with_the_rights_of_an_earlier_installation():
    api = Api()
    api.forbids = True
    assert kept(api, {"mesh": "a"}).data == {"mesh": "a"}
    assert api.owners == []
