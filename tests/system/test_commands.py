"""The commands as istioctl's users type them, against a running mesh."""

import json
import tarfile

import pytest
from world import ROOT, SAMPLES, free_port

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def ruled(mesh):
    """Bookinfo with subsets and a rule."""
    files = [SAMPLES / "networking" / f for f in ("destination-rule-all.yaml", "virtual-service-reviews-v3.yaml")]
    arguments = [a for f in files for a in ("-f", str(f))]
    mesh.kubectl("apply", *arguments)
    yield mesh
    mesh.kubectl("delete", *arguments)


def table(text):
    head, *rows = text.splitlines()
    return head.split(), rows


def condition(mesh, kind, name, wanted):
    found = json.loads(mesh.get(kind, name, "-o", "json")).get("status", {})
    return next((c for c in found.get("conditions", []) if c["type"] == wanted), None)


def test_proxy_config_shows_what_the_proxy_has(ruled):
    def reviews():
        text = ruled.lateen("pc", "cluster", "deploy/productpage-v1", "--fqdn", "reviews.default").stdout
        return text if "v3" in text else None

    text = ruled.until(reviews, what="the subset in the proxy")
    assert text.splitlines()[0].split("  ")[0] == "SERVICE FQDN"
    assert [r.split()[2] for r in text.splitlines()[1:]] == ["-", "v1", "v2", "v3"]
    assert all(r.split()[-1] == "reviews.default" for r in text.splitlines()[1:])
    routes = ruled.lateen("proxy-config", "route", "deploy/productpage-v1", "--name", "9080").stdout
    row = next(r for r in routes.splitlines() if "reviews.default.svc" in r)
    assert row.split()[-1] == "reviews.default"
    listeners = ruled.lateen("pc", "l", "productpage-v1.default".replace("productpage-v1", ruled.pod("productpage")))
    assert "Route: 9080" in listeners.stdout
    secrets = ruled.lateen("pc", "secret", "deploy/productpage-v1").stdout
    assert "ROOTCA" in secrets
    assert "false" not in secrets
    endpoints = ruled.lateen(
        "pc", "ep", "deploy/productpage-v1", "--cluster", "outbound|9080|v3|reviews.default.svc.cluster.local"
    )
    assert endpoints.stdout.count("HEALTHY") == 1
    assert "Envoy Version:" in ruled.lateen("pc", "bootstrap", "deploy/productpage-v1", "-o", "short").stdout


def test_a_saved_dump_gives_the_same_tables(ruled, tmp_path):
    dump = tmp_path / "dump.json"

    def same():
        """The mesh may still be changing: an earlier file's objects have just been deleted."""
        dump.write_text(ruled.lateen("pc", "all", "deploy/reviews-v1", "-o", "json").stdout)
        for part in ("cluster", "listener", "route"):
            live = ruled.lateen("pc", part, "deploy/reviews-v1").stdout
            if ruled.lateen("pc", part, "--file", str(dump)).stdout != live:
                return False
        return True

    ruled.until(same, 60, "the same tables from the dump")
    assert json.loads(ruled.lateen("pc", "route", "--file", str(dump), "--name", "9080", "-o", "json").stdout)


def test_log_levels_of_a_proxy_and_of_istiod_change(mesh):
    assert "http: debug" in mesh.lateen("pc", "log", "deploy/details-v1", "--level", "http:debug").stdout
    assert "http: warning" in mesh.lateen("pc", "log", "deploy/details-v1", "-r").stdout
    shown = mesh.lateen("admin", "log", "--level", "ads:debug").stdout
    assert "debug" in next(r for r in shown.splitlines() if r.startswith("ads"))
    assert "debug" not in mesh.lateen("admin", "log", "--reset").stdout


