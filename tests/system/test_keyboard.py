"""The console by keyboard alone, without motion, and enlarged to 200 %: every page, in a real browser."""

import itertools

import pytest
from staged import AUDIT, AXE, PAGES, browser, console, needs_a_browser, opened, page  # noqa: F401 - fixtures

pytestmark = needs_a_browser

MOST_STOPS = 250
FOCUSED = """() => {
    const e = document.activeElement
    if (e === document.body || e === document.documentElement) return null
    if (!e.dataset.stop) e.dataset.stop = String((window.stops = (window.stops ?? 0) + 1))
    const style = getComputedStyle(e)
    const { width, height, top, bottom, left, right } = e.getBoundingClientRect()
    const inSight = bottom > 0 && top < innerHeight && right > 0 && left < innerWidth
    const shown = parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== 'none'
    const what = e.outerHTML.slice(0, 120)
    return { stop: e.dataset.stop, what, seen: width > 0 && height > 0 && inSight, ring: shown }
}"""
"""What has the focus, whether it is in sight, and whether a ring shows it."""
MISSED = """() => [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')]
    .filter(e => !e.dataset.stop && !e.disabled && e.tabIndex >= 0 && e.checkVisibility({visibilityProperty: true}))
    .filter(e => !(e.type === 'radio'))
    .map(e => e.outerHTML.slice(0, 120))"""
"""What can be used, and was not reached."""
MOVING = """() => {
    const long = (text) => text.split(',').some((t) => parseFloat(t) > 0)
    return [...document.querySelectorAll('*')].filter((e) => ['', '::before', '::after'].some((part) => {
        const s = getComputedStyle(e, part || undefined)
        const moves = (s.animationName !== 'none' && long(s.animationDuration)) || long(s.transitionDuration)
        return moves || s.scrollBehavior === 'smooth'
    })).map((e) => e.outerHTML.slice(0, 120)).concat(document.getAnimations().map(String))
}"""


@pytest.fixture
def still(page):
    """A browser of somebody who wants no motion."""
    page.emulate_media(reduced_motion="reduce")
    return page


@pytest.mark.parametrize("name", PAGES)
def test_everything_on_a_page_is_reached_by_the_tab_key_in_order_and_nothing_moves(name, still, console):
    opened(still, console, name)
    still.wait_for_timeout(300)
    assert still.evaluate(MOVING) == []
    stops = []
    for _ in range(MOST_STOPS):
        still.keyboard.press("Tab")
        found = still.evaluate(FOCUSED)
        if found is None or (stops and found["stop"] == stops[0]["stop"]):
            break
        if stops and found["stop"] == stops[-1]["stop"]:  # a field in which Tab writes
            still.keyboard.press("Escape")
            continue
        stops.append(found)
    else:
        pytest.fail(f"the focus does not leave the page: {stops[-3:]}")
    assert [s["what"] for s in stops if not s["seen"]] == []
    assert [s["what"] for s in stops if not s["ring"]] == []
    assert len({s["stop"] for s in stops}) == len(stops), "the focus goes in circles"
    assert still.evaluate(MISSED) == []
    still.evaluate(AXE.read_text())
    assert still.evaluate(AUDIT) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_enlarged_to_twice_its_size_needs_no_scrolling_sideways(name, still, console):
    """1280 pixels of a screen are 640 of the page then."""
    still.set_viewport_size({"width": 640, "height": 425})
    opened(still, console, name)
    still.wait_for_function(
        "document.documentElement.scrollWidth <= 640 && document.querySelector('main').scrollWidth <= 640"
    )


def focused(page, what):
    """Wait until what has the focus matches a selector."""
    page.wait_for_function("what => document.activeElement.matches(what)", arg=what)


def tab_to(page, what):
    for _ in range(MOST_STOPS):
        page.keyboard.press("Tab")
        if page.evaluate("what => document.activeElement.matches(what)", what):
            return
    pytest.fail(f"no {what} is reached")


GRAPH = '[aria-roledescription="graph"]'


