"""The console's page in a real browser over a made-up Bookinfo (tools/stage.py)."""

import json
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest
from world import ROOT, free_port

CHROMIUM = shutil.which("chromium")
AXE = ROOT / "console" / "node_modules" / "axe-core" / "axe.min.js"
needs_a_browser = [
    pytest.mark.system,
    pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium (apt-get install chromium)"),
    pytest.mark.skipif(not AXE.is_file(), reason="needs the page's packages (make console)"),
]


@pytest.fixture(scope="module")
def console():
    command = [sys.executable, str(ROOT / "tools" / "stage.py"), str(free_port())]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield running.stdout.readline().split()[0]
    running.terminate()
    running.wait(10)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser):
    wrong = []
    found = browser.new_page(viewport={"width": 1280, "height": 850}, bypass_csp=True)
    found.set_default_timeout(30000)
    found.expected = ""  # in what Chromium calls an error and a test has provoked

    def said(message):
        provoked = found.expected and found.expected in message.text
        if message.type in ("error", "warning") and not provoked:
            wrong.append(message.text)

    found.on("console", said)
    found.on("pageerror", lambda e: wrong.append(str(e)))
    yield found
    found.close()
    assert wrong == [], wrong


def sign_in(page, token):
    page.add_init_script(f"sessionStorage.setItem('lateen-token', '{token}')")


def traces(console):
    query = urllib.parse.urlencode({"service": "productpage.default", "limit": "2"})
    with urllib.request.urlopen(f"{console}/api/tracing/traces?{query}", timeout=10) as answer:
        return [t["traceID"] for t in json.load(answer)["data"]]


PAGES = {
    "overview": ("", "3 of 4 healthy"),
    "graph": ("#/graph?namespaces=default", "proxies"),
    "replay": ("#/graph?namespaces=default&at=AT", "Back to live"),
    "applications": ("#/applications", "reviews-v3"),
    "application": ("#/applications/default/reviews", "Configuration that applies to it"),
    "workloads": ("#/workloads", "reviews-v3"),
    "services": ("#/services", "istio-ingressgateway"),
    "configuration": ("#/config", "PeerAuthentication"),
    "workload": ("#/workloads/default/reviews-v2", "Configuration that applies to it"),
    "traffic": ("#/workloads/default/reviews-v2?tab=Traffic", "Inbound"),
    "metrics": ("#/workloads/default/reviews-v2?tab=Metrics", "Outbound durations"),
    "logs": ("#/workloads/default/reviews-v2?tab=Logs", "Pod"),
    "envoy": ("#/workloads/default/reviews-v2?tab=Envoy", "InboundPassthroughCluster"),
    "service": ("#/services/default/reviews", "reviews.default.svc.cluster.local"),
    "actions": ("#/services/default/reviews?tab=Actions", "Shift traffic"),
    "object": ("#/config/VirtualService/default/ratings", "IST0101"),
    "new": ("#/new", "Dry run"),
    "mutual TLS": ("#/mutual-tls/default", "No calls in plaintext"),
    "traces": ("#/traces?service=productpage.default", "Statistics of"),
    "trace": ("#/traces/TRACE", "GET /productpage"),
    "comparison": ("#/traces/compare/TRACE/OTHER", "Exchange A and B"),
    "dashboard": ("#/boards/mesh", "Requests"),
    "unknown": ("#/nonsense", "There is no page"),
}
AUDIT = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations
    .filter(v => ['serious', 'critical'].includes(v.impact))
    .map(v => `${v.id}: ${v.nodes.map(n => n.html.slice(0, 200)).join('; ')}`)"""


def opened(page, console, name):
    """Show one of the pages, as somebody who may change the mesh."""
    sign_in(page, "editor")
    path, text = PAGES[name]
    first, second = traces(console)
    path = path.replace("TRACE", first).replace("OTHER", second).replace("AT", str(int(time.time()) - 120))
    page.goto(console + path)
    page.locator("main").get_by_text(text).first.wait_for(state="attached")
