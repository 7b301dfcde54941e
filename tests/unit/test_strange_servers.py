"""A kubeconfig whose server is no Kubernetes API: each command says so in one sentence."""

import http.server
import threading

import pytest

from lateen.cli import main

COMMANDS = (
    ("analyze",),
    ("bug-report",),
    ("check",),
    ("create-remote-secret", "--name", "east"),
    ("dashboard", "kiali", "--browser=false"),
    ("install", "-y"),
    ("logs", "deploy/web"),
    ("proxy-config", "clusters", "web"),
    ("proxy-status",),
    ("remote-clusters",),
    ("tag", "list"),
    ("tag", "set", "prod", "--revision", "default"),
    ("uninstall", "--purge", "-y"),
    ("upgrade", "-y"),
    ("verify-install",),
    ("version",),
    ("admin", "log"),
    ("x", "authz", "check", "web"),
    ("x", "ca", "status"),
    ("x", "check-inject", "web"),
    ("x", "describe", "pod", "web"),
    ("x", "describe", "svc", "web"),
    ("x", "edges"),
    ("x", "envoy-stats", "web"),
    ("x", "injector", "list"),
    ("x", "internal-debug", "syncz"),
    ("x", "metrics", "web"),
    ("x", "precheck"),
    ("x", "stat"),
    ("x", "tap", "web"),
)
ANSWERS = {
    "HTML": (200, "text/html", b"<html><body>Please\nlog in</body></html>"),
    "another API": (200, "application/json", b'{"hello": "world"}'),
    "nothing": (200, "application/json", b""),
}


@pytest.fixture(scope="module", params=ANSWERS)
def kubeconfig(request, tmp_path_factory):
    status, content_type, body = ANSWERS[request.param]

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    for verb in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{verb}", Handler._answer)

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *args):
            """Clients that have read enough end the connection."""

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        path = tmp_path_factory.mktemp("strange") / "kubeconfig"
        path.write_text(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n"
            "contexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a, user: {}}]\n"
            f"clusters: [{{name: a, cluster: {{server: 'http://127.0.0.1:{server.server_port}'}}}}]\n"
        )
        yield path
        server.shutdown()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_is_no_kubernetes_api_is_told_in_one_sentence(command, kubeconfig, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["lateen", *command])
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATEEN_DEBUG", "")
    with pytest.raises(SystemExit) as ended:
        main.run()
    said = "".join(capsys.readouterr())
    assert "internal error" not in said
    assert "Traceback" not in said
    assert ended.value.code or command == ("version",), said  # which has said the client's
