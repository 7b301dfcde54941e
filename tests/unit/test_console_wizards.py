"""The console's wizards: what forms become, and that it is valid."""

import copy

import pytest
from shop import SHOP, cluster, kubernetes, shop_pod

from lateen.api import kinds
from lateen.console.cluster import what_if
from lateen.console.pages import sources
from lateen.console.presets import forms
from lateen.console.wizards import Wizards
from lateen.kit import yamldoc

# --- wizards ------------------------------------------------------------------------------------------------


def made(wizard, form, *objects, service="cart"):
    found = Wizards(cluster(*(objects or SHOP)).inventory()).make(wizard, "shop", service, form)
    return {o["kind"]: o for o in found}


V2 = shop_pod("cart-v2-5d4f-a", {"app": "cart", "version": "v2"}, owner="cart-v2")
ROUTED = kubernetes(
    kinds.VIRTUAL_SERVICE,
    "carts",
    metadata={"resourceVersion": "7"},
    spec={
        "hosts": ["cart.shop.svc.cluster.local"],
        "http": [
            {"match": [{"uri": {"prefix": "/beta"}}], "route": [{"destination": {"host": "cart", "subset": "v2"}}]},
            {"timeout": "9s", "route": [{"destination": {"host": "cart"}}]},
        ],
    },
)


def test_shares_make_subsets_and_routes():
    found = made("weights", {"weights": {"v1": 90, "v2": 10}}, *SHOP[:3], V2)
    assert [s["labels"] for s in found["DestinationRule"]["spec"]["subsets"]] == [{"version": "v1"}, {"version": "v2"}]
    (http,) = found["VirtualService"]["spec"]["http"]
    assert [(r["destination"]["subset"], r["weight"]) for r in http["route"]] == [("v1", 90), ("v2", 10)]


def test_subsets_have_the_label_by_which_the_pods_tell_their_version():
    charted = shop_pod("cart-c-5d4f-a", {"app": "cart", "app.kubernetes.io/version": "1.4.0"}, owner="cart-c")
    there = {"host": "cart", "subsets": [{"name": "old", "labels": {"app": "cart", "version": "v2"}}]}
    rule = kubernetes(kinds.DESTINATION_RULE, "cart", spec=there)
    found = made("weights", {"weights": {"1.4.0": 90, "v2": 10}}, *SHOP[:3], V2, charted, rule)
    added = {"name": "1-4-0", "labels": {"app.kubernetes.io/version": "1.4.0"}}
    assert found["DestinationRule"]["spec"]["subsets"] == [*there["subsets"], added]
    (http,) = found["VirtualService"]["spec"]["http"]
    assert {r["destination"]["subset"]: r["weight"] for r in http["route"]} == {"1-4-0": 90, "old": 10}


def test_traffic_is_not_shifted_to_pods_that_no_rule_can_select():
    bare = shop_pod("cart-5d4f-a", {"app": "cart"}, owner="cart")
    with pytest.raises(ValueError, match="no label version"):
        made("weights", {"weights": {"latest": 100}}, *SHOP[:3], bare)


def test_a_wizard_changes_the_rule_that_is_there_and_keeps_the_rest_of_it():
    rule = made("weights", {"weights": {"v1": 50, "v2": 50}}, *SHOP[:3], V2, ROUTED)["VirtualService"]
    assert (rule["metadata"]["name"], rule["metadata"]["resourceVersion"]) == ("carts", "7")
    beta, rest = rule["spec"]["http"]
    assert beta == ROUTED["spec"]["http"][0]
    assert (rest["timeout"], len(rest["route"])) == ("9s", 2)
    assert len(ROUTED["spec"]["http"][1]["route"]) == 1


def of_ports(*ports):
    """The shop's cart, with other ports, and a second version."""
    service = copy.deepcopy(SHOP[0])
    service["spec"]["ports"] = [{"name": name, "port": port} for name, port in ports]
    return (service, *SHOP[1:3], V2)


