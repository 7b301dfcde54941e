"""What analyze and check say where the API server refuses, or the user has named what is not there."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import click
import pytest
import yaml
from click.testing import CliRunner

from lateen import __version__
from lateen.cli import foreign
from lateen.cli.analyze import analyze, of_context
from lateen.cli.check import check
from lateen.cli.connect import Target
from lateen.cli.main import cli
from lateen.cli.output import CliError
from lateen.cli.tag import tag
from lateen.cli.version import version
from lateen.kit import jsons

FORBIDDEN = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "secrets is forbidden: no"}


class Api(BaseHTTPRequestHandler):
    """Lists of nothing but namespace ``shop``; 403 for the plurals in ``server.refused``, or for all."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        plural = path.rpartition("/")[2]
        if path == "/version":
            code, body = 200, {"gitVersion": "v1.33.0"}
        elif "*" in self.server.refused or plural in self.server.refused:
            code, body = 403, FORBIDDEN
        elif path.endswith("/namespaces/shop"):
            code, body = 200, self.namespace()
        elif "/namespaces/" in path:
            code, body = 404, {"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found"}
        else:
            items = [self.namespace()] if plural == "namespaces" else []
            code, body = 200, {"metadata": {"resourceVersion": "1"}, "items": items}
        raw = jsons.dumps(body)
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def namespace(self):
        return {"metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}}}

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # a connection that finds no room in the queue is tried again after a second


def serving(refused):
    server = Server(("127.0.0.1", 0), Api)
    server.refused = refused
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@pytest.fixture
def cluster(tmp_path):
    """Context ``c``; ``east`` and ``closed`` are other clusters, of which the latter refuses to list Services, and
    ``silent`` never answers."""
    server, east, closed = serving(set()), serving(set()), serving({"services"})
    silent = socket.create_server(("127.0.0.1", 0))
    ports = {s: found.server_port for s, found in (("c", server), ("east", east), ("closed", closed))}
    ports["silent"] = silent.getsockname()[1]
    config = {
        "current-context": "c",
        "contexts": [{"name": name, "context": {"cluster": name, "user": "u"}} for name in ports],
        "clusters": [{"name": name, "cluster": {"server": f"http://127.0.0.1:{port}"}} for name, port in ports.items()],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))

    def run(command, *args, refused=()):
        server.refused = set(refused)
        return CliRunner().invoke(command, ["-c", str(file), *args])

    run.kubeconfig = str(file)
    yield run
    for one in (server, east, closed):
        one.shutdown()
    silent.close()


def failure(done):
    assert isinstance(done.exception, CliError), done.output
    return str(done.exception), done.exception.code


def test_a_namespace_that_does_not_exist_is_not_without_issues(cluster):
    assert failure(cluster(analyze, "-n", "nope")) == ('namespace "nope" not found', 1)
    assert cluster(analyze, "-n", "shop").exit_code == 0


def test_an_account_that_may_read_nothing_is_told_so(cluster):
    says, code = failure(cluster(analyze, "-A", refused={"*"}))
    assert code == 1
    assert "this account may not read the mesh's configuration" in says


def test_an_account_that_may_not_read_a_kind_gets_no_all_clear_where_that_kind_counts(cluster):
    says, code = failure(cluster(analyze, "-A", refused={"destinationrules"}))
    assert code == 1
    assert "incomplete" in says
    assert "DestinationRule" in says
    other = ("--analyzer", "gateway.ConflictingGatewayAnalyzer")
    assert cluster(analyze, "-A", *other, refused={"destinationrules"}).exit_code == 0
    assert cluster(analyze, "-A", refused={"secrets"}).exit_code == 0  # no Gateway names one


def test_other_clusters_are_read_within_the_time_limit_and_are_named_where_they_fail(cluster):
    remote = ("-A", "--remote-contexts")
    assert cluster(analyze, *remote, "east").exit_code == 0
    with pytest.raises(CliError, match=r"--remote-contexts: silent: .* within 0.1 s"):
        of_context(Target(cluster.kubeconfig, "", "", "istio-system"), "silent", 0.1)
    done = cluster(analyze, *remote, "closed")
    assert "incomplete" in failure(done)[0]
    assert "(cluster closed)" in done.output
    says, _ = failure(cluster(analyze, *remote, "nowhere"))
    assert "nowhere" in says


