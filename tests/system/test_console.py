"""The console in a real browser: the article's pictures, with real traffic."""

import re
import shutil
import signal
import subprocess
import sys

import pytest
from world import ROOT, free_port

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def console(mesh):
    """The address of ``lateen dashboard kiali``."""
    mesh.kubectl("apply", "-f", str(ROOT / "samples" / "addons"))
    for name in ("prometheus", "kiali", "jaeger"):
        mesh.kubectl("rollout", "status", f"deployment/{name}", "-n", "istio-system", "--timeout=60s")
    command = [sys.executable, "-m", "lateen", "dashboard", "kiali", "--port", "0", "--browser=false"]
    command[command.index("0")] = str(free_port())
    forward = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=mesh.environment)
    yield forward.stdout.readline().strip()
    forward.send_signal(signal.SIGINT)
    assert forward.wait(10) == 0
    mesh.kubectl("delete", "-f", str(ROOT / "samples" / "addons"))


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, console):
    wrong = []
    found = browser.new_page(viewport={"width": 1400, "height": 850})
    found.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    found.on("pageerror", lambda e: wrong.append(str(e)))
    yield found
    found.close()
    assert wrong == []


def edge(page, source, target):
    return page.locator(f'#edges tr[data-from="{source}"][data-to="{target}"]')


INGRESS = "app/istio-system/istio-ingressgateway/"
PRODUCTPAGE = "app/default/productpage/v1"


def test_the_overview_has_the_namespaces_with_their_health(page, console):
    assert console.endswith("/kiali")
    page.goto(console)
    card = page.locator('article[data-namespace="default"]')
    card.wait_for(timeout=5000)
    assert "4 of 4 healthy" in card.inner_text()
    assert "6 of 6 pods" in card.inner_text()
    card.get_by_role("link", name="Graph").click()
    page.locator(".canvas canvas").first.wait_for(timeout=5000)
    assert "namespaces=default" in page.url


def test_a_request_is_in_the_graph_within_three_seconds(page, console, mesh):
    page.goto(f"{console}#/graph?namespaces=default&window=10")
    page.locator(".count", has_text="proxies").wait_for(timeout=10000)
    page.get_by_text("No traffic in this time range").wait_for(timeout=20000)
    assert mesh.page()[0] == 200
    edge(page, INGRESS, "service/default/productpage").wait_for(state="attached", timeout=3000)
    for source, target in (
        ("service/default/productpage", PRODUCTPAGE),
        (PRODUCTPAGE, "service/default/details"),
        (PRODUCTPAGE, "service/default/reviews"),
        ("service/default/details", "app/default/details/v1"),
    ):
        row = edge(page, source, target)
        row.wait_for(state="attached", timeout=3000)
    row = edge(page, PRODUCTPAGE, "service/default/details")
    assert "http" in row.text_content()
    mesh.until(lambda: "100 %" in row.locator("td").last.text_content(), what="mutual TLS, reported by the server")


def test_a_call_from_inside_has_no_edge_from_the_gateway(page, console, mesh):
    page.goto(f"{console}#/graph?namespaces=default&window=10")
    page.get_by_text("No traffic in this time range").wait_for(timeout=20000)
    mesh.inside("ratings", "curl", "-s", "productpage:9080/productpage")
    edge(page, "app/default/ratings/v1", "service/default/productpage").wait_for(state="attached", timeout=3000)
    edge(page, PRODUCTPAGE, "service/default/reviews").wait_for(state="attached", timeout=3000)
    assert edge(page, INGRESS, "service/default/productpage").count() == 0


def test_the_side_panel_has_rates_codes_and_percentiles_and_the_log_is_live(page, console, mesh):
    page.goto(f"{console}#/graph?namespaces=default&window=60")
    assert mesh.page()[0] == 200
    row = edge(page, "service/default/productpage", PRODUCTPAGE)
    row.wait_for(state="attached", timeout=5000)
    page.get_by_text("As a table").click()
    row.get_by_role("button").click()
    panel = page.get_by_role("complementary", name="Details")
    panel.get_by_text("p99").wait_for(timeout=3000)
    assert panel.get_by_role("cell", name="200").count() == 1
    assert "rps" in panel.inner_text()
    panel.get_by_role("button", name="productpage v1").click()
    panel.get_by_role("button", name="Log").click(timeout=5000)
    log = page.locator("pre[data-log]")
    mesh.until(lambda: "outbound|9080||details" in log.inner_text(), 10, "the log of the proxy")
    before = log.inner_text().count("/productpage")
    assert mesh.page()[0] == 200
    mesh.until(lambda: log.inner_text().count("/productpage") > before, 5, "a new line of the log")


