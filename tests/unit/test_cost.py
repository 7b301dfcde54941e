"""What a change costs: it makes new only what it concerns, and what it replaces is freed."""

import gc
from dataclasses import replace

import meshes as mesh
import pytest

from lateen.api import kinds
from lateen.api import objects as o
from lateen.mesh.model import Mesh
from lateen.mesh.observability import Reporting
from lateen.mesh.settings import IngressSettings, OutboundPolicy, Transport, Trust
from lateen.mesh.views import Views
from lateen.wire import names
from lateen.wire.resource import ResourceSet
from lateen.xds.generate import generate

SPACES = [f"n{i}" for i in range(80)]
WIDE = """
kind: Sidecar
metadata: {name: narrow, namespace: n1}
spec:
  workloadSelector: {labels: {kind: narrow}}
  egress: [{hosts: ["./*", "n2/*"]}]
"""


def wide():
    """Many namespaces, each with a service of the same name."""
    found = mesh.objects(WIDE)
    for i, space in enumerate(SPACES):
        for name in ("redis", "web"):
            port = (o.ServicePort("http", 80, 8080, "TCP"),)
            address = f"10.96.{i + 1}.{len(name)}"
            found = found.put(kinds.SERVICE, (space, name), o.Service(space, name, address, port, (("app", name),)))
            pod = mesh.pod(f"{name}-0", f"10.{i}.{len(name)}.1", space, app=name)
            found = found.put(kinds.POD, (space, pod.name), pod)
            found = found.put(
                kinds.ENDPOINT_SLICE, (space, name), (name, {"http": (o.Endpoint(pod.address, 8080, pod.name),)})
            )
    return found


def route(version):
    spec = f"{{hosts: [web], http: [{{timeout: {version}s}}]}}"
    return next(mesh.yamldoc.objects(f"kind: VirtualService\nmetadata: {{name: web, namespace: n3}}\nspec: {spec}"))


def endpoints(found, space, addresses):
    return found.put(
        kinds.ENDPOINT_SLICE, (space, "redis"), ("redis", {"http": tuple(o.Endpoint(a, 8080, "") for a in addresses)})
    )


def clients(found):
    narrow = mesh.pod("narrow", "10.244.9.9", "n1", kind="narrow")
    return [*(found.pods[(space, "web-0")] for space in SPACES[:12]), narrow]


def offered(views, pods):
    return [generate(views.of(p, "sidecar")) for p in pods]


def changed(before, after):
    return {
        t for b, a in zip(before, after, strict=True) for t in a for x, y in zip(b[t], a[t], strict=True) if x is not y
    }


def sent(before, after):
    """Types of which some proxy has something to receive."""
    return {
        t
        for b, a in zip(before, after, strict=True)
        for t in a
        for x, y in zip(b[t], a[t], strict=True)
        if any(y.changes_since(x))
    }


@pytest.mark.parametrize(
    ("part", "value", "wanted"),
    [
        ("reporting", Reporting("/dev/stderr"), {names.LDS}),
        ("outbound", OutboundPolicy("REGISTRY_ONLY"), {names.LDS, names.RDS}),
        ("transport", Transport(connect_timeout_s=3), {names.CDS}),
        ("trust", Trust(aliases=("old.example",)), set()),  # nobody has a policy
        ("ingress", IngressSettings(class_name="other"), set()),
    ],
)
def test_a_setting_changes_only_what_depends_on_it(part, value, wanted):
    found = wide()
    views, pods = Views(Mesh(found)), clients(found)
    before = offered(views, pods)
    views.advance(replace(found, config=replace(found.config, **{part: value})))
    assert sent(before, offered(views, pods)) == wanted


def test_an_endpoint_change_changes_endpoints_only():
    found = wide()
    views, pods = Views(Mesh(found)), clients(found)
    found = endpoints(found, "n5", ["10.5.5.1"])
    views.advance(found)
    before, narrow = offered(views, pods), views.of(pods[-1], "sidecar")
    found = endpoints(found, "n5", ["10.5.5.1", "10.5.5.2"])
    views.advance(found)
    after = offered(views, pods)
    assert changed(before, after) == {names.EDS}
    news = {n for b, a in zip(before, after, strict=True) for n in a[names.EDS][0].changes_since(b[names.EDS][0])[0]}
    assert news == {"outbound|80||redis.n5.svc.cluster.local"}
    kept = views.of(pods[-1], "sidecar")  # its Sidecar does not show that namespace
    assert kept.outbound is narrow.outbound
    assert kept.own is narrow.own


def test_one_name_in_many_namespaces_is_shared_by_all_of_them():
    """Namespaces see different short names; clusters and endpoints are the same for all."""
    found = wide()
    sets = offered(Views(Mesh(found)), clients(found)[:-1])
    for type_url in (names.CDS, names.EDS, names.LDS, names.RDS):
        assert len({id(s[type_url][1 if type_url == names.CDS else 0]) for s in sets}) == 1
    own = {r for s in sets for r in s[names.VHDS][0].resources.values()}
    assert len({id(r) for r in own if r.name.startswith("80/redis.n3.")}) == 2  # as n3 sees it, and as all others do


