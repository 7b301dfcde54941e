"""Take the console's pictures for README and docs: the built page over tools/stage.py. python tools/pictures.py [NAME]

Needs Debian's chromium (tools/browser.sh) and the built page (make console).
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import stage
from playwright.async_api import async_playwright

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

TARGET = Path(__file__).parents[1] / "docs" / "images"
MOST = 200_000
"""Bytes of one picture."""
PICTURES = {  # name -> (address, theme, width, height)
    "overview": ("", "light", 1180, 520),
    "graph": ("#/graph?namespaces=default", "light", 1240, 640),
    "graph-dark": ("#/graph?namespaces=default&labels=p95&find=%25error+%3E+5", "dark", 1240, 640),
    "replay": ("#/graph?namespaces=default&at=AT", "light", 1240, 640),
    "phone": ("#/graph?namespaces=default", "light", 375, 800),
    "workload": ("#/workloads/default/reviews-v2?tab=Metrics", "light", 1180, 820),
    "envoy": ("#/workloads/default/reviews-v2?tab=Envoy", "light", 1180, 640),
    "editor": ("#/config/VirtualService/default/ratings", "light", 1180, 760),
    "effect": ("#/services/default/reviews?tab=Actions", "light", 1180, 900),
    "traces": ("#/traces?service=productpage.default", "light", 1180, 700),
    "comparison": ("#/traces", "dark", 1180, 420),
    "dashboard": ("#/boards/service", "dark", 1180, 820),
}


async def _prepare(page: Page, name: str) -> None:
    """What is to be clicked before the picture is taken."""
    if name == "editor":
        yaml = page.get_by_label("YAML")
        await yaml.click(position={"x": 60, "y": 210})
    elif name == "effect":
        await page.get_by_label("Action").last.select_option("fault")
        await page.get_by_role("button", name="Show the YAML").click()
        await page.get_by_role("button", name="Effect on the proxies").click()
        await page.locator("summary").first.click()
        await page.get_by_role("region", name="Effect on the proxies").scroll_into_view_if_needed()
    elif name == "comparison":
        await page.get_by_label("Service").select_option("productpage.default")
        for i in (0, 1):
            await page.get_by_role("checkbox", name="Compare").nth(i).check()
        await page.get_by_role("link", name="Compare both traces").click()


async def _take(browser: Browser, url: str, name: str) -> None:
    path, theme, width, height = PICTURES[name]
    scheme = "dark" if theme == "dark" else "light"
    page = await browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    await page.add_init_script(f"sessionStorage.setItem('lateen-token', '{stage.EDITOR}')")
    await page.goto(url + path.replace("AT", str(int(time.time()) - 240)))
    await page.locator("h1").first.wait_for()
    await page.wait_for_timeout(3000)
    await _prepare(page, name)
    await page.wait_for_timeout(2500)
    target = TARGET / f"{name}.png"
    await page.screenshot(path=target)
    await page.close()
    size = target.stat().st_size
    print(target, size)
    if size > MOST:
        sys.exit(f"{target} has {size} bytes; at most {MOST} are wanted")


async def main() -> None:
    TARGET.mkdir(exist_ok=True)
    async with stage.stage() as url, async_playwright() as p:
        browser = await p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name in sys.argv[1:] or PICTURES:
            await _take(browser, url, name)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