def test_connections_are_shifted_where_proxies_see_no_requests():
    database = of_ports(("tcp-db", 5432))
    found = made("weights", {"weights": {"v1": 90, "v2": 10}}, *database)
    rule = found["VirtualService"]["spec"]
    assert "http" not in rule, "it would have no effect"
    assert [(r["destination"]["subset"], r["weight"]) for r in rule["tcp"][0]["route"]] == [("v1", 90), ("v2", 10)]
    text = "---\n".join(map(yamldoc.dump, found.values()))
    assert what_if(cluster(*database).sources(), sources(text), "istio-system") == []
    inventory = cluster(*database, *found.values()).inventory()
    assert forms(Wizards(inventory), inventory, "shop", "cart")["weights"] == {"v1": 90, "v2": 10}
    both = made("weights", {"weights": {"v1": 100}}, *of_ports(("tcp-db", 5432), ("web", 80)))
    assert "http" in both["VirtualService"]["spec"], "its protocol is detected"


@pytest.mark.parametrize(
    ("wizard", "form", "says"),
    [
        ("limits", {"timeout": "3s"}, "no port of the service is HTTP"),
        ("fault", {"aborted": 10}, "no port of the service is HTTP"),
        ("expose", {"host": "shop.example", "port": 5432}, "port 5432 carries tcp, not HTTP"),
        ("weights", {"weights": {"v1": 100}}, "all ports of the service are TLS or UDP"),
    ],
)
def test_what_would_have_no_effect_on_a_port_is_refused(wizard, form, says):
    objects = of_ports(("tls", 443)) if wizard == "weights" else of_ports(("tcp-db", 5432))
    with pytest.raises(ValueError, match=says):
        made(wizard, form, *objects)
    inventory = cluster(*objects).inventory()
    assert forms(Wizards(inventory), inventory, "shop", "cart")["weights"] is None


def test_routes_that_answer_themselves_are_left_as_they_are():
    rule = copy.deepcopy(ROUTED)
    moved = {"match": [{"uri": {"exact": "/old"}}], "redirect": {"uri": "/"}}
    rule["spec"]["http"].insert(0, moved)
    found = made("fault", {"aborted": 10}, *SHOP[:3], rule)["VirtualService"]["spec"]["http"]
    assert ["fault" in http for http in found] == [False, True, True]
    rule["spec"]["http"] = [{"redirect": {"uri": "/"}}]
    for wizard, form in (("fault", {"aborted": 10}), ("weights", {"weights": {"v1": 100}})):
        with pytest.raises(ValueError, match="redirects all requests itself"):
            made(wizard, form, *SHOP[:3], rule)


def test_limits_and_faults_are_set_and_taken_away():
    rule = made("limits", {"timeout": "3s", "attempts": 2}, *SHOP[:3], ROUTED)["VirtualService"]
    tried = {"retryOn": "gateway-error,connect-failure,refused-stream", "attempts": 2}
    assert [(h["timeout"], h["retries"]) for h in rule["spec"]["http"]] == [("3s", tried)] * 2
    bare = made("limits", {}, *SHOP[:3], ROUTED)["VirtualService"]
    assert not any("timeout" in h or "retries" in h for h in bare["spec"]["http"])
    never = made("limits", {"attempts": 0}, *SHOP[:3], ROUTED)["VirtualService"]["spec"]["http"]
    assert [h["retries"] for h in never] == [{"attempts": 0}] * 2, "without it there are two"
    fault = made("fault", {"aborted": 50, "status": 500}, *SHOP[:3])["VirtualService"]["spec"]["http"][0]["fault"]
    assert fault == {"abort": {"httpStatus": 500, "percentage": {"value": 50}}}


def test_forms_begin_with_what_is_set_now():
    def now(*objects):
        inventory = cluster(*SHOP[:3], V2, *objects).inventory()
        return forms(Wizards(inventory), inventory, "shop", "cart")

    nothing = {"weights": None, "limits": None, "fault": None, "breaker": None}
    assert nothing.items() <= now().items()
    weights = made("weights", {"weights": {"v1": 90, "v2": 10}}, *SHOP[:3], V2)
    assert now(*weights.values())["weights"] == {"v1": 90, "v2": 10}
    for name, form in (
        ("limits", {"timeout": "3s", "attempts": 0, "perTryTimeout": ""}),
        ("fault", {"delay": "2s", "delayed": 10, "status": 500, "aborted": 0.5}),
        ("breaker", {"connections": 10, "pending": 5, "errors": 3, "ejection": "1m"}),
    ):
        assert now(*made(name, form, *SHOP[:3]).values())[name] == form


