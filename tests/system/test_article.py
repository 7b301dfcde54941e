"""Every command of the article, typed into a shell as it is printed there (with lateen for istioctl); the output is
compared with the article's."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from world import ROOT, kubectls

pytestmark = pytest.mark.system

AGE = r"(\d+[smhd])+"
NUMBERS = r"\d+/\d+"
LOG = (
    r'\[{time}\] "GET {path} HTTP/(1\.1|2)" 200 - "?.*?"? "-" 0 \d+ \d+ \d+ "-" "[^"]*" "[0-9a-f-]{{36}}" "{host}" '
    r'"[\d.]+:9080" {cluster} [\d.:]+ [\d.]+:9080 [\d.:]+ .*'
).replace("{time}", r"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
ACCESS = LOG.format


BUILT_IN = "lateen kubectl"
"""Our own verbs, for machines without kubectl."""


class Shell:
    """A user at a terminal."""

    def __init__(self, home, kubectl):
        self.home, bin_ = home, home / "bin"
        bin_.mkdir()
        if kubectl == BUILT_IN:
            (bin_ / "kubectl").write_text(
                f'#!/bin/sh\nLATEEN_KUBECTL_BUILT_IN=1 exec {sys.executable} -m lateen kubectl "$@"\n'
            )
            (bin_ / "kubectl").chmod(0o755)
        else:
            (bin_ / "kubectl").symlink_to(kubectl)
        (bin_ / "lateen").write_text(f'#!/bin/sh\nexec {sys.executable} -m lateen "$@"\n')
        (bin_ / "lateen").chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "HOME": str(home),
            "LATEEN_HOME": str(home / "state"),
            "KUBECONFIG": str(home / "state" / "kubeconfig"),
            "LATEEN_API_PORT": "0",
            "NO_COLOR": "1",
        }

    def __call__(self, command, *shapes, stdin="", ok=True):
        """Both streams of a command, of which every shape must be a line."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert not ok or done.returncode == 0, f"$ {command}\n{done.stdout}"
        lines = done.stdout.splitlines()
        for shape in shapes:
            assert any(re.fullmatch(shape, line.rstrip()) for line in lines), (
                f"$ {command}\n{done.stdout}\nlacks: {shape}"
            )
        return done.stdout.strip()

    def until(self, command, wanted, limit_s=30):
        deadline = time.monotonic() + limit_s
        while wanted not in (found := self(command, ok=False)):
            assert time.monotonic() < deadline, f"$ {command}\n{found}"
            time.sleep(0.2)


def installed(shell, command):
    shell(
        command,
        r"✔ Istio core installed.*",
        r"✔ Istiod installed.*",
        r"✔ Egress gateways installed.*",
        r"✔ Ingress gateways installed.*",
        r"✔ Installation complete",
    )


def inside(shell):
    """The article's request from inside the cluster."""
    return shell(
        "kubectl exec \"$(kubectl get pod -l app=ratings -o jsonpath='{.items[0].metadata.name}')\" -c ratings -- "
        'curl -s productpage:9080/productpage | grep -o "<title>.*</title>"'
    )


NEWEST = kubectls()[-1:]
OLDER = [pytest.param(k, marks=pytest.mark.long) for k in kubectls()[:-1]]


@pytest.mark.parametrize("kubectl", [*OLDER, *NEWEST, BUILT_IN], ids=lambda k: Path(k).resolve().name)
def test_the_article_from_install_to_uninstall(kubectl, tmp_path):
    shell = Shell(tmp_path, kubectl)
    started = subprocess.run(
        ["bash", "-c", "lateen cluster start"], env=shell.environment, capture_output=True, text=True, check=False
    )
    if "cannot create namespaces" in started.stderr:
        pytest.skip(started.stderr)
    assert started.returncode == 0, started.stderr
    try:
        article(shell)
    finally:
        shell("lateen cluster delete", ok=False)