def test_other_clusters_are_not_ignored_where_no_cluster_is_to_be_read(cluster, tmp_path):
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n")
    asked = (str(tmp_path / "a.yaml"), "--no-use-kube", "--remote-contexts", "east")
    assert "--use-kube=false" in failure(cluster(analyze, *asked))[0]


def test_a_file_that_is_missing_is_an_error_of_data(cluster):
    assert failure(cluster(analyze, "/nowhere.yaml"))[1] == 65


def test_a_context_that_is_not_there_is_named(cluster):
    says, code = failure(cluster(analyze, "-A", "--context", "nope"))
    assert (code, "nope" in says) == (1, True)
    done = cluster(check, "--context", "nope")
    assert done.exit_code == 1
    assert "nope" in done.output
    assert "--context" in done.output


def test_check_of_a_namespace_that_does_not_exist_fails_there(cluster):
    done = cluster(check, "-n", "nope")
    assert done.exit_code == 1
    assert 'namespace "nope" not found' in done.output
    assert "skipped, because of: the namespace exists" in done.output


def test_asking_a_control_plane_elsewhere_fails_if_it_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    assert CliRunner().invoke(version, ["-i", "elsewhere"]).exit_code != 0
    assert CliRunner().invoke(version, []).exit_code == 0


def test_the_version_is_structured_for_scripts_also_without_a_cluster(tmp_path):
    nowhere = str(tmp_path / "nothing")
    done = CliRunner().invoke(version, ["--kubeconfig", nowhere, "-o", "json"])
    assert jsons.loads(done.stdout)["clientVersion"]["version"] == __version__
    assert isinstance(done.exception, CliError), "it says that the file is not there"
    done = CliRunner().invoke(version, ["--remote=false", "-o", "yaml"])
    assert done.stdout.startswith(f"clientVersion:\n  version: {__version__}")
    assert "meshVersion" not in done.stdout


def test_a_command_of_ambient_mode_is_not_mistaken_for_another_one():
    done = CliRunner().invoke(cli, ["ztunnel-config"])
    assert "ambient mode" in str(done.exception)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("authz", "check"), "lateen x authz check"),
        (
            ("proxy-status", "--xds-address", "istiod:15012"),
            "istioctl's --xds-address is not supported: istiod is reached",
        ),
        (("x", "describe", "pod", "web", "--proxy-admin-port=1"), "fixed (15000)"),
        (("install", "--manifests", "/tmp"), "it reads no charts"),
        (("bug-report", "--full-secrets"), "everything except Secrets"),
        (("bug-report", "--include", "a,n*//p*"), "--include n*//p*: name namespaces"),
        (("bug-report", "--dry-run"), "everything except Secrets"),
        (("proxy-config", "all", "web", "--with-headers"), "tables always have headers"),
        (("uninstall", "-f", "mesh.yaml"), "name its revision with --revision"),
        (("ps", "--timeout", "3s"), "time limits of requests are fixed"),
        (("--as", "bob", "proxy-status"), "impersonation is kubectl's"),
        (("-n", "shop", "dashboard", "--ui-port=1", "kiali"), "at the port that --port names"),
    ],
)
def test_what_istioctl_has_and_this_command_does_not_is_refused_with_what_to_do_instead(words, says):
    done = CliRunner().invoke(cli, words)
    assert done.exit_code
    assert says in str(done.exception)


@pytest.mark.parametrize(
    "words",
    [
        ("-n", "none", "--kubeconfig=CONFIG", "analyze"),
        ("-nnone", "-c", "CONFIG", "version"),
        ("dashboard", "--browser=false", "-c", "CONFIG", "-n=none", "-p", "1", "kiali"),
        ("--kubeconfig", "CONFIG", "x", "-n", "none", "internal-debug", "syncz"),
        ("proxy-config", "-c", "CONFIG", "-o", "json", "--namespace=none", "cluster", "web"),
    ],
)
def test_options_may_stand_before_the_commands_name_as_with_istioctl(cluster, words):
    done = CliRunner().invoke(cli, [w.replace("CONFIG", cluster.kubeconfig) for w in words])
    assert str(done.exception) == 'namespace "none" not found'


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("apply",), "install"),
        (("manifest", "apply"), "install"),
        (("istiod", "log"), "admin log"),
        (("v",), "validate"),
    ],
)
def test_a_command_has_the_names_that_it_has_in_istioctl(words, command):
    usage = [CliRunner().invoke(cli, [*w, "--help"]).output.partition("[OPTIONS]")[2] for w in (words, command.split())]
    assert usage[0] == usage[1] != ""