def test_the_layout_of_the_graph_is_stable(page, console, mesh):
    """Positions do not change while only rates do."""
    page.goto(f"{console}#/graph?namespaces=default&window=60")
    for _ in range(12):
        mesh.page()
    edge(page, "service/default/ratings", "app/default/ratings/v1").wait_for(state="attached", timeout=5000)
    page.get_by_label("Animation").uncheck()
    page.wait_for_timeout(3500)
    places = "() => document.querySelector('[data-places]').dataset.places"
    before = page.evaluate(places)
    for _ in range(3):
        mesh.page()
        page.wait_for_timeout(700)
    assert before
    assert page.evaluate(places) == before


def test_the_product_page_opens_in_the_browser(browser, mesh):
    found = browser.new_page()
    found.goto(f"{mesh.ingress()}/productpage")
    assert found.title() == "Simple Bookstore App"
    found.get_by_text("Book Reviews").wait_for(timeout=3000)
    found.close()


def test_an_unknown_namespace_or_page_in_the_address_is_reported(page, console):
    page.goto(f"{console}#/graph?namespaces=nowhere")
    page.get_by_role("alert").filter(has_text="no namespace nowhere").wait_for(timeout=5000)
    page.goto(f"{console}#/nonsense")
    page.get_by_role("alert").filter(has_text="no page /nonsense").wait_for(timeout=5000)


def test_the_example_request_leads_to_the_gateway(page, console, mesh):
    page.goto(f"{console}#/graph?namespaces=default&window=10")
    page.get_by_text("No traffic in this time range").wait_for(timeout=20000)
    port = mesh.host_port(80)
    where = "localhost" if port == 80 else f"localhost:{port}"
    assert page.locator(".empty code").inner_text() == f"curl -s http://{where}/productpage"


def test_a_missing_control_plane_is_not_green(page, console, mesh):
    page.goto(console)
    plane = page.locator("[data-control-plane]")
    plane.get_by_text("healthy").wait_for(timeout=5000)
    try:
        mesh.kubectl("scale", "deployment/istiod", "-n", "istio-system", "--replicas=0")
        page.locator('[data-control-plane="down"]').wait_for(timeout=15000)
        assert "istiod is scaled to 0" in plane.inner_text()
        card = page.locator('article[data-namespace="istio-system"]')
        mesh.until(lambda: "istiod down" in card.inner_text(), 10, "the card of istio-system")
    finally:
        mesh.kubectl("scale", "deployment/istiod", "-n", "istio-system", "--replicas=1")
        mesh.kubectl("rollout", "status", "deployment/istiod", "-n", "istio-system", "--timeout=60s")


def test_table_log_and_graph_have_room_beside_each_other(page, console, mesh):
    page.goto(f"{console}#/graph?namespaces=default&window=60")
    assert mesh.page()[0] == 200
    row = edge(page, "service/default/productpage", PRODUCTPAGE)
    row.wait_for(state="attached", timeout=5000)
    page.get_by_text("As a table").click()
    row.get_by_role("button").click()
    panel = page.get_by_role("complementary", name="Details")
    panel.get_by_role("button", name="productpage v1").click()
    panel.get_by_role("button", name="Log").click(timeout=5000)
    for part, least in ((".stage", 240), ("pre[data-log]", 60), ("#edges", 60)):
        box = page.locator(part).bounding_box()
        assert box["height"] >= least, part


