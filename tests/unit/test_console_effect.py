"""What a text would change at the proxies, said before it is applied."""

import pytest
from shop import CART, cluster, kubernetes, shop_pod

from lateen.analysis import Source
from lateen.api import kinds
from lateen.console import fieldhelp
from lateen.console.effect import effect
from lateen.console.wizards import Wizards
from lateen.kit import yamldoc


def pod(name, labels, address, owner, *args):
    found = shop_pod(name, labels, owner=owner)
    found["status"] |= {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]}
    found["spec"]["containers"][1] |= {"args": ["proxy", *(args or ["sidecar"])]}
    return found


def service(name):
    port = {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}
    spec = {"selector": {"app": name}, "ports": [port], "clusterIP": f"10.96.0.{len(name)}"}
    return kubernetes(kinds.SERVICE, name, spec=spec)


LIVE = (
    service("cart"),
    service("stock"),
    pod("cart-v1-a", CART, "10.0.0.1", "cart-v1"),
    pod("cart-v1-b", CART, "10.0.0.2", "cart-v1"),
    pod("stock-v1-a", {"app": "stock", "version": "v1"}, "10.0.0.3", "stock-v1"),
    pod("gateway-a", {"istio": "ingressgateway"}, "10.0.0.4", "gateway", "router"),
    kubernetes(kinds.NAMESPACE, "shop", namespace=""),
)
TIMEOUT = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: stock, namespace: shop}
spec: {hosts: [stock], http: [{timeout: 3s, route: [{destination: {host: stock}}]}]}
"""


def of(text, *more, gone=False):
    written = [Source(d) for d in yamldoc.objects(text)]
    changes = {(str(s.id), s.namespace, s.name): None if gone else s for s in written}
    return effect([Source(o) for o in (*LIVE, *more)], changes, "istio-system")


def test_a_timeout_changes_one_virtual_host_of_every_client():
    found = of(TIMEOUT)
    assert found["proxies"] == 4
    (change,) = [c for c in found["changes"] if c["type"] == "virtual host"]
    assert (change["what"], change["name"]) == ("changed", "stock.shop.svc.cluster.local:80")
    assert change["workloads"] == ["shop/cart-v1", "shop/stock-v1"]
    assert any(line.startswith("+") and "timeout: 3s" in line for line in change["diff"])


def test_what_is_there_already_changes_nothing():
    (there,) = yamldoc.objects(TIMEOUT)
    assert of(TIMEOUT, there) == {"proxies": 4, "touched": 0, "changes": [], "left": 0}


def test_a_deletion_takes_back_what_the_object_did():
    (there,) = yamldoc.objects(TIMEOUT)
    (change,) = of(TIMEOUT, there, gone=True)["changes"]
    assert any(line.startswith("-") and "timeout: 3s" in line for line in change["diff"])


def test_a_policy_changes_the_filter_of_the_workload_that_it_selects_alone():
    found = of("""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: stock, namespace: shop}
spec: {selector: {matchLabels: {app: stock}}, action: DENY, rules: [{to: [{operation: {methods: [POST]}}]}]}
""")
    assert found["touched"] == 1
    assert {w for c in found["changes"] for w in c["workloads"]} == {"shop/stock-v1"}
    assert "POST" in str([c["diff"] for c in found["changes"]])


def test_subsets_are_new_clusters_with_their_endpoints():
    found = of("""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, subsets: [{name: v1, labels: {version: v1}}]}
""")
    added = {(c["type"], c["name"]): c for c in found["changes"] if c["what"] == "added"}
    name = "outbound|80|v1|cart.shop.svc.cluster.local"
    assert {("cluster", name), ("endpoints", name)} <= added.keys()
    assert "10.0.0.2" in str(added["endpoints", name]["diff"])


@pytest.mark.parametrize("tls", ["", "tls: {mode: SIMPLE, credentialName: shop}"])
def test_a_gateway_opens_its_port_although_its_certificate_cannot_be_read(tls):
    protocol = "HTTPS" if tls else "HTTP"
    found = of(f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: web, namespace: shop}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - port: {{number: 443, name: web, protocol: {protocol}}}
    hosts: [shop.example.com]
    {tls}
""")
    listeners = [c for c in found["changes"] if c["type"] == "listener" and c["what"] == "added"]
    assert [c["workloads"] for c in listeners] == [["shop/gateway"]]