def test_the_navigation_can_be_skipped(still, console):
    opened(still, console, "applications")
    still.keyboard.press("Tab")
    focused(still, "button.skip")
    still.keyboard.press("Enter")
    focused(still, "main")
    still.keyboard.press("Tab")
    assert still.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_a_page_that_a_link_leads_to_begins_with_its_content_and_names_the_window(still, console):
    opened(still, console, "applications")
    assert still.title() == "Applications · Lateen"
    tab_to(still, 'a[href="#/applications/default/reviews"]')
    still.keyboard.press("Enter")
    focused(still, "main")
    assert still.title() == "reviews · default · Applications · Lateen"


def test_nodes_of_the_graph_are_gone_through_and_opened_and_the_focus_returns(still, console):
    opened(still, console, "graph")
    still.wait_for_function("+document.querySelector('.canvas').dataset.labels > 15")
    assert not still.get_by_label("Animation").is_checked(), "the browser asks for no motion"
    tab_to(still, GRAPH)
    seen = [still.locator(GRAPH).get_attribute("data-pointed")]
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown"):
        still.keyboard.press(key)
        seen.append(still.locator(GRAPH).get_attribute("data-pointed"))
    assert len(set(seen)) == 5, seen
    assert "ingressgateway" in seen[0]
    told = still.get_by_role("status").filter(has_text="rps")
    told.first.wait_for(state="attached")
    still.keyboard.press("Tab")
    told.first.wait_for(state="detached")
    still.keyboard.press("Shift+Tab")
    told.first.wait_for(state="attached")
    still.keyboard.press("Enter")
    focused(still, 'aside [aria-label="Close"]')
    still.keyboard.press("Escape")
    focused(still, GRAPH)
    assert still.get_by_role("complementary", name="Details").count() == 0


def test_the_graph_is_zoomed_by_keys_which_leaves_names_out_and_brings_them_back(still, console):
    opened(still, console, "graph")
    still.wait_for_function("+document.querySelector('.canvas').dataset.labels > 15")
    tab_to(still, GRAPH)
    for _ in range(12):
        still.keyboard.press("-")
    still.wait_for_function("+document.querySelector('.canvas').dataset.labels < 10")
    still.keyboard.press("ArrowRight")
    assert int(still.locator(".canvas").get_attribute("data-labels")) > 0
    still.keyboard.press("0")
    still.wait_for_function("+document.querySelector('.canvas').dataset.labels > 15")


def test_what_a_click_on_the_graph_has_opened_closes_by_escape_too(still, console):
    opened(still, console, "graph")
    still.wait_for_function("+document.querySelector('.canvas').dataset.labels > 15")
    box, details = still.locator(".canvas").bounding_box(), still.get_by_role("complementary", name="Details")
    places = itertools.product(range(20, int(box["height"]), 25), range(20, int(box["width"]) - 400, 25))
    for y, x in places:
        still.mouse.click(box["x"] + x, box["y"] + y)
        if details.count():
            break
    assert still.evaluate("document.activeElement === document.body"), "nothing has the focus"
    still.keyboard.press("Escape")
    details.wait_for(state="detached")


def test_the_log_of_a_pod_closes_by_the_keyboard_and_the_focus_returns(still, console):
    opened(still, console, "graph")
    still.get_by_text("As a table").focus()
    still.keyboard.press("Enter")
    tab_to(still, "#nodes button.link")
    still.keyboard.press("Enter")
    focused(still, 'aside [aria-label="Close"]')
    still.get_by_role("button", name="Log").first.focus()
    still.keyboard.press("Enter")
    still.locator("pre[data-log]").wait_for()
    tab_to(still, "[aria-label='Close the log']")
    still.keyboard.press("Escape")
    focused(still, "aside li button")


def test_the_tables_beside_the_graph_and_lists_are_sorted_by_their_heads(still, console):
    opened(still, console, "graph")
    still.get_by_text("As a table").focus()
    still.keyboard.press("Enter")
    heads = still.locator("#edges th")
    traffic = heads.filter(has_text="Traffic")
    traffic.get_by_role("button").focus()
    still.keyboard.press("Enter")
    assert traffic.get_attribute("aria-sort") == "descending"
    still.keyboard.press("Space")
    assert traffic.get_attribute("aria-sort") == "ascending"
    opened(still, console, "traces")
    still.goto(f"{console}#/traces?service=productpage.default")
    duration = still.get_by_role("columnheader", name="Duration")
    duration.get_by_role("button").focus()
    still.keyboard.press("Enter")
    bars = still.locator("[data-trace] .length span")
    lengths = bars.evaluate_all("all => all.map(e => parseFloat(e.style.width))")
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == 100


