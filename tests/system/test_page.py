"""The console's page in a real browser over a made-up Bookinfo: what needs no mesh."""

import gzip
import itertools
import json
import time
import urllib.parse

import pytest
from staged import AUDIT, AXE, PAGES, browser, console, needs_a_browser, opened, page, sign_in  # noqa: F401 - fixtures
from world import ROOT

STATIC = ROOT / "src" / "lateen" / "console" / "static"
MOST = 500_000
"""Bytes of the page, compressed."""

pytestmark = needs_a_browser


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_by_everybody_in_both_themes_and_on_a_phone(name, page, console):
    opened(page, console, name)
    page.evaluate(AXE.read_text())
    for theme in ("light", "dark"):
        page.get_by_label("Colours").select_option(theme)
        assert page.evaluate(AUDIT) == [], theme
    page.set_viewport_size({"width": 375, "height": 700})
    page.wait_for_function("document.documentElement.scrollWidth <= 375")
    for theme in ("dark", "light"):
        page.get_by_label("Colours").select_option(theme)
        assert page.evaluate(AUDIT) == [], f"phone, {theme}"
    assert page.locator("h1").count() == 1


def test_the_page_is_small():
    files = [f for f in STATIC.rglob("*") if f.is_file()]
    assert sum(len(gzip.compress(f.read_bytes())) for f in files) <= MOST


def shown(page):
    return int(page.locator(".canvas").get_attribute("data-labels") or 0)


def test_labels_of_edges_are_chosen_and_the_address_remembers_it(page, console):
    page.goto(f"{console}#/graph?namespaces=default")
    page.wait_for_function("+document.querySelector('.canvas').dataset.labels > 15")
    page.get_by_label("Edge labels").select_option("errors")
    page.wait_for_function("+document.querySelector('.canvas').dataset.labels < 16")
    assert "labels=errors" in page.url
    page.reload()
    page.locator(".count", has_text="proxies").wait_for()
    assert page.get_by_label("Edge labels").input_value() == "errors"


def test_what_is_healthy_can_be_hidden_and_a_wrong_expression_is_explained(page, console):
    page.goto(f"{console}#/graph?namespaces=default")
    page.wait_for_function("+document.querySelector('.canvas').dataset.labels > 15")
    page.get_by_label("Hide").fill("healthy")
    page.get_by_label("Hide").press("Enter")
    page.wait_for_function("+document.querySelector('.canvas').dataset.labels < 14")
    assert shown(page) > 3, "what has errors stays"
    page.get_by_label("Find").fill("colour = red")
    page.get_by_label("Find").press("Enter")
    page.get_by_role("alert").get_by_text("nothing called colour").wait_for()


def test_the_table_tells_what_configuration_does_to_a_node(page, console):
    page.goto(f"{console}#/graph?namespaces=default")
    page.get_by_text("As a table").click()
    row = page.locator('#nodes tr[data-node="service/default/reviews"]')
    row.get_by_text("circuit breaker, traffic shifting, timeout").wait_for()
    page.locator('#nodes tr[data-node="service/default/productpage"]').get_by_text("through a gateway").wait_for()


def test_the_past_is_replayed_with_the_changes_of_configuration(page, console):
    page.goto(f"{console}#/graph?namespaces=default&at={int(time.time()) - 700}")
    edges = page.locator("#edges tr[data-from]")
    edges.first.wait_for(state="attached")
    assert edges.count() == 11
    mark = page.locator("[data-change]").last
    mark.click()
    page.get_by_role("status").get_by_text("created by kubectl").wait_for()
    before = page.locator("[data-at]").get_attribute("data-at")
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("was => document.querySelector('[data-at]').dataset.at !== was", arg=before)
    page.get_by_role("button", name="Back to live").click()
    page.get_by_role("button", name="Pause").wait_for()