def test_a_manifest_goes_to_a_file(tmp_path):
    printed = CliRunner().invoke(cli, ["manifest", "generate"])
    file = tmp_path / "mesh.yaml"
    written = CliRunner().invoke(cli, ["manifest", "generate", "--dry-run", "-o", str(file)])
    assert (written.exit_code, written.stdout, file.read_text()) == (0, "", printed.stdout)
    assert "no-folder" in str(
        CliRunner().invoke(cli, ["manifest", "generate", "-o", f"{tmp_path}/no-folder/a"]).exception
    )


@pytest.mark.parametrize(
    ("given", "says"), [("5m0s", ""), ("90", ""), ("1.5", ""), ("soon", '"soon" is not a duration')]
)
def test_a_time_limit_is_a_duration_or_a_number_of_seconds(given, says):
    done = CliRunner().invoke(cli, ["install", "--dry-run", "--readiness-timeout", given])
    assert says in done.output if says else done.exit_code == 0


def test_all_of_a_proxys_configuration_is_filtered_as_its_parts(tmp_path):
    kind = "type.googleapis.com/envoy.admin.v3.ClustersConfigDump"
    named = [{"cluster": {"name": f"outbound|{p}||{h}.default.svc.cluster.local"}} for p, h in ((80, "a"), (81, "b"))]
    file = tmp_path / "dump.json"
    file.write_bytes(jsons.dumps({"configs": [{"@type": kind, "dynamic_active_clusters": named}]}))
    for words in (("--fqdn", "a.default"), ("--port", "80")):
        shown = CliRunner().invoke(cli, ["proxy-config", "all", "-f", str(file), *words]).stdout
        assert "a.default.svc" in shown
        assert "b.default.svc" not in shown
    refused = CliRunner().invoke(cli, ["pc", "a", "-f", str(file), "-o", "json", "--port", "80"])
    assert "filters are for tables" in str(refused.exception)


def test_no_command_has_an_option_that_is_said_to_be_missing():
    """... except that an option of one command may be missing in another."""
    shared = {"--authority", "--duration", "--manifests", "--output-threshold", "--selector"}

    def options(group):
        for name in group.list_commands(None):
            found = group.get_command(None, name)
            if isinstance(found, click.Group):
                yield from options(found)
            else:
                yield from (o for p in found.params for o in p.opts)

    assert not (set(options(cli)) & set(foreign.OPTIONS)) - shared


def test_a_tag_needs_a_revision_as_with_istioctl():
    for name in ("set", "generate"):
        done = CliRunner().invoke(tag, [name, "prod"])
        assert (done.exit_code, "--revision" in done.stderr) == (2, True), done.stderr
    for alias in ("show", "delete"):
        assert CliRunner().invoke(tag, [alias, "--help"]).exit_code == 0


def test_version_takes_the_options_of_every_command(tmp_path):
    nowhere = str(tmp_path / "none")
    done = CliRunner().invoke(version, ["-n", "a", "-i", "b", "-r", "c", "--remote=false"])
    assert (done.exit_code, done.stdout) == (0, f"client version: {__version__}\n")
    assert CliRunner().invoke(version, ["-i", "b", "-r", "c", "-c", nowhere]).exit_code != 0


def test_a_bug_report_that_fails_leaves_the_last_one_alone(tmp_path):
    last = tmp_path / "bug-report.tar.gz"
    last.write_bytes(b"of yesterday")
    nowhere = ("--kubeconfig", str(tmp_path / "nosuch"))
    done = CliRunner().invoke(cli, ["bug-report", "--output-dir", str(tmp_path), *nowhere])
    assert done.exit_code
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("bug-report.tar.gz", b"of yesterday")]
