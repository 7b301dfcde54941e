"""Kubeconfigs of clouds and companies are honoured, or refused with a sentence; long lists and quiet watches work."""

import asyncio
import os
import stat
import subprocess
import sys

import pytest
from aiohttp import web

from lateen.api import kinds
from lateen.kit import yamldoc
from lateen.kube.client import KubeError
from lateen.kube.kubeconfig import ConfigError, from_file, from_files, namespace_of

NAMES = [f"ns-{i}" for i in range(5)]


class Api:
    """Enough of a Kubernetes API to see who asks: it knows one token, and shows two namespaces at a time."""

    def __init__(self, token=""):
        self.token, self.seen, self.expired = token, [], False

    async def namespaces(self, request):
        self.seen.append({k: v for k, v in request.headers.items() if k.startswith(("Auth", "Imper"))})
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
    ],
)
def test_requests_carry_the_users_credentials(tmp_path, user, headers):
    api = Api()
    ask(tmp_path, user, api)
    assert api.seen[0] == headers


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
        ({"as": "x", "as-user-extra": {"a": ["b"]}}, {}, "as-user-extra"),
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
