"""Which namespaces belong to the mesh, as ``discoverySelectors`` say."""

from lateen.ads.server import AdsServer
from lateen.api import kinds
from lateen.control.deployments import Deployments
from lateen.control.status import StatusWriter
from lateen.control.statuses import Statuses
from lateen.control.world import World
from lateen.kit import yamldoc
from lateen.kube.informer import Informer

ROOT = "istio-system"


class Cluster:
    """What informers do: keep the objects, and report each change."""

    def __init__(self):
        self.objects = {}
        self.world = World(ROOT, lambda: None)
        self.world.held = lambda: list(self.objects.items())

    def put(self, kind, namespace, name, **rest):
        labels = rest.pop("labels", {})
        obj = {"metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels}, **rest}
        self._change(kind, (namespace, name), obj)

    def delete(self, kind, namespace, name):
        self._change(kind, (namespace, name), None)

    def _change(self, kind, key, obj):
        mine = self.objects.setdefault(kind, {})
        old = mine.pop(key, None)
        if obj:
            mine[key] = obj
        self.world.changed(kind, key, old, obj)

    def namespace(self, name, **labels):
        self.put(kinds.NAMESPACE, "", name, labels=labels)

    def filled(self, *names):
        """With a service and a rule in each namespace."""
        for name in names:
            port = {"name": "http", "port": 80}
            self.put(
                kinds.SERVICE, name, "web", spec={"ports": [port], "clusterIP": "10.0.0.1", "selector": {"a": "b"}}
            )
            self.put(kinds.DESTINATION_RULE, name, "web", spec={"host": "web"})

    def select(self, *selectors):
        text = yamldoc.dump({"discoverySelectors": list(selectors)})
        self.put(kinds.CONFIG_MAP, ROOT, "istio", data={"mesh": text})

    @property
    def known(self):
        services = {n for n, _ in self.world.objects.services}
        assert services == {n for n, _ in self.world.objects.destination_rules}
        return services


def cluster():
    out = Cluster()
    out.namespace("mine", team="a")
    out.namespace("theirs", team="b")
    out.namespace(ROOT)
    out.filled("mine", "theirs", ROOT)
    return out


def test_without_selectors_all_namespaces_belong_to_the_mesh():
    assert cluster().known == {"mine", "theirs", ROOT}


def test_only_namespaces_that_a_selector_takes_belong_to_it_and_the_control_planes_own():
    found = cluster()
    found.select({"matchLabels": {"team": "a"}})
    assert found.known == {"mine", ROOT}
    found.select(
        {"matchLabels": {"team": "a"}}, {"matchExpressions": [{"key": "team", "operator": "In", "values": ["b"]}]}
    )
    assert found.known == {"mine", "theirs", ROOT}
    found.select()
    assert found.known == {"mine", "theirs", ROOT}


def test_a_namespaces_labels_decide_at_once():
    found = cluster()
    found.select({"matchLabels": {"team": "a"}})
    found.namespace("theirs", team="a")
    assert found.known == {"mine", "theirs", ROOT}
    found.namespace("mine")
    assert found.known == {"theirs", ROOT}


def test_objects_that_come_before_their_namespace_are_not_lost():
    found = cluster()
    found.select({"matchLabels": {"team": "a"}})
    found.filled("late")
    assert "late" not in found.known
    found.namespace("late", team="a")
    assert "late" in found.known


def test_at_a_start_a_namespace_outside_is_left_out_in_whichever_order_the_lists_come():
    for team, theirs in (("a", {"late"}), ("b", set())):
        found = Cluster()
        found.filled("late")
        found.select({"matchLabels": {"team": "a"}})
        found.namespace("late", team=team)
        assert found.known == theirs
        found.select()
        assert found.known == {"late"}


def test_a_namespace_that_never_shows_up_is_outside_as_well():
    found = Cluster()
    found.filled("late")
    found.select({"matchLabels": {"team": "a"}})
    assert found.known == set()


def test_a_gateway_is_deployed_and_objects_get_a_status_once_their_namespace_joins():
    found = Cluster()
    deployments = Deployments(None, None, None, found.world.writes, lambda: True)
    statuses = Statuses(found.world, AdsServer(None, None, None, None), None, None, None)
    writer = StatusWriter(None, found.world, statuses, ROOT, "istiod", dict)
    found.world.moved += [writer.moved, deployments.moved]
    found.select({"matchLabels": {"team": "a"}})
    found.namespace("late")
    gateway = {"metadata": {"name": "web", "namespace": "late"}, "spec": {"gatewayClassName": "istio"}}
    found.filled("late")
    informer = Informer(None, kinds.DESTINATION_RULE, lambda *_: None)
    informer.objects.update(found.objects[kinds.DESTINATION_RULE])
    statuses.informers.append(informer)
    deployments.changed(kinds.KUBERNETES_GATEWAY, ("late", "web"), None, gateway)
    for team in ("a", "b"):
        deployments._due.clear()
        statuses.due.take()
        writer._dirty.clear()
        found.namespace("late", team=team)
        assert deployments._due == {("late", "web")}
        assert list(statuses.due.take()) == [(kinds.DESTINATION_RULE, ("late", "web"))]
        assert writer._dirty.is_set()
    found.namespace("elsewhere", team="a")
    assert not list(statuses.due.take())


def test_what_is_deleted_outside_of_the_mesh_does_not_come_back():
    found = cluster()
    found.select({"matchLabels": {"team": "a"}})
    found.delete(kinds.SERVICE, "theirs", "web")
    found.delete(kinds.DESTINATION_RULE, "theirs", "web")
    found.select()
    assert found.known == {"mine", ROOT}


def test_no_status_is_written_outside_of_the_mesh():
    found = cluster()
    found.select({"matchLabels": {"team": "a"}})
    rules = found.objects[kinds.DESTINATION_RULE]
    assert found.world.writes(rules[("mine", "web")])
    assert not found.world.writes(rules[("theirs", "web")])


def test_a_wrong_object_of_a_namespace_outside_is_no_trouble_of_the_mesh():
    found = cluster()
    found.select({"matchLabels": {"team": "a"}})
    found.put(kinds.DESTINATION_RULE, "theirs", "bad", spec={"host": 7})
    assert not found.world.bad