def test_the_graph_fits_on_a_phone(browser, console, mesh):
    page = browser.new_page(viewport={"width": 375, "height": 700})
    page.goto(f"{console}#/graph?namespaces=default&window=60")
    assert mesh.page()[0] == 200
    edge(page, "service/default/productpage", PRODUCTPAGE).wait_for(state="attached", timeout=5000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.locator(".stage").bounding_box()["height"] >= 300
    page.close()


def test_lists_lead_to_a_workload_with_what_holds_for_it(page, console, mesh):
    page.goto(f"{console}#/workloads?namespace=default")
    page.get_by_role("link", name="reviews-v2").click(timeout=5000)
    page.get_by_role("heading", name="reviews-v2").wait_for(timeout=3000)
    page.locator('a[href="#/services/default/reviews"]').first.click()  # its application has the same name
    page.get_by_role("row", name="reviews-v3").wait_for(timeout=3000)
    assert page.get_by_role("table", name="Workloads").get_by_role("row").count() == 4


def test_an_object_is_checked_while_it_is_written_and_applied_with_the_users_token(page, console, mesh):
    token = mesh.kubectl("-n", "istio-system", "create", "token", "kiali-editor").stdout.strip()
    page.goto(f"{console}#/new")
    text = RULE.replace("3s", "3 parsecs")
    page.get_by_label("YAML").fill(text)
    page.get_by_text("Sign in to see what is wrong with it").wait_for(timeout=5000)
    assert page.get_by_role("button", name="Apply", exact=True).is_disabled()
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("is not a duration").wait_for(timeout=5000)
    page.get_by_label("YAML").fill(RULE)
    page.get_by_text("No validation issues found").wait_for(timeout=5000)
    page.get_by_role("button", name="Dry run").click()
    page.get_by_text("nothing was written").wait_for(timeout=5000)
    assert mesh.kubectl("get", "virtualservice", "written", ok=False).returncode == 1
    page.get_by_role("button", name="Apply", exact=True).click()
    page.get_by_role("status").get_by_role("link", name="VirtualService default/written").click(timeout=5000)
    assert mesh.get("virtualservice", "written", "-o", "jsonpath={.spec.http[0].timeout}") == "3s"
    page.get_by_role("button", name="Delete").click(timeout=5000)
    page.get_by_role("button", name="Really delete it").click()
    page.get_by_role("heading", name="Configuration").wait_for(timeout=5000)
    assert mesh.kubectl("get", "virtualservice", "written", ok=False).returncode == 1


def test_a_wizard_changes_traffic_as_its_form_says(page, console, mesh):
    token = mesh.kubectl("-n", "istio-system", "create", "token", "kiali-editor").stdout.strip()
    ask = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "details:9080/details/0")
    assert mesh.inside("ratings", *ask).stdout == "200"
    page.goto(f"{console}#/services/default/details?tab=Actions")
    page.get_by_role("combobox", name="Action", exact=True).select_option("fault")
    page.get_by_label("Status").fill("555")
    page.get_by_label("Aborted").fill("100")
    page.get_by_role("button", name="Show the YAML").click()
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Apply", exact=True).click(timeout=5000)
    try:
        page.get_by_role("status").get_by_role("link", name="VirtualService default/details").wait_for(timeout=5000)
        mesh.until(lambda: mesh.inside("ratings", *ask).stdout == "555", 10, "the fault")
    finally:
        mesh.kubectl("delete", "virtualservice", "details", "--ignore-not-found")


def test_callers_in_plaintext_are_listed_before_mutual_tls_is_required(page, console, mesh):
    # What the proxy's own user sends is not captured: so it calls as a program without a sidecar does.
    ask = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "details:9080/details/0")
    rows = page.get_by_role("table", name="Callers in plaintext").get_by_role("row")

    def listed():
        assert mesh.inside("ratings", *ask, container="istio-proxy").stdout == "200"
        page.goto(f"{console}#/mutual-tls/default")
        page.reload()
        page.get_by_text(re.compile("No calls in plaintext|These callers")).wait_for(timeout=20000)
        return rows.filter(has_text="details").filter(has_text="pod ratings-v1").count()

    mesh.until(listed, 60, "the caller in plaintext")
    page.get_by_label("YAML").wait_for()
    assert "STRICT" in page.get_by_label("YAML").input_value()


def test_a_board_draws_its_lines_and_has_a_table(page, console, mesh):
    mesh.until(lambda: mesh.page()[0] == 200, 10, "a request")
    page.goto(f"{console}#/boards/service?service=productpage.default.svc.cluster.local")
    figure = page.get_by_role("figure").filter(has_text="Requests, by clients")
    figure.locator("canvas").wait_for(timeout=20000)
    assert "rps" in figure.get_by_role("table").inner_text()


RULE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: written
  namespace: default
spec:
  hosts: [ratings]
  http:
  - timeout: 3s
    route:
    - destination:
        host: ratings
"""


def test_a_trace_is_found_and_drawn_with_all_its_services(page, console, mesh):
    page.goto(f"{console}#/traces?service=productpage.default")
    found = page.locator("tr[data-trace]")

    def drawn():
        assert mesh.page()[0] == 200
        page.wait_for_timeout(500)
        return found.filter(has_text="istio-ingressgateway").count()

    mesh.until(drawn, 40, "a trace")
    found.filter(has_text="istio-ingressgateway").first.get_by_role("link").click()
    rows = page.locator("[data-span]")
    page.locator('[data-service="details.default"]').first.wait_for(timeout=10000)
    services = {r.get_attribute("data-service") for r in rows.all()}
    assert services >= {"istio-ingressgateway.istio-system", "productpage.default", "details.default"}
    rows.first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("complementary", name="Span").get_by_text("istio.canonical_service").wait_for(timeout=3000)
    many = rows.count()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("many => document.querySelectorAll('[data-span]').length < many", arg=many)


def test_a_trace_that_is_not_there_is_said_to_be_missing(browser, console):
    found = browser.new_page()
    found.goto(f"{console}#/traces/{'ab' * 16}")
    found.get_by_role("alert").filter(has_text="trace not found").wait_for(timeout=5000)
    found.close()