def article(shell, gateways="gateway"):
    """``gateways``: what Istio's gateways are called where ``gateway`` means those of the Gateway API."""
    shell("lateen version", r'no running Istio pods in "istio-system"', r"(client version: )?\d+\.\d+\.\d+")
    shell("lateen x precheck", r"✔ No issues found when checking the cluster\..*")

    # Installation, by profile and by the article's own file.
    installed(shell, "lateen install --set profile=demo -y")
    installed(shell, "lateen install -f samples/operator/demo.yaml -y")
    shell(
        "kubectl get ns",
        r"NAME\s+STATUS\s+AGE",
        *(
            rf"{n}\s+Active\s+{AGE}"
            for n in ("default", "istio-system", "kube-node-lease", "kube-public", "kube-system")
        ),
    )
    shell(
        "kubectl get all -n istio-system",
        r"NAME\s+READY\s+STATUS\s+RESTARTS\s+AGE",
        rf"pod/istio-egressgateway-\w+-\w+\s+1/1\s+Running\s+0\s+{AGE}",
        rf"pod/istio-ingressgateway-\w+-\w+\s+1/1\s+Running\s+0\s+{AGE}",
        rf"pod/istiod-\w+-\w+\s+1/1\s+Running\s+0\s+{AGE}",
        r"NAME\s+TYPE\s+CLUSTER-IP\s+EXTERNAL-IP\s+PORT\(S\)\s+AGE",
        rf"service/istio-egressgateway\s+ClusterIP\s+[\d.]+\s+<none>\s+80/TCP,443/TCP,15443/TCP\s+{AGE}",
        r"service/istio-ingressgateway\s+LoadBalancer\s+[\d.]+\s+\S+\s+"
        rf"15021:\d+/TCP,80:\d+/TCP,443:\d+/TCP,31400:\d+/TCP,15443:\d+/TCP\s+{AGE}",
        rf"service/istiod\s+ClusterIP\s+[\d.]+\s+<none>\s+15010/TCP,15012/TCP,443/TCP,15014/TCP\s+{AGE}",
        r"NAME\s+READY\s+UP-TO-DATE\s+AVAILABLE\s+AGE",
        rf"deployment.apps/istiod\s+1/1\s+1\s+1\s+{AGE}",
        r"NAME\s+DESIRED\s+CURRENT\s+READY\s+AGE",
        rf"replicaset.apps/istiod-\w+\s+1\s+1\s+1\s+{AGE}",
    )
    shell("kubectl label namespace default istio-injection=enabled", r"namespace/default labeled")
    shell(
        "kubectl get ns --show-labels",
        r"NAME\s+STATUS\s+AGE\s+LABELS",
        r"default\s+Active\s+\S+\s+.*istio-injection=enabled.*",
        r"istio-system\s+Active\s+\S+\s+.*istio-injection=disabled.*",
    )

    # Bookinfo.
    shell(
        "kubectl apply -f samples/bookinfo/platform/kube/bookinfo.yaml",
        r"service/details created",
        r"serviceaccount/bookinfo-details created",
        r"deployment.apps/details-v1 created",
        r"deployment.apps/reviews-v3 created",
        r"deployment.apps/productpage-v1 created",
    )
    shell(
        "kubectl get svc",
        r"NAME\s+TYPE\s+CLUSTER-IP\s+EXTERNAL-IP\s+PORT\(S\)\s+AGE",
        *(
            rf"{n}\s+ClusterIP\s+[\d.]+\s+<none>\s+9080/TCP\s+{AGE}"
            for n in ("details", "productpage", "ratings", "reviews")
        ),
        rf"kubernetes\s+ClusterIP\s+[\d.]+\s+<none>\s+443/TCP\s+{AGE}",
    )
    shell("kubectl wait --for=condition=Ready pod --all --timeout=60s")
    shell(
        "kubectl get pods",
        r"NAME\s+READY\s+STATUS\s+RESTARTS\s+AGE",
        *(
            rf"{n}-\w+-\w+\s+2/2\s+Running\s+0\s+{AGE}"
            for n in ("details-v1", "productpage-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3")
        ),
    )
    assert inside(shell) == "<title>Simple Bookstore App</title>"
    _described(shell)

    # Opening the application to the outside.
    shell(
        "kubectl apply -f samples/bookinfo/networking/bookinfo-gateway.yaml",
        r"gateway.networking.istio.io/bookinfo-gateway created",
        r"virtualservice.networking.istio.io/bookinfo created",
    )
    shell(f"kubectl get {gateways}", r"NAME\s+AGE", rf"bookinfo-gateway\s+{AGE}")
    shell(
        "kubectl get virtualservice",
        r"NAME\s+GATEWAYS\s+HOSTS\s+AGE",
        rf'bookinfo\s+\["?bookinfo-gateway"?\]\s+\["?\*"?\]\s+{AGE}',
    )
    shell("lateen analyze", r"✔ No validation issues found when analyzing namespace: default\.")
    shell(
        "kubectl get svc -n istio-system",
        rf"istio-ingressgateway\s+LoadBalancer\s+[\d.]+\s+\S+\s+15021:\d+/TCP,.*\s+{AGE}",
    )
    host = shell(
        "kubectl -n istio-system get service istio-ingressgateway "
        "-o jsonpath='{.status.loadBalancer.ingress[0].hostname}'"
    )
    port = shell(
        "kubectl -n istio-system get service istio-ingressgateway "
        "-o jsonpath='{.spec.ports[?(@.name==\"http2\")].port}'"
    )
    assert (host, port) == ("localhost", "80")
    here = dict(
        p.split("=")
        for p in shell(
            "kubectl -n istio-system get service istio-ingressgateway "
            "-o jsonpath='{.metadata.annotations.lateen\\.dev/host-ports}'"
        ).split(",")
    )
    url = f"{host}:{here['80']}/productpage"
    shell.until(f'curl -s {url} | grep -o "<title>.*</title>"', "<title>Simple Bookstore App</title>")

    # Addons; the console itself is tested in a browser by test_console.py.
    shell(
        "kubectl apply -f samples/addons",
        r"serviceaccount/kiali created",
        r"clusterrole.rbac.authorization.k8s.io/kiali-viewer created",
        r"service/kiali created",
        r"deployment.apps/kiali created",
        r"deployment.apps/prometheus created",
    )
    shell("kubectl apply -f samples/addons", r"deployment.apps/kiali (unchanged|configured)")
    shell("kubectl rollout status deployment/kiali -n istio-system --timeout=60s")
    shell("kubectl get pods -n istio-system", rf"kiali-\w+-\w+\s+1/1\s+Running\s+0\s+{AGE}")
    shell(
        "(timeout -s INT 3 lateen dashboard kiali --port 20011 || true) 2>&1",
        r"http://localhost:20011/kiali",
        r"Failed to open browser; open http://localhost:20011/kiali in your browser\.",
    )
    _logs(shell)

    # Removal.
    shell(
        "samples/bookinfo/platform/kube/cleanup.sh",
        r"(namespace \? \[default\] )?using NAMESPACE=default",
        r"Application cleanup successful",
        stdin="\n",
    )
    shell("kubectl delete -f samples/addons")
    shell("lateen manifest generate --set profile=demo | kubectl delete --ignore-not-found=true -f -")
    shell.until("kubectl get all -n istio-system", "No resources found")
    shell("kubectl get namespace istio-system", rf"istio-system\s+Active\s+{AGE}")
    shell("kubectl delete namespace istio-system", r'namespace "istio-system" deleted')
    shell("kubectl label namespace default istio-injection-", r"namespace/default (un)?labeled")