def test_a_dry_run_and_the_effect_on_the_proxies_come_before_applying(page, console):
    sign_in(page, "editor")
    page.goto(f"{console}#/services/default/details?tab=Actions")
    page.get_by_role("combobox", name="Action", exact=True).select_option("limits")
    page.get_by_role("button", name="Show the YAML").click()
    page.get_by_role("button", name="Effect on the proxies").click()
    effect = page.get_by_role("region", name="Effect on the proxies")
    effect.get_by_text("virtual host").first.click()
    effect.get_by_text("timeout: 3s").first.wait_for()
    page.get_by_role("button", name="Dry run").click()
    page.get_by_text("nothing was written").wait_for()


def test_help_is_about_the_field_at_the_cursor(page, console):
    page.goto(f"{console}#/new")
    yaml = page.get_by_label("YAML")
    yaml.fill("kind: VirtualService\nspec:\n  http:\n  - retries:\n      attempts: 2\n")
    yaml.press("ArrowUp")
    aside = page.get_by_role("complementary", name="Help for the field at the cursor")
    aside.get_by_text("The number of retries").wait_for()


def test_a_viewer_sees_proxies_and_may_change_nothing(page, console):
    page.goto(f"{console}#/workloads/default/reviews-v2?tab=Envoy")
    page.get_by_label("Token").fill("viewer")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Routes").click()
    page.get_by_role("table", name="Routes").get_by_text("ratings.default").first.wait_for()
    page.goto(f"{console}#/config/VirtualService/default/ratings")
    page.get_by_text("who may read, and change nothing").wait_for()
    assert page.get_by_role("button", name="Apply", exact=True).is_disabled()
    assert page.get_by_role("button", name="Delete", exact=True).is_disabled()


def test_two_traces_are_chosen_and_compared(page, console):
    page.goto(f"{console}#/traces?service=productpage.default")
    boxes = page.get_by_role("checkbox", name="Compare")
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.get_by_role("link", name="Compare both traces").click()
    page.get_by_role("table", name="Comparison").get_by_text("details.default").wait_for()


BOARD = "#/boards/workload?namespace=default"


def test_a_dashboard_says_that_it_cannot_be_renewed_beside_what_it_shows(page, console):
    page.goto(f"{console}#/boards/mesh")
    figure = page.get_by_role("figure").first
    figure.get_by_role("table").wait_for()
    page.route("**/v1/query_range?*", lambda route: route.fulfill(status=200, body='"no answer"'))
    page.locator(".sheet > [role=alert]").wait_for()
    assert page.get_by_role("alert").count() == 1, "one for all panels"
    assert figure.get_by_role("table").is_visible()
    page.unroute("**/v1/query_range?*")
    page.get_by_role("alert").wait_for(state="detached")


@pytest.mark.parametrize(
    ("address", "label"),
    [
        ("#/applications/default/reviews", "destination_canonical_service"),
        ("#/workloads/default/reviews-v2", "destination_workload"),
        ("", "destination_canonical_service"),
    ],
)
def test_requests_that_failed_once_are_forgotten_when_the_collector_stops(page, console, address, label):
    metric = {"destination_workload_namespace": "default", label: address.rpartition("/")[2] or "reviews"}
    failing = {"data": {"result": [{"metric": metric, "values": [[0, "1"]]}]}}
    page.route("**/v1/query_range?*", lambda route: route.fulfill(status=200, body=json.dumps(failing)))
    page.goto(f"{console}{address}")
    page.get_by_text("100 % of its requests fail").wait_for()
    page.route("**/v1/query_range?*", lambda route: route.fulfill(status=200, body='"no answer"'))
    page.get_by_text("100 % of its requests fail").wait_for(state="detached")