def test_a_route_change_changes_virtual_hosts_only():
    found = mesh.add(wide(), route(1), 1)
    views, pods = Views(Mesh(found)), clients(found)
    before = offered(views, pods)
    views.advance(mesh.add(found, route(2), 1))
    after = offered(views, pods)
    same = {n: r.version for s in before for t in s if t != names.VHDS for x in s[t] for n, r in x.resources.items()}
    assert same == {
        n: r.version for s in after for t in s if t != names.VHDS for x in s[t] for n, r in x.resources.items()
    }
    news = {n for b, a in zip(before, after, strict=True) for n in a[names.VHDS][0].changes_since(b[names.VHDS][0])[0]}
    assert news == {"80/web.n3.svc.cluster.local:80"}


@pytest.mark.parametrize("kind", ["endpoint", "route"])
def test_what_is_replaced_is_freed(kind):
    """The number of sets that are alive stays what it is over 1,000 pushes."""
    found = mesh.add(wide(), route(1), 1)
    views, pods = Views(Mesh(found)), clients(found)
    alive = []
    sets = offered(views, pods)
    for n in range(1000):
        found = endpoints(found, "n5", [f"10.5.5.{n % 250}"]) if kind == "endpoint" else mesh.add(found, route(n), 1)
        views.advance(found)
        before, sets = sets, offered(views, pods)
        for old, new in zip(before, sets, strict=True):
            for type_url in new:
                for x, y in zip(old[type_url], new[type_url], strict=True):
                    y.changes_since(x)
        del before, old, new, x, y
        if n in (20, 999):
            gc.collect()
            alive.append((sum(isinstance(x, ResourceSet) for x in gc.get_objects()), len(views.queries)))
    assert alive[0] == alive[1]


def policy(spec, kind="AuthorizationPolicy"):
    return next(mesh.yamldoc.objects(f"kind: {kind}\nmetadata: {{name: p, namespace: n3}}\nspec: {spec}"))


REQUESTS = "{rules: [{to: [{operation: {methods: [%s]}}]}]}"
CALLERS = "{rules: [{from: [{source: {namespaces: [%s]}}]}]}"
TOKENS = "{jwtRules: [{issuer: %s, jwksUri: 'https://keys.test/'}]}"


@pytest.mark.parametrize(
    ("kind", "spec", "wanted"),
    [
        ("AuthorizationPolicy", REQUESTS, {names.ECDS}),
        ("AuthorizationPolicy", CALLERS, {names.ECDS, names.LDS}),  # connections are decided about by their chains
        ("RequestAuthentication", TOKENS, {names.ECDS}),
    ],
)
def test_a_policy_change_makes_only_its_slots_once_for_all_of_its_workloads(kind, spec, wanted):
    found = mesh.add(wide(), policy(spec % "a", kind), 1)
    for i in range(5):
        more = mesh.pod(f"web-{i}", f"10.3.9.{i}", "n3", app="web")
        found = found.put(kinds.POD, ("n3", more.name), more)
    views = Views(Mesh(found))
    pods = [*clients(found), *(found.pods["n3", f"web-{i}"] for i in range(5))]
    mine = [i for i, p in enumerate(pods) if p.namespace == "n3"]
    before, seen = offered(views, pods), [views.of(p, "sidecar") for p in pods]
    views.advance(mesh.add(found, policy(spec % "b", kind), 1))
    after = offered(views, pods)
    for i, p in enumerate(pods):
        view = views.of(p, "sidecar")
        assert view.outbound is seen[i].outbound
        assert all(x is y for x, y in zip(view.own.inbound, seen[i].own.inbound, strict=True))
        assert changed(before[i : i + 1], after[i : i + 1]) == (wanted if i in mine else set())
    new = [x for i in mine for x, y in zip(after[i][names.ECDS], before[i][names.ECDS], strict=True) if x is not y]
    assert len(new) == len(mine)
    assert len({id(x) for x in new}) == 1, "one for all workloads with the same policies"


def test_a_policy_change_keeps_the_routes_of_gateways():
    servers = "[{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*']}]"
    gateway = f"kind: Gateway\nmetadata: {{name: g}}\nspec: {{selector: {{istio: ingressgateway}}, servers: {servers}}}"
    text = policy(REQUESTS % "GET") | {"metadata": {"name": "p", "namespace": "istio-system"}}
    found = mesh.add(mesh.objects(gateway), text, 1)
    views, pod = Views(Mesh(found)), found.pods["istio-system", "ingress"]
    before, seen = generate(views.of(pod, "router")), views.of(pod, "router")
    other = policy(REQUESTS % "PUT") | {"metadata": text["metadata"]}
    views.advance(mesh.add(found, other, 1))
    view = views.of(pod, "router")
    assert view.gateway is seen.gateway
    assert changed([before], [generate(view)]) == {names.ECDS}