def _described(shell):
    pod = shell("kubectl get pod -l app=details -o jsonpath='{.items[0].metadata.name}'")
    shell(
        f"kubectl describe pod {pod}",
        rf"Name:\s+{pod}",
        r"Namespace:\s+default",
        r".*\sistio\.io/rev: default",
        r"\s+security\.istio\.io/tlsMode=istio",
        r"\s+service\.istio\.io/canonical-name=details",
        r"\s+service\.istio\.io/canonical-revision=v1",
        r"(Annotations:)?\s+prometheus\.io/path: /stats/prometheus",
        r"(Annotations:)?\s+prometheus\.io/port: 15020",
        r"Status:\s+Running",
        r"Controlled By:\s+ReplicaSet/details-v1-\w+",
        r"Init Containers:",
        r"  istio-init:",
        r"      istio-iptables",
        r"      15090,15021,15020",
        r"      Reason:\s+Completed",
        r"Containers:",
        r"  details:",
        r"    Image:\s+docker\.io/istio/examples-bookinfo-details-v1:1\.16\.2",
        r"  istio-proxy:",
        r"      proxy",
        r"      sidecar",
        r"    Readiness:\s+http-get http://:15021/healthz/ready .*",
        r"      ISTIO_META_WORKLOAD_NAME:\s+details-v1",
        r"      ISTIO_META_OWNER:\s+kubernetes://apis/apps/v1/namespaces/default/deployments/details-v1",
        r"      /var/run/secrets/istio from istiod-ca-cert \(rw\)",
        r"  istio-token:",
        r"    TokenExpirationSeconds:\s+43200",
        r"QoS Class:\s+\w+",
        r"  Normal\s+Started\s+.*Started container istio-proxy",
    )


def _logs(shell):
    """Both sides of a call, in the article's format."""
    pod = shell("kubectl get pod -l app=productpage -o jsonpath='{.items[0].metadata.name}'")
    with open(shell.home / "follow.log", "w+") as out:
        command = ["bash", "-c", f"exec kubectl logs {pod} -c istio-proxy -f --tail=0"]
        follow = subprocess.Popen(command, env=shell.environment, stdout=out)
        time.sleep(0.5)
        try:
            assert inside(shell) == "<title>Simple Bookstore App</title>"
            shell.until(f"cat {out.name}", '"GET /productpage HTTP', 10)  # it is the last one to end
        finally:
            follow.terminate()
            follow.wait(10)
        lines = Path(out.name).read_text().splitlines()
    for path, host, cluster in (
        ("/details/0", "details:9080", r"outbound\|9080\|\|details\.default\.svc\.cluster\.local"),
        ("/reviews/0", "reviews:9080", r"outbound\|9080\|\|reviews\.default\.svc\.cluster\.local"),
        ("/productpage", "productpage:9080", r"inbound\|9080\|\|"),
    ):
        shape = ACCESS(path=re.escape(path), host=host, cluster=cluster)
        assert any(re.fullmatch(shape, line) for line in lines), f"{shape}\n" + "\n".join(lines)