def test_describe_says_what_the_mesh_does(ruled):
    text = ruled.lateen("x", "describe", "pod", ruled.pod("reviews")).stdout
    for part in (
        "Pod Ports: ",
        "Service: reviews",
        "9080/HTTP targets pod port 9080",
        'DestinationRule: reviews for "reviews"',
        "Matching subsets:",
        "VirtualService: reviews",
        "Workload mTLS mode: PERMISSIVE",
    ):
        assert part in text
    assert "Exposed on Ingress Gateway http://localhost" in ruled.lateen("x", "des", "svc", "productpage").stdout


def test_describe_says_where_an_object_is_attached(ruled):
    rule = ruled.lateen("x", "describe", "object", "vs", "bookinfo").stdout
    assert "Attached to Gateway default/bookinfo-gateway (port " in rule
    traffic = ruled.lateen("x", "describe", "object", "DestinationRule", "reviews").stdout
    assert "Attached to Subset v3 (1 pod)" in traffic
    gateway = ruled.lateen("x", "describe", "object", "gateways", "bookinfo-gateway").stdout
    assert "Attached to Workload istio-system/istio-ingressgateway (1 pod)" in gateway
    refused = ruled.lateen("x", "describe", "object", "pod", "x", ok=False)
    assert '"pod" is not a kind of the mesh' in refused.stderr


def test_injection_is_explained(mesh):
    text = mesh.lateen("x", "check-inject", "deploy/details-v1").stdout
    assert "Namespace label istio-injection=enabled matches" in text
    text = mesh.lateen("x", "check-inject", "-l", "a=b", "-n", "kube-public").stdout
    assert "✔" not in text
    assert "default: 6" in mesh.lateen("x", "injector", "list").stdout


def test_tags_inject_where_they_are_chosen(mesh):
    mesh.lateen("tag", "set", "prod", "--revision", "default")
    assert "prod" in mesh.lateen("tag", "list").stdout
    mesh.kubectl("create", "namespace", "tagged")
    mesh.kubectl("label", "namespace", "tagged", "istio.io/rev=prod")
    try:
        refused = mesh.lateen("tag", "remove", "prod", ok=False)
        assert (refused.returncode, "tagged" in refused.stderr) == (1, True)
        assert "✔" in mesh.lateen("x", "check-inject", "-l", "a=b", "-n", "tagged").stdout
        mesh.kubectl("run", "one", "-n", "tagged", "--image=lateen/sleep")
        containers = "jsonpath={.spec.containers[*].name}"
        assert "istio-proxy" in mesh.get("pod", "one", "-n", "tagged", "-o", containers)
        assert "IST0139" not in mesh.lateen("analyze", "-A", ok=False).stdout, "the tag's webhook and the revision's"
    finally:
        mesh.remove("tagged")
        mesh.lateen("tag", "remove", "prod", "-y")


