"""Kubeconfigs of clouds and companies are honoured, or refused with a sentence; long lists and quiet watches work."""

import asyncio
import base64
import json
import os
import ssl
import stat
import subprocess
import sys
from datetime import timedelta

import pytest
from aiohttp import web

from lateen.agent.istiod import Istiod
from lateen.api import kinds
from lateen.kit import certs, times, tls, yamldoc
from lateen.kube import proxies
from lateen.kube.client import KubeError
from lateen.kube.kubeconfig import ConfigError, from_file, from_files, namespace_of

NAMES = [f"ns-{i}" for i in range(5)]


class Api:
    """Enough of a Kubernetes API to see who asks: it knows one token, and shows two namespaces at a time."""

    def __init__(self, token=""):
        self.token, self.seen, self.expired = token, [], False

    async def namespaces(self, request):
        self.seen.append([(k, v) for k, v in request.headers.items() if k.startswith(("Auth", "Imper"))])
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            status = {"kind": "Status", "code": 401, "reason": "Unauthorized", "message": "Unauthorized"}
            return web.json_response(status, status=401)
        if request.query.get("watch"):
            lines = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}\n'
            return web.Response(body=lines, content_type="application/json")
        start = int(request.query.get("continue", 0))
        if start and self.expired:
            return web.json_response({"kind": "Status", "code": 410, "reason": "Expired"}, status=410)
        end = start + 2 if "limit" in request.query else len(NAMES)
        items = [{"metadata": {"name": n, "resourceVersion": "1"}} for n in NAMES[start:end]]
        more = {"continue": str(end)} if end < len(NAMES) else {}
        return web.json_response({"metadata": {"resourceVersion": "7", **more}, "items": items})