def test_a_dashboard_of_another_namespace_does_not_ask_for_the_first_ones_workload(page, console):
    page.goto(f"{console}{BOARD}&workload=reviews-v2")
    page.get_by_role("figure").first.wait_for()
    asked = []
    page.on("request", lambda r: asked.append(urllib.parse.unquote_plus(r.url)) if "query_range" in r.url else None)
    page.evaluate(f"location.hash = '{BOARD.replace('default', 'istio-system')}'")
    page.get_by_role("figure").first.wait_for()
    page.wait_for_timeout(500)
    assert asked
    assert not [url for url in asked if "reviews-v2" in url]


def test_the_configuration_of_one_pod_is_not_offered_under_the_name_of_another(page, console):
    sign_in(page, "editor")
    page.goto(f"{console}#/workloads/default/reviews-v2?tab=Envoy")
    page.get_by_role("button", name="Config dump").click()
    save = page.get_by_role("link", name="Save the config dump")
    save.wait_for()
    assert "reviews-v2" in save.get_attribute("download")
    held = []
    page.route("**/api/envoy/default/reviews-v3*", lambda route: held.append(route))
    page.evaluate("location.hash = '#/workloads/default/reviews-v3?tab=Envoy'")
    page.get_by_text("Loading.").first.wait_for()
    assert not save.is_visible()
    while not held:
        page.wait_for_timeout(50)
    held[0].continue_()


def test_an_object_is_not_shown_under_the_name_of_the_next_one(page, console):
    page.goto(f"{console}#/config/VirtualService/default/ratings")
    page.get_by_text("IST0101").first.wait_for()
    held = []
    page.route("**/config/DestinationRule/**", lambda route: held.append(route))
    page.evaluate("location.hash = '#/config/DestinationRule/default/reviews'")
    page.get_by_role("heading", name="reviews DestinationRule").wait_for()
    assert page.get_by_text("IST0101").count() == 0
    while not held:
        page.wait_for_timeout(50)
    held[0].continue_()


NEW = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: web, namespace: default}\nspec: {}\n"


def test_what_was_written_after_a_dry_run_is_said_to_be_written_and_can_be_undone(page, console):
    step = {"kind": "Gateway", "namespace": "default", "name": "web", "yaml": "", "generation": 1}
    stored = NEW.replace("namespace: default", "namespace: default, resourceVersion: '8', generation: 1")
    done = {"written": ["Gateway default/web"], "failed": {}, "yaml": stored, "undo": [step]}
    page.route("**/api/apply?dryRun=false", lambda route: route.fulfill(status=200, body=json.dumps(done)))
    deleted = []

    def undo(route):
        deleted.append((route.request.method, route.request.url.partition("/config/")[2]))
        route.fulfill(status=200, body="{}")

    page.route("**/api/config/Gateway/**", undo)
    sign_in(page, "editor")
    page.goto(f"{console}#/new")
    page.get_by_label("YAML").fill(NEW)
    page.get_by_role("button", name="Dry run").click()
    page.get_by_text("nothing was written").wait_for()
    page.get_by_role("button", name="Apply", exact=True).click()
    page.get_by_text("Written:").wait_for()
    assert page.get_by_text("nothing was written").count() == 0
    assert "resourceVersion: '8'" in page.get_by_label("YAML").input_value(), "the next change is based on it"
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Undone").wait_for()
    assert deleted == [("DELETE", "Gateway/default/web?generation=1")]
    assert page.get_by_label("YAML").input_value() == NEW


def test_an_undo_that_fails_half_way_goes_on_where_it_has_failed(page, console):
    made = [
        {"kind": "Gateway", "namespace": "default", "name": name, "yaml": "", "generation": 1} for name in ("a", "b")
    ]
    done = {"written": ["Gateway default/a", "Gateway default/b"], "failed": {}, "yaml": NEW, "undo": made}
    page.route("**/api/apply?dryRun=false", lambda route: route.fulfill(status=200, body=json.dumps(done)))
    deleted = []

    def undo(route):
        deleted.append(route.request.url.rpartition("/")[2])
        route.fulfill(status=502 if len(deleted) == 2 else 200, body="{}" if len(deleted) != 2 else "try again later")

    page.expected = "a status of 502"
    page.route("**/api/config/Gateway/**", undo)
    sign_in(page, "editor")
    page.goto(f"{console}#/new")
    page.get_by_label("YAML").fill(NEW)
    page.get_by_role("button", name="Apply", exact=True).click()
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("alert").get_by_text("try again later").wait_for()
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Undone").wait_for()
    assert deleted == ["b?generation=1", "a?generation=1", "a?generation=1"]