def test_a_menu_closes_by_escape_and_gives_the_focus_back(still, console):
    opened(still, console, "graph")
    tab_to(still, "summary[aria-label^='Namespaces']")
    still.keyboard.press("Enter")
    still.keyboard.press("Tab")
    focused(still, "fieldset input")
    still.keyboard.press("Escape")
    focused(still, "summary[aria-label^='Namespaces']")
    assert not still.locator("fieldset").is_visible()


def test_the_past_is_chosen_by_keys_and_left_by_escape(still, console):
    opened(still, console, "graph")
    still.get_by_role("button", name="Replay").focus()
    still.keyboard.press("Enter")
    focused(still, "[aria-label='Play']")
    at = int(still.locator("[data-at]").get_attribute("data-at"))
    tab_to(still, "input[type='range']")
    still.keyboard.press("ArrowLeft")
    still.wait_for_function("was => document.querySelector('[data-at]').dataset.at === String(was - 1)", arg=at)
    still.keyboard.press("Escape")
    focused(still, ".more button[aria-pressed='false']")


def test_a_chart_tells_the_values_of_each_time(still, console):
    opened(still, console, "dashboard")
    chart = still.get_by_role("slider", name="Requests:")  # others may be there before it
    chart.locator("canvas").wait_for()
    chart.focus()
    assert chart.get_attribute("aria-valuetext").startswith("latest: ")
    still.keyboard.press("Home")
    first = chart.get_attribute("aria-valuetext")
    still.keyboard.press("ArrowRight")
    assert chart.get_attribute("aria-valuetext") != first
    assert not first.startswith("latest")
    still.keyboard.press("Escape")
    assert chart.get_attribute("aria-valuetext").startswith("latest: ")


POINTED = """() => {
    const line = document.querySelector('[role=slider] .u-cursor-x')
    const at = line && new DOMMatrix(getComputedStyle(line).transform).e > 0
    return at && !document.querySelector('[role=slider]').ariaValueText.startsWith('latest')
}"""
"""Whether the first chart has a line at a time, and tells that time's values."""


def test_a_chart_that_is_drawn_anew_keeps_the_time_that_the_pointer_is_at(still, console):
    opened(still, console, "dashboard")
    chart = still.get_by_role("slider").first
    chart.locator("canvas").wait_for()
    chart.hover(position={"x": chart.bounding_box()["width"] * 0.8, "y": 60})
    still.wait_for_function(POINTED)
    still.evaluate("document.querySelector('[role=slider] canvas').dataset.old = 1")
    still.set_viewport_size({**still.viewport_size, "width": still.viewport_size["width"] - 8})
    still.wait_for_function("!document.querySelector('[role=slider] canvas').dataset.old")
    still.wait_for_function(POINTED)


def test_an_object_is_written_and_a_wizard_filled_in_by_keys(still, console):
    opened(still, console, "new")
    yaml = still.get_by_label("YAML")
    yaml.focus()
    before = yaml.input_value()
    still.keyboard.press("Tab")
    assert len(yaml.input_value()) == len(before) + 2, "Tab indents"
    still.keyboard.press("Escape")
    still.keyboard.press("Tab")
    assert still.evaluate("document.activeElement.matches('main button, main a, main input')")
    opened(still, console, "actions")
    tab_to(still, "form select")
    still.keyboard.press("ArrowDown")
    tab_to(still, "form input")
    still.keyboard.press("Control+A")
    still.keyboard.type("7s")
    still.keyboard.press("Enter")
    still.get_by_label("YAML").wait_for()
    assert "timeout: 7s" in still.get_by_label("YAML").input_value()


def test_tabs_are_gone_through_by_arrow_keys(still, console):
    opened(still, console, "workload")
    tab_to(still, "[role='tab']")
    still.keyboard.press("ArrowRight")
    focused(still, "[role='tab'][aria-selected='true']")
    assert "tab=Traffic" in still.url