def ask(tmp_path, user, api=None, **cluster):
    """The namespaces' names, asked with a kubeconfig whose user is this."""
    api = api or Api()

    async def main():
        app = web.Application()
        app.add_routes([web.get("/api/v1/namespaces", api.namespaces)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            async with from_file(config(tmp_path, user, f"http://127.0.0.1:{port}", **cluster)) as client:
                found, _ = await client.list(kinds.NAMESPACE)
                return [o["metadata"]["name"] for o in found]
        finally:
            await runner.cleanup()

    return asyncio.run(main())


def config(tmp_path, user, server="https://127.0.0.1:1", **cluster):
    path = tmp_path / "config"
    path.write_text(
        yamldoc.dump(
            {
                "current-context": "work",
                "contexts": [{"name": "work", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return path


def plugin(tmp_path, version="client.authentication.k8s.io/v1"):
    """A command that prints t1, then t2, …"""
    script = tmp_path / "plugin"
    script.write_text(
        "#!/bin/sh\n"
        f'echo x >> {tmp_path}/asked; n=$(wc -l < {tmp_path}/asked); test -n "$KUBERNETES_EXEC_INFO" || exit 3\n'
        f"""echo '{{"apiVersion":"{version}","kind":"ExecCredential","status":{{"token":"'$PREFIX$n'"}}}}'\n"""
    )
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    return {"exec": {"apiVersion": version, "command": str(script), "env": [{"name": "PREFIX", "value": "t"}]}}


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_a_credential_plugin_is_asked_for_a_token(tmp_path, version):
    api = Api(token="t1")
    assert ask(tmp_path, plugin(tmp_path, f"client.authentication.k8s.io/{version}"), api) == NAMES
    assert (tmp_path / "asked").read_text().count("x") == 1


def test_a_rejected_token_is_requested_again(tmp_path):
    assert ask(tmp_path, plugin(tmp_path), Api(token="t2")) == NAMES


def test_credentials_that_are_rejected_twice_are_an_error(tmp_path):
    with pytest.raises(KubeError, match="Unauthorized"):
        ask(tmp_path, plugin(tmp_path), Api(token="other"))


def test_a_plugin_that_is_not_installed_is_named_with_its_hint(tmp_path):
    spec = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "gke-gcloud-auth-plugin-missing",
        "installHint": "Install gke-gcloud-auth-plugin",
    }
    with pytest.raises(KubeError, match="not installed: Install gke-gcloud-auth-plugin"):
        ask(tmp_path, {"exec": spec})


def test_a_plugin_that_fails_is_named(tmp_path):
    with pytest.raises(KubeError, match='"false" failed with exit code 1'):
        ask(tmp_path, {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "false"}})


@pytest.mark.parametrize(
    ("user", "headers"),
    [
        ({"token": "abc"}, {"Authorization": "Bearer abc"}),
        ({"token": "abc\n"}, {"Authorization": "Bearer abc"}),
        ({"username": "me", "password": "pw"}, {"Authorization": "Basic bWU6cHc="}),
        (
            {"token": "abc", "as": "bob", "as-groups": ["devs"]},
            {"Authorization": "Bearer abc", "Impersonate-User": "bob", "Impersonate-Group": "devs"},
        ),
        (
            {"as": "bob", "as-uid": "7", "as-user-extra": {"example.com/Why": ["because"]}},
            {"Impersonate-User": "bob", "Impersonate-Uid": "7", "Impersonate-Extra-example.com%2FWhy": "because"},
        ),
    ],
)
def test_requests_carry_the_users_credentials(tmp_path, user, headers):
    api = Api()
    ask(tmp_path, user, api)
    assert dict(api.seen[0]) == headers


def test_several_groups_are_impersonated(tmp_path):
    """kubectl config set-credentials --as-group"""
    api = Api()
    ask(tmp_path, {"as": "bob", "as-groups": ["devs", "ops"], "as-user-extra": {"why": ["a", "b"]}}, api)
    groups = [("Impersonate-Group", "devs"), ("Impersonate-Group", "ops")]
    assert api.seen[0] == [
        ("Impersonate-User", "bob"),
        *groups,
        ("Impersonate-Extra-why", "a"),
        ("Impersonate-Extra-why", "b"),
    ]


@pytest.mark.parametrize(
    ("url", "exempt", "direct"),
    [
        ("https://api.example.com:6443", "", False),
        ("https://api.example.com:6443", "example.com", True),
        ("https://api.example.com:6443", ".example.com", True),
        ("https://example.com", ".example.com", False),
        ("https://example.com", "*.example.com", False),
        ("https://notexample.com", "example.com", False),
        ("https://API.example.com:6443", "a.com, api.EXAMPLE.com:6443", True),
        ("https://api.example.com:6443", "api.example.com:443", False),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://11.1.2.3", "10.0.0.0/8,11.1.2.4", False),
        ("https://[fd00::1]:6443", "fd00::/8", True),
        ("https://[fd00::1]:6443", "[fd00::1]:6443", True),
        ("https://10.1.2.3", "*", True),
        ("https://127.0.0.1:6443", "", True),
        ("https://localhost:6443", "", True),
        ("http://api.example.com", "", True),
    ],
)
def test_the_environment_names_the_proxy_and_what_needs_none(url, exempt, direct):
    """As for kubectl: HTTPS_PROXY and NO_PROXY, in capitals or not."""
    for change in (str.upper, str.lower):
        environment = {change("HTTPS_PROXY"): "proxy:3128", change("NO_PROXY"): exempt}
        assert proxies.of_environment(url, environment) == ("" if direct else "http://proxy:3128")


def test_an_api_without_tls_has_port_80_unless_it_says_another():
    environment = {"HTTP_PROXY": "proxy:3128", "NO_PROXY": "a.com:80"}
    assert proxies.of_environment("http://a.com", environment) == ""
    assert proxies.of_environment("http://a.com:8080", environment) == "http://proxy:3128"


def test_a_proxy_of_another_kind_is_refused_without_its_password():
    with pytest.raises(ConfigError, match=r"HTTPS_PROXY is proxy:1080; only http and https") as e:
        proxies.of_environment("https://a.com", {"HTTPS_PROXY": "socks5://me:secret@proxy:1080"})
    assert "secret" not in str(e.value)


@pytest.mark.parametrize("by", ["environment", "kubeconfig"])
def test_an_api_behind_a_proxy_is_reached_by_its_own_name(tmp_path, monkeypatch, by):
    """The proxy resolves it; the certificate is for another name (tls-server-name)."""
    authority = certs.authority("test", times.now())
    pair = certs.issue(authority, ["kubernetes"], times.now(), timedelta(days=1))
    (tmp_path / "pair").write_text(pair.certificate + pair.key)
    (tmp_path / "ca").write_text(authority.certificate)
    asked = []

    async def main():
        app, api = web.Application(), Api()
        app.add_routes([web.get("/api/v1/namespaces", api.namespaces)])
        runner = web.AppRunner(app)
        await runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "pair")
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        port = runner.addresses[0][1]

        async def pipe(reader, writer):
            while data := await reader.read(65536):
                writer.write(data)

        async def connect(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(head.split(b"\r\n")[0].decode())
            there = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer), return_exceptions=True)

        proxy = await asyncio.start_server(connect, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        cluster = {"tls-server-name": "kubernetes", "certificate-authority": "ca"}
        if by == "environment":
            monkeypatch.setenv("HTTPS_PROXY", url)
        else:
            cluster["proxy-url"] = url
        async with from_file(config(tmp_path, {}, "https://api.example.test:6443", **cluster)) as client:
            found, _ = await client.list(kinds.NAMESPACE)
        proxy.close()
        await runner.cleanup()
        return [o["metadata"]["name"] for o in found]

    assert asyncio.run(main()) == NAMES
    assert asked == ["CONNECT api.example.test:6443 HTTP/1.1"]


def test_certificates_that_kubectl_takes_are_taken_with_every_python(tmp_path, monkeypatch):
    """Python 3.13 refuses by default what names no key of its authority."""
    made = ssl.create_default_context

    def strict(*args, **more):
        context = made(*args, **more)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    root = tmp_path / "root"
    root.write_text(certs.authority("test", times.now()).certificate)
    contexts = (
        from_file(config(tmp_path, {})).context,
        Istiod("localhost", None, root, root)._context(None),  # an authority of the user's own
        tls.client_context(None),
    )
    assert not any(c.verify_flags & ssl.VERIFY_X509_STRICT for c in contexts)


def exec_user(tmp_path, script, **more):
    path = tmp_path / "bin" / "login"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./bin/login", **more}}


SAYS_TOKEN = """echo '{"kind": "ExecCredential", "status": {"token": "abc"}}'"""


def test_a_plugin_beside_the_kubeconfig_is_told_the_cluster(tmp_path, monkeypatch):
    """provideClusterInfo: the certificates themselves, and what is meant for plugins."""
    authority = certs.authority("test", times.now()).certificate
    (tmp_path / "ca").write_text(authority)
    monkeypatch.chdir(os.sep)
    script = f'printf %s "$KUBERNETES_EXEC_INFO" > {tmp_path}/info\n{SAYS_TOKEN}'
    extension = [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}}, {"name": "other"}]
    user = exec_user(tmp_path, script, provideClusterInfo=True, env=[{"name": "EMPTY"}])
    more = {"certificate-authority": "ca", "extensions": extension, "tls-server-name": "kube"}
    ask(tmp_path, user, Api(token="abc"), **more)
    told = json.loads((tmp_path / "info").read_text())["spec"]
    assert told["interactive"] is False
    assert told["cluster"].pop("server").startswith("http://127.0.0.1:")
    data = base64.b64encode(authority.encode()).decode()
    assert told["cluster"] == {
        "tls-server-name": "kube",
        "certificate-authority-data": data,
        "config": {"audience": "x"},
    }


@pytest.mark.parametrize(
    ("script", "more", "says"),
    [
        (SAYS_TOKEN, {"interactiveMode": "Always"}, "needs a terminal to ask at"),
        (SAYS_TOKEN, {"interactiveMode": "Sometimes"}, "expected Never, IfAvailable or Always"),
        (
            """echo '{"status": {"token": "abc", "expirationTimestamp": "2026-01-01T00:00:00"}}'""",
            {},
            "but no time: 2026-01-01T00:00:00",
        ),
    ],
)
def test_plugins_that_cannot_be_used_are_told_of(tmp_path, script, more, says):
    with pytest.raises((KubeError, ConfigError), match=says):
        ask(tmp_path, exec_user(tmp_path, script, **more))


def test_a_token_file_is_found_beside_the_kubeconfig(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("from-file\n")
    monkeypatch.chdir(os.sep)
    assert ask(tmp_path, {"tokenFile": "token"}, Api(token="from-file")) == NAMES


@pytest.mark.parametrize(
    ("user", "cluster", "says"),
    [
        ({"auth-provider": {"name": "gcp"}}, {}, "use a plugin"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "x"}}, {}, "v1alpha1"),
        ({"colour": "red"}, {}, "user.colour is not supported"),
        ({"client-certificate-data": "eA=="}, {}, "both client-certificate and client-key"),
        ({"as-groups": ["x"]}, {}, "needs as: whom to impersonate"),
        ({}, {"proxy-url": "socks5://127.0.0.1:1"}, "only http and https proxies"),
        ({}, {"server": "127.0.0.1"}, "expected an address"),
    ],
)
def test_unsupported_settings_are_refused(tmp_path, user, cluster, says):
    with pytest.raises(ConfigError, match=says):
        from_file(config(tmp_path, user, **{"server": "https://127.0.0.1:1", **cluster}))


def test_a_context_that_does_not_exist_is_named_with_those_that_do(tmp_path):
    with pytest.raises(ConfigError, match='no context "nope"; there are: work'):
        from_file(config(tmp_path, {}), "nope")


def test_a_list_whose_pages_expire_is_read_again_in_one_request(tmp_path):
    api = Api()
    api.expired = True
    assert ask(tmp_path, {}, api) == NAMES


def files(tmp_path, **contents):
    """Kubeconfigs with one context, cluster and user each: NAME=(server, token, current context)."""
    out = []
    for name, (server, token, current) in contents.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "token").write_text(token)
        path = folder / "config"
        path.write_text(
            yamldoc.dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": current,
                    "contexts": [
                        {"name": "shared", "context": {"cluster": "shared", "user": "shared", "namespace": name}},
                        {"name": name, "context": {"cluster": "shared", "user": name}},
                    ],
                    "clusters": [{"name": "shared", "cluster": {"server": server}}],
                    "users": [
                        {"name": "shared", "user": {"token": token}},
                        {"name": name, "user": {"tokenFile": "token"}},
                    ],
                }
            )
        )
        out.append(path)
    return out