TOGETHER = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: together}
spec: {hosts: [together.test], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: together}
spec: {hosts: [together.test], http: [{route: [{destination: {host: together.test}}]}]}
"""


def test_a_service_entry_and_its_rule_in_one_file_give_no_false_warning(mesh):
    try:
        assert "there is no service" not in mesh.apply(TOGETHER).stderr
    finally:
        mesh.kubectl("delete", "--ignore-not-found", "virtualservice,serviceentry", "together")


def test_check_finds_no_problems(mesh):
    done = mesh.lateen("check", "--wait", "20", ok=False)
    assert done.returncode == 0, done.stdout
    assert "Status check results are √" in done.stdout
    assert done.stdout.count("control-plane") == 1
    found = json.loads(mesh.lateen("check", "--wait", "20", "-o", "json", ok=False).stdout)
    assert found["exitCode"] == 0, found
    assert {c["group"] for c in found["checks"]} >= {"machine", "certificates", "webhooks", "proxies", "configuration"}
    mesh.lateen("check", "--pre")
    assert (
        "✔ Istio is installed and verified successfully"
        in mesh.lateen("verify-install", "--set", "profile=demo").stdout
    )


def test_check_says_what_to_do_where_there_is_no_cluster(mesh):
    done = mesh.lateen("check", "-c", "/nowhere", ok=False)
    assert done.returncode == 1
    assert "remedy: lateen cluster start" in done.stdout
    assert "skipped, because of: the API answers" in done.stdout


def test_an_objects_status_says_how_far_it_has_been_distributed(ruled):
    def done():
        found = condition(ruled, "virtualservice", "reviews", "Reconciled")
        return found if found and found["status"] == "True" else None

    assert ruled.until(done, what="the condition")["message"] == "all connected proxies that it concerns have it"
    assert condition(ruled, "virtualservice", "reviews", "Accepted")["status"] == "True"
    assert condition(ruled, "virtualservice", "reviews", "Analyzed")["reason"] == "NoFindings"
    waited = ruled.lateen("x", "wait", "--for=distribution", "virtualservice", "reviews.default")
    assert "Resource VirtualService reviews present on 6/6 proxies" in waited.stdout
    gateway = ruled.lateen("x", "wait", "--for=distribution", "gateway", "bookinfo-gateway.default")
    assert "present on 1/1 proxies" in gateway.stdout


BROKEN = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: broken, namespace: default}
spec:
  hosts: [ratings]
  http: [{route: [{destination: {host: ratingz}}]}]
"""