def test_a_session_that_has_ended_asks_for_another_token_and_keeps_the_text(page, console):
    sign_in(page, "editor")
    page.goto(f"{console}#/new")
    page.get_by_text("who may change the configuration").wait_for()
    page.expected = "a status of 401"
    page.route("**/api/check", lambda route: route.fulfill(status=401, body="the token is not valid (any more)"))
    page.get_by_label("YAML").fill(NEW)
    page.get_by_role("alert").get_by_text("not valid (any more)").wait_for()
    page.unroute("**/api/check")
    assert page.get_by_label("YAML").input_value() == NEW
    page.get_by_label("Token").fill("editor")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("who may change the configuration").wait_for()


def test_nothing_is_called_valid_before_it_was_checked(page, console):
    held = []
    page.route("**/api/check", lambda route: held.append(route))
    sign_in(page, "editor")
    page.goto(f"{console}#/new")
    page.get_by_text("Checking.").wait_for()
    assert page.get_by_text("No validation issues").count() == 0
    while not held:
        page.wait_for_timeout(50)
    held[0].continue_()
    page.get_by_role("list").get_by_text("IST0101").wait_for()


def test_a_pause_keeps_the_graph_and_no_answer_to_another_question(page, console):
    page.goto(f"{console}#/graph?namespaces=default")
    page.get_by_text("As a table").click()
    page.locator('#nodes tr[data-node="app/default/reviews/v1"]').wait_for()
    page.get_by_role("button", name="Pause").click()
    page.get_by_label("Graph type").select_option("workload")
    page.locator('#nodes tr[data-node="workload/default/reviews-v1"]').wait_for()
    assert page.locator('#nodes tr[data-node^="app/"]').count() == 0
    page.get_by_role("button", name="Replay").click()
    page.locator("[data-at]").wait_for()


def test_the_pods_of_a_workload_are_its_own(page, console):
    page.goto(f"{console}#/graph?namespaces=default&kind=workload")
    page.get_by_text("As a table").click()
    page.locator('#nodes tr[data-node="workload/default/reviews-v1"] button').click()
    panel = page.get_by_role("complementary", name="Details")
    panel.get_by_role("button", name="Log").first.wait_for()
    assert panel.get_by_role("button", name="Log").count() == 1


def test_a_wizard_begins_with_what_is_set_now(page, console):
    page.goto(f"{console}#/services/default/reviews?tab=Actions")
    page.get_by_label("Share of v1").wait_for()
    assert [page.get_by_label(f"Share of {v}").input_value() for v in ("v1", "v2", "v3")] == ["34", "33", "33"]
    page.get_by_role("combobox", name="Action", exact=True).select_option("limits")
    assert page.get_by_label("Timeout", exact=True).input_value() == "3s"
    assert page.get_by_role("spinbutton", name="Retries").input_value() == ""


def listed(name, worst="", findings=0):
    kept = {"ports": ["80/HTTP"], "workloads": 0, "config": 0, "host": name, "origin": "ServiceEntry"}
    return {"namespace": "default", "name": name, "worst": worst, "findings": findings, **kept}