def test_of_several_kubeconfigs_the_first_one_counts_for_each_name(tmp_path):
    paths = files(tmp_path, first=("http://first", "1", ""), second=("http://second", "2", "shared"))
    assert namespace_of(paths) == "first", "the first current context, and the first entry of its name"
    assert namespace_of(paths[::-1]) == "second"

    async def headers(context):
        async with from_files(paths, context) as client:
            return client.base, (await client.headers())["Authorization"]

    assert asyncio.run(headers("shared")) == ("http://first", "Bearer 1")
    assert asyncio.run(headers("second")) == ("http://first", "Bearer 2"), "a token file lies beside its own kubeconfig"


def test_of_several_kubeconfigs_some_may_be_missing_but_not_all(tmp_path):
    (there,) = files(tmp_path, only=("http://only", "1", "only"))
    assert namespace_of([tmp_path / "gone", there]) == "default"
    with pytest.raises(ConfigError, match="gone: no such file"):
        namespace_of([tmp_path / "gone", tmp_path / "gone too"])


def test_a_kubeconfig_that_is_malformed_is_named(tmp_path):
    (there,) = files(tmp_path, only=("http://only", "1", "only"))
    bad = tmp_path / "bad"
    bad.write_text("contexts: {a: b}")
    with pytest.raises(ConfigError, match=r"bad: contexts is not a list"):
        namespace_of([there, bad])


def lateen(tmp_path, *argv, kubeconfig):
    environment = os.environ | {"KUBECONFIG": kubeconfig, "HOME": str(tmp_path), "LATEEN_HOME": str(tmp_path / "home")}
    return subprocess.run(
        [sys.executable, "-m", "lateen", *argv], capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.parametrize("command", [("proxy-status",), ("analyze",), ("x", "precheck"), ("pc", "route", "a-pod")])
def test_a_context_that_does_not_exist_is_an_error_of_every_command(tmp_path, command):
    paths = files(tmp_path, one=("http://127.0.0.1:1", "1", "one"), two=("http://127.0.0.1:1", "2", ""))
    done = lateen(tmp_path, *command, "--context", "nope", kubeconfig=os.pathsep.join(map(str, paths)))
    assert done.returncode == 1
    assert 'there is no context "nope"; there are: shared, one, two' in done.stderr
    assert not done.stdout