def test_findings_are_in_the_status_and_analyze_names_them(mesh):
    mesh.apply(BROKEN)
    try:
        found = mesh.until(
            lambda: (c := condition(mesh, "vs", "broken", "Analyzed")) and c["reason"] == "Errors" and c,
            what="the finding",
        )
        assert '[IST0101] Referenced host not found: "ratingz"' in found["message"]
        codes = json.loads(mesh.get("vs", "broken", "-o", "json"))["status"]["validationMessages"]
        assert [m["type"]["code"] for m in codes] == ["IST0101"]
        done = mesh.lateen("analyze", ok=False)
        assert done.returncode == 79
        assert 'Error [IST0101] (VirtualService default/broken) Referenced host not found: "ratingz"' in done.stdout
        assert mesh.lateen("analyze", "-S", "IST0101=VirtualService default/*").stdout == ""
        assert mesh.lateen("check", ok=False).returncode == 1
    finally:
        mesh.kubectl("delete", "virtualservice", "broken")
    mesh.until(lambda: mesh.lateen("analyze", ok=False).returncode == 0, what="a clean analysis")


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (["proxy-confg"], 64, 'did you mean "proxy-config"?'),
        (["pc", "cluster"], 64, "name a pod"),
        (["pc", "cluster", "deploy/nothing"], 1, 'deploy "nothing" not found in namespace default'),
        (["pc", "route", "--file", "/nowhere.json"], 65, "/nowhere.json: No such file or directory"),
        (["analyze", "--use-kube=false"], 64, "there is nothing to analyze"),
        (["analyze", "--use-kube=false", "/nowhere.yaml"], 65, "/nowhere.yaml: no such file or folder"),
        (["analyze", "--analyzer", "nothing"], 64, "lateen analyze -L lists them"),
        (["validate"], 64, "name at least one file"),
        (["x", "metrics", "productpage-v1"], 1, "lateen addons apply"),
        (["dashboard", "grafana"], 1, "no grafana pods found"),
        (["install", "--set", "profile=demmo"], 65, 'there is no profile "demmo"'),
        (["tag", "remove", "nothing"], 1, "lateen tag list shows them"),
        (["pc", "log", "deploy/details-v1", "--level", "http:loud"], 64, '"loud" is not one of'),
    ],
)
def test_a_mistake_gets_one_sentence_with_a_remedy_and_an_exit_code(mesh, command, code, says):
    done = mesh.lateen(*command, ok=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: ")


def test_validate_names_file_line_and_column(mesh, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(BROKEN.replace("route: [{", "rout: [{"))
    done = mesh.lateen("validate", "-f", str(bad), ok=False)
    assert done.returncode == 65
    assert f'{bad}:7:11: VirtualService default/broken: unknown field "spec.http[0].rout"' in done.stderr
    good = ROOT / "samples" / "bookinfo" / "networking" / "bookinfo-gateway.yaml"
    assert mesh.lateen("validate", "-f", str(good)).stdout == f'"{good}" is valid\n'


def test_a_bug_report_has_everything_and_no_secret(mesh, tmp_path):
    mesh.lateen("bug-report", "--dir", str(tmp_path))
    path = tmp_path / "bug-report.tar.gz"
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        names = archive.getnames()
        everything = b"".join(archive.extractfile(n).read() for n in names)
    pod = mesh.pod("productpage")
    for name in ("analyze.txt", "istiod/syncz.json", f"proxies/default/{pod}/config_dump", "cluster/pods.yaml"):
        assert f"bug-report/{name}" in names
    assert b"PRIVATE KEY-----\nM" not in everything


def test_metrics_of_a_workload(mesh):
    mesh.kubectl("apply", "-f", str(ROOT / "samples" / "addons" / "prometheus.yaml"))
    try:
        mesh.kubectl("rollout", "status", "deployment/prometheus", "-n", "istio-system", "--timeout=60s")

        def counted():
            mesh.page()
            text = mesh.lateen("x", "metrics", "productpage-v1").stdout
            return text if text.splitlines()[1].split()[1] != "0.000" else None

        head, *rows = mesh.until(counted, what="requests in the metrics").splitlines()
        assert head.split("  ")[0] == "WORKLOAD"
        assert rows[0].split()[2] == "0.000"
    finally:
        mesh.kubectl("delete", "-f", str(ROOT / "samples" / "addons" / "prometheus.yaml"))


def test_the_shell_completes_names(mesh):
    assert "_LATEEN_COMPLETE" in mesh.lateen("completion", "bash").stdout
    environment = {
        **mesh.environment,
        "_LATEEN_COMPLETE": "bash_complete",
        "COMP_WORDS": "lateen proxy-c",
        "COMP_CWORD": "1",
    }
    before, mesh.environment = mesh.environment, environment
    try:
        assert "proxy-config" in mesh.lateen().stdout
    finally:
        mesh.environment = before


def test_profiles_and_manifests(mesh, tmp_path):
    assert "    preview" in mesh.lateen("profile", "list").stdout
    assert "accessLogFile: /dev/stdout" in mesh.lateen("profile", "dump", "demo").stdout
    differs = mesh.lateen("profile", "diff", "default", "demo", ok=False)
    assert (differs.returncode, "+++ demo" in differs.stdout) == (1, True)
    files = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    for file, name in zip(files, ("minimal", "default"), strict=True):
        file.write_text(mesh.lateen("manifest", "generate", "--set", f"profile={name}").stdout)
    differs = mesh.lateen("manifest", "diff", str(files[0]), str(files[1]), ok=False)
    assert (differs.returncode, "istio-ingressgateway" in differs.stdout) == (1, True)
    assert mesh.lateen("manifest", "diff", str(files[0]), str(files[0])).stdout == "No differences\n"


def test_the_envoy_dashboard_leads_to_the_proxys_admin_interface(mesh):
    import signal
    import subprocess
    import sys
    import urllib.request

    port = free_port()
    command = [sys.executable, "-m", "lateen", "dashboard", "envoy", "deploy/details-v1", "--port", str(port)]
    forward = subprocess.Popen([*command, "--browser=false"], stdout=subprocess.PIPE, text=True, env=mesh.environment)
    try:
        assert forward.stdout.readline().strip() == f"http://localhost:{port}"
        with urllib.request.urlopen(f"http://localhost:{port}/server_info", timeout=5) as answer:
            assert json.load(answer)["state"] == "LIVE"
    finally:
        forward.send_signal(signal.SIGINT)
        assert forward.wait(10) == 0