def test_rows_of_the_same_name_are_all_shown_and_findings_are_sorted_by_severity(page, console):
    rows = [listed("a"), listed("b", "Info"), listed("b", "Error"), listed("c", "Warning")]
    page.route("**/api/services?*", lambda route: route.fulfill(status=200, body=json.dumps(rows)))
    page.route("**/api/services", lambda route: route.fulfill(status=200, body=json.dumps(rows)))
    page.goto(f"{console}#/services")
    table = page.get_by_role("table", name="services")
    table.get_by_text("Error", exact=True).wait_for()
    assert table.locator("tbody tr").count() == len(rows)
    table.get_by_role("button", name="Findings").click()
    shown = [row.split("\t")[0] for row in table.locator("tbody tr").all_inner_texts()]
    assert shown == ["b", "c", "b", "a"], "the most severe first"


def test_back_leads_out_of_a_replay_that_has_played(page, console):
    page.goto(f"{console}#/graph?namespaces=default")
    page.get_by_role("button", name="Replay").click()
    page.get_by_role("button", name="Play", exact=True).click()
    before = page.locator("[data-at]").get_attribute("data-at")
    page.wait_for_function("was => document.querySelector('[data-at]').dataset.at > +was + 5", arg=before)
    page.get_by_role("button", name="Stop playing").click()
    page.go_back()
    page.get_by_role("button", name="Pause").wait_for()
    assert "at=" not in page.url


def test_an_answer_is_waited_for_before_the_next_is_asked_for(page, console):
    held = []
    page.route("**/api/workloads*", lambda route: held.append(route))
    page.goto(f"{console}#/workloads")
    page.wait_for_timeout(7000)
    assert len(held) == 1
    held[0].continue_()
    page.get_by_role("table", name="workloads").get_by_text("reviews-v2").wait_for()


def test_help_that_could_not_be_loaded_is_asked_for_again(page, console):
    page.expected = "a status of 502"
    page.route("**/api/schemas/VirtualService", lambda route: route.fulfill(status=502, body="later"), times=1)
    page.goto(f"{console}#/new")
    yaml = page.get_by_label("YAML")
    yaml.fill("kind: VirtualService\nspec:\n  http:\n  - retries:\n      attempts: 2\n")
    yaml.press("ArrowUp")
    page.evaluate("location.hash = '#/config'")
    page.get_by_role("table", name="configuration").wait_for()
    page.evaluate("location.hash = '#/new'")
    yaml.fill("kind: VirtualService\nspec:\n  http:\n  - retries:\n      attempts: 2\n")
    yaml.press("ArrowUp")
    page.get_by_role("complementary", name="Help for the field at the cursor").get_by_text(
        "number of retries"
    ).wait_for()


def drawn(*workloads):
    """A graph in which each of these calls the next one."""
    numbers = dict.fromkeys(("bytesRate", "connections", "errorRate", "now", "nowErrors"), 0)
    numbers |= dict.fromkeys(("rate", "requests", "rateIn", "rateOut", "mtls", "p50", "p95", "p99"), 1)
    ids = {w: f"workload/default/{w}" for w in workloads}
    nodes = [{"id": i, "kind": "workload", "name": w, "namespace": "default", **numbers} for w, i in ids.items()]
    between = {"protocol": "http", "codes": {}, "flags": {}, **numbers}
    edges = [{"id": a + b, "source": ids[a], "target": ids[b], **between} for a, b in itertools.pairwise(workloads)]
    return {"nodes": nodes, "edges": edges, "boxes": [], "at": 0, "proxies": 1, "failures": {}}


def test_what_was_not_seen_for_long_leaves_the_graph(page, console):
    """A page may be open for days."""
    graphs = [drawn("a", "b", "gone")]

    def stream(route):
        body = f"retry: 100\ndata: {json.dumps(graphs[-1])}\n\n"
        route.fulfill(status=200, content_type="text/event-stream", body=body)

    page.clock.install()
    page.expected = "ERR_"
    page.route("**/graph/stream*", stream)
    page.goto(f"{console}#/graph?kind=workload")
    there = "name => (document.querySelector('.canvas')?.dataset.places ?? '').includes(`/${name} `)"
    page.wait_for_function(there, arg="gone")
    graphs.append(drawn("a", "b"))
    page.clock.run_for(60_000)
    page.wait_for_timeout(500)
    assert page.evaluate(there, "gone"), "nothing jumps while it is idle for a while"
    page.clock.run_for(1_000_000)
    page.wait_for_function(f"!({there})('gone')")
    assert page.evaluate(there, "a")


