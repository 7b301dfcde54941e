"""Take the picture of the console that README shows: the built page over console/fixtures. python tools/picture.py

Needs Debian's chromium (tools/browser.sh) and the built page (make console).
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "src" / "lateen" / "console" / "static"
FIXTURES = ROOT / "console" / "fixtures"
TARGET = ROOT / "docs" / "console.png"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json"}


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/kiali").strip("/") or "index.html"
        if path == "api/graph/stream":
            self._send("text/event-stream")
            graph = json.dumps(json.loads((FIXTURES / "graph.json").read_text()))
            self.wfile.write(f"data: {graph}\n\n".encode())
            time.sleep(20)  # an end of the stream would count as a failure
            return
        file = FIXTURES / f"{path.rpartition('/')[2]}.json" if path.startswith("api/") else STATIC / path
        self._send(TYPES[file.suffix])
        self.wfile.write(file.read_bytes())

    def _send(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1240, "height": 640})
        page.goto(f"http://127.0.0.1:{server.server_port}/kiali#/graph?namespaces=default")
        page.locator("#edges tr").first.wait_for(state="attached", timeout=10000)
        page.wait_for_timeout(2500)
        page.screenshot(path=TARGET)
        browser.close()
    print(TARGET)


if __name__ == "__main__":
    main()