def test_an_envoy_filter_changes_what_it_patches():
    found = of("""
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: slow, namespace: shop}
spec:
  workloadSelector: {labels: {app: cart}}
  configPatches:
  - applyTo: CLUSTER
    match: {cluster: {service: stock.shop.svc.cluster.local}}
    patch: {operation: MERGE, value: {connect_timeout: 42s}}
""")
    (change,) = found["changes"]
    assert (change["type"], change["workloads"]) == ("cluster", ["shop/cart-v1"])
    assert any("42s" in line for line in change["diff"])


def test_a_text_that_changes_more_than_can_be_read_is_cut():
    entries = "".join(
        f"---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: s{i}, namespace: shop}}\n"
        f"spec: {{hosts: [s{i}.example.com], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: DNS}}\n"
        for i in range(150)
    )
    found = of(entries)
    assert len(found["changes"]) == 200
    assert found["left"] > 0


# --- what wizards make ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wizard", "form", "kind", "says"),
    [
        ("weights", {"weights": {"v1": 100}}, "virtual host", "outbound|80|v1|cart.shop.svc.cluster.local"),
        ("limits", {"timeout": "3s"}, "virtual host", "timeout: 3s"),
        ("limits", {"attempts": 5, "perTryTimeout": "1s"}, "virtual host", "num_retries: 5"),
        ("fault", {"delay": "2s", "delayed": 50}, "virtual host", "fixed_delay: 2s"),
        ("fault", {"status": 555, "aborted": 100}, "virtual host", "http_status: 555"),
        ("breaker", {"connections": 7}, "cluster", "max_connections: 7"),
        ("breaker", {"errors": 4}, "cluster", "consecutive_5xx: 4"),
        ("mutual-tls", {"mode": "STRICT"}, "listener", ""),
        ("callers", {"callers": ["shop/stock-v1"]}, "filter", "cluster.local/ns/shop/sa/default"),
        ("expose", {"host": "shop.example.com", "path": "/cart", "port": 80}, "virtual host", "shop.example.com"),
    ],
)
def test_what_a_wizard_makes_does_at_the_proxies_what_its_form_says(wizard, form, kind, says):
    written = Wizards(cluster(*LIVE).inventory()).make(wizard, "shop", "cart", form)
    found = of("---\n".join(map(yamldoc.dump, written)))
    lines = [line for c in found["changes"] if c["type"] == kind for line in c["diff"] if not line.startswith(" ")]
    assert any(says in line for line in lines), found["changes"]


# --- help beside the editor ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", fieldhelp.SAYS)
def test_every_sentence_of_help_is_about_a_field_that_exists(kind):
    assert fieldhelp.SAYS[kind].keys() <= fieldhelp.fields(kind)["fields"].keys()


def test_help_has_types_choices_and_what_has_no_effect():
    found = fieldhelp.fields("DestinationRule")["fields"]
    assert found["host"] | {"says": ""} == {"type": "text", "values": [], "required": True, "says": "", "idle": ""}
    assert "ROUND_ROBIN" in found["trafficPolicy.loadBalancer.simple"]["values"]
    assert found["subsets[].labels"]["type"] == "map of text"
    assert "consecutive5xxErrors" in found["trafficPolicy.outlierDetection.consecutiveErrors"]["idle"]


def test_every_kind_of_the_mesh_has_help_and_no_other():
    for kind in kinds.owned():
        assert fieldhelp.fields(str(kind.id))["kind"] == str(kind.id)
    assert fieldhelp.fields("Pod") is None
    assert fieldhelp.fields("Nonsense") is None