TURN = """hidden => {
    Object.defineProperty(document, 'hidden', {value: hidden, configurable: true})
    document.dispatchEvent(new Event('visibilitychange'))
}"""


def test_a_page_in_the_background_has_no_connection_and_asks_for_nothing(page, console):
    """A browser opens six connections to a server: the seventh graph would wait for ever."""
    page.goto(f"{console}#/graph?namespaces=default")
    page.locator(".count", has_text="proxies").wait_for()
    asked, ended = [], []
    page.on("request", lambda r: asked.append(r.url))
    page.on("requestfailed", lambda r: ended.append(r.url))
    page.evaluate(TURN, True)
    page.wait_for_timeout(4000)
    assert [url for url in ended if "graph/stream" in url]
    assert asked == []
    with page.expect_request("**/graph/stream*"), page.expect_request("**/badges"):
        page.evaluate(TURN, False)


def test_a_page_that_is_opened_in_the_background_shows_what_its_address_says(page, console):
    """Once, and again when the address changes; in between it asks for nothing."""
    page.add_init_script("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    page.goto(f"{console}#/services/default/reviews")
    page.get_by_text("reviews.default.svc.cluster.local").first.wait_for()
    page.evaluate("location.hash = '#/services/default/ratings'")
    page.get_by_text("ratings.default.svc.cluster.local").first.wait_for()


EXTENT = """axis => {
    const all = document.querySelector('.canvas').dataset.places.split('; ').map(p => +p.split(' ').at(axis))
    return Math.max(...all) - Math.min(...all)
}"""


def test_the_graph_turns_with_the_phone(page, console):
    page.goto(f"{console}#/graph?namespaces=default")
    page.wait_for_function("+document.querySelector('.canvas').dataset.labels > 15")
    assert page.evaluate(EXTENT, -2) > page.evaluate(EXTENT, -1), "from left to right"
    page.set_viewport_size({"width": 375, "height": 740})
    page.wait_for_function(f"({EXTENT})(-1) > 1.5 * ({EXTENT})(-2)")
    page.set_viewport_size({"width": 1280, "height": 740})
    page.wait_for_function(f"({EXTENT})(-2) > ({EXTENT})(-1)")


def test_a_chart_takes_the_colours_of_the_theme_that_is_chosen_at_once(page, console):
    page.goto(f"{console}#/boards/mesh")
    page.get_by_role("figure").first.get_by_role("table").wait_for()
    page.route("**/v1/query_range?*", lambda _: None)  # no newer lines come
    page.wait_for_timeout(500)
    grid = """() => {
        const [r, g, b] = getComputedStyle(document.querySelector('figure')).borderTopColor.match(/\\d+/g)
        const canvas = document.querySelector('figure canvas')
        const seen = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data
        for (let i = 0; i < seen.length; i += 4)
            if (seen[i] === +r && seen[i + 1] === +g && seen[i + 2] === +b && seen[i + 3] === 255) return true
        return false
    }"""
    for theme in ("dark", "light"):
        page.get_by_label("Colours").select_option(theme)
        page.wait_for_function(grid, timeout=5000)


SLOW = """() => {
    const fill = CanvasRenderingContext2D.prototype.fillText
    CanvasRenderingContext2D.prototype.fillText = function (...given) {
        for (const until = performance.now() + 4; performance.now() < until;);
        return fill.apply(this, given)
    }
}"""
"""What a graph of hundreds of nodes takes."""
PLACED = """() => {
    const [, canvas] = document.querySelectorAll('.canvas > canvas')
    const seen = canvas.getBoundingClientRect(), stage = document.querySelector('.canvas').getBoundingClientRect()
    return [seen.width / stage.width, seen.left + seen.width / 2 - stage.left - stage.width / 2]
}"""


def test_labels_stay_at_their_nodes_while_a_large_graph_is_zoomed(page, console):
    """Until they are drawn anew, their picture moves along."""
    page.goto(f"{console}#/graph?namespaces=default")
    page.wait_for_function("+document.querySelector('.canvas').dataset.labels > 15")
    page.evaluate(SLOW)
    page.wait_for_timeout(2500)
    for _ in range(2):
        page.get_by_role("button", name="Zoom in").click()
    scale, aside = page.wait_for_function(
        f"(() => {{ const at = ({PLACED})(); return at[0] > 1.2 && at }})()"
    ).json_value()
    assert scale == pytest.approx(1.3**2, rel=0.25)
    assert abs(aside) < 3, "the middle stays in the middle"


def test_nobody_is_locked_out_because_the_collector_does_not_answer(page, console):
    """It tells who has called; without it the form had nobody to choose, and offered to refuse everybody."""
    page.expected = "a status of 502"
    held = []
    page.route("**/api/workloads", lambda route: held.append(route))
    page.route("**/api/graph?*", lambda route: route.fulfill(status=502, body="the collector does not answer"))
    page.goto(f"{console}#/services/default/ratings?tab=Actions")
    page.get_by_role("combobox", name="Action", exact=True).select_option("callers")
    page.get_by_text("Loading.").wait_for()
    assert page.get_by_role("button", name="Show the YAML").is_disabled()
    assert page.get_by_text("Nobody is chosen").count() == 0
    while not held:
        page.wait_for_timeout(50)
    held[0].continue_()
    page.get_by_text("is not known: the collector does not answer").wait_for()
    page.get_by_label("default/reviews-v2").check()
    page.get_by_role("button", name="Show the YAML").click()
    page.get_by_label("YAML").wait_for()
    assert "sa/bookinfo-reviews" in page.get_by_label("YAML").input_value()


@pytest.mark.parametrize(("trace", "old"), [("ab" * 16, True), ("zz", False)])
def test_a_trace_that_is_not_there_may_be_too_old_and_others_are_no_traces(page, console, trace, old):
    page.expected = "a status of 40"
    page.goto(f"{console}#/traces/{trace}")
    page.get_by_role("alert").get_by_text("not found" if old else "is not a trace id").wait_for()
    assert page.get_by_text("It may be older than what is kept").count() == old


def test_what_is_selected_in_the_graph_is_in_the_address_and_no_step_to_go_back_to(page, console):
    page.goto(f"{console}#/")
    page.get_by_role("link", name="Graph").first.click()
    page.get_by_text("As a table").click()
    page.locator('#nodes tr[data-node="service/default/reviews"] button').click()
    panel = page.get_by_role("complementary", name="Details")
    panel.get_by_role("heading", name="reviews service").wait_for()
    shared = page.url
    page.get_by_label("Edge labels").select_option("errors")
    panel.get_by_role("heading", name="reviews service").wait_for()
    page.go_back()
    page.go_back()
    page.get_by_role("heading", name="Namespaces").wait_for()
    page.goto("about:blank")
    page.goto(shared)
    panel.get_by_role("heading", name="reviews service").wait_for()
    page.get_by_label("Graph type").select_option("workload")
    panel.wait_for(state="detached")
    assert "selected" not in page.url
    page.go_back()
    panel.get_by_role("heading", name="reviews service").wait_for()
    panel.get_by_role("button", name="Close").click()
    panel.wait_for(state="detached")
    assert "selected" not in page.url
    page.goto(f"{console}#/graph")
    page.get_by_text("As a table").click()
    page.locator('#nodes tr[data-node="service/default/reviews"] button').click()
    panel.get_by_role("heading", name="reviews service").wait_for()
    page.get_by_role("link", name="Graph").first.click()
    panel.wait_for(state="detached")