def test_shares_of_another_host_are_none_of_the_service():
    """Its subsets may have the same names."""
    weights = made("weights", {"weights": {"v1": 90, "v2": 10}}, *SHOP[:3], V2)
    elsewhere = copy.deepcopy(weights["VirtualService"])
    elsewhere["spec"]["http"][0]["route"][1]["destination"]["host"] = "cart.next.svc.cluster.local"
    inventory = cluster(*SHOP[:3], V2, weights["DestinationRule"], elsewhere).inventory()
    assert forms(Wizards(inventory), inventory, "shop", "cart")["weights"] is None


def test_forms_tell_which_objects_they_would_replace():
    def replaced(*objects):
        inventory = cluster(*SHOP[:3], *objects).inventory()
        return forms(Wizards(inventory), inventory, "shop", "cart")["replaces"]

    assert not any(replaced().values())
    given = {"mutual-tls": {"mode": "STRICT"}, "callers": {"callers": []}, "expose": {"host": "shop.example"}}
    for wizard, form in given.items():
        there = made(wizard, form, *SHOP[:3]).values()
        found = replaced(*(kubernetes(kinds.of(o), o["metadata"]["name"], spec=o["spec"]) for o in there))
        assert found[wizard] == [str(kinds.of(o).ref("shop", o["metadata"]["name"])) for o in there]
        assert not any(names for other, names in found.items() if other != wizard)


def test_only_the_callers_that_are_named_are_let_in():
    policy = made("callers", {"callers": ["shop/cart-v1"]})["AuthorizationPolicy"]
    assert policy["spec"]["rules"] == [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/default"]}}]}]
    assert "rules" not in made("callers", {"callers": []})["AuthorizationPolicy"]["spec"]


@pytest.mark.parametrize(
    ("wizard", "form", "says"),
    [
        ("weights", {"weights": {"v1": 90}}, "add up to 90"),
        ("weights", {"weights": {"v9": 100}}, "version v9"),
        ("limits", {"timeout": "5 parsecs"}, 'timeout: expected a duration such as "5s"'),
        ("limits", {"attempts": "two"}, "attempts: expected an integer, got a string"),
        ("limits", {"attempts": 11}, "attempts: expected an integer of at most 10"),
        ("weights", {}, 'missing field "weights"'),
        ("expose", {"host": "no host"}, "host: expected a host such as"),
        ("fault", {"delayed": 10}, "how long"),
        ("expose", {"host": "shop.example", "port": 99}, "no port 99"),
        ("callers", {"callers": ["shop/nobody"]}, "no workload shop/nobody"),
        ("mutual-tls", {"mode": "DISABLE"}, "DISABLE"),
    ],
)
def test_a_form_that_cannot_be_followed_is_answered_by_a_sentence(wizard, form, says):
    with pytest.raises(ValueError, match=says):
        made(wizard, form)


@pytest.mark.parametrize(
    ("wizard", "form"),
    [
        ("weights", {"weights": {"v1": 100}}),
        ("limits", {"timeout": "3s", "attempts": 2, "perTryTimeout": "1s"}),
        ("fault", {"delay": "2s", "delayed": 10, "aborted": 0.5}),
        ("breaker", {"connections": 10, "pending": 5, "errors": 3}),
        ("mutual-tls", {"mode": "STRICT"}),
        ("callers", {"callers": ["shop/cart-v1"]}),
        ("expose", {"host": "shop.example"}),
    ],
)
def test_what_a_wizard_makes_is_valid(wizard, form):
    objects = (*SHOP[:3], kubernetes(kinds.SERVICE, "cart", spec=SHOP[0]["spec"]))
    found = made(wizard, form, *objects)
    text = "---\n".join(map(yamldoc.dump, found.values()))
    gateway = kubernetes(kinds.POD, "in", metadata={"labels": {"istio": "ingressgateway"}})
    ports = [{"name": "http2", "port": 80, "targetPort": 80}]
    entry = kubernetes(kinds.SERVICE, "in", spec={"selector": {"istio": "ingressgateway"}, "ports": ports})
    assert what_if(cluster(*objects, gateway, entry).sources(), sources(text), "istio-system") == []
