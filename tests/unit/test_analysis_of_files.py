"""Files without a cluster: what their workloads will run is there for rules, though no pod is."""

import pytest
from click.testing import CliRunner

from lateen.cli.analyze import analyze

MESH = """\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, ports: [{name: http, port: 80}]}
---
"""
WORKLOAD = """\
apiVersion: apps/v1
kind: %s
metadata: {name: cart, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  template:
    metadata: {labels: {app: cart, version: v1}}
    spec: {containers: [{name: cart, image: cart}]}
---
"""
POLICIES = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: cart, namespace: shop}
spec: {selector: {matchLabels: {app: cart}}, rules: [{}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: cart, namespace: shop}
spec: {workloadSelector: {labels: {app: cart}}, egress: [{hosts: ["./*"]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, servers: [{hosts: [a.test], port: {number: 80, name: http, protocol: HTTP}}]}
"""
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart, version: v1, pod-template-hash: x}}
spec: {containers: [{name: istio-proxy, image: proxy}]}
---
"""


def told(tmp_path, text):
    path = tmp_path / "shop.yaml"
    path.write_text(text)
    lines = CliRunner().invoke(analyze, ["--use-kube=false", "--output-threshold=warning", str(path)]).output
    return [line for line in lines.splitlines() if line.startswith(("Error [IST", "Warning [IST"))]


def test_without_workloads_rules_select_nothing(tmp_path):
    codes = {line.split("[")[1][:7] for line in told(tmp_path, MESH + POLICIES)}
    assert {"IST0101", "IST0127", "IST0173"} <= codes


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_rules_select_the_pods_that_workloads_will_have(tmp_path, kind):
    (found,) = told(tmp_path, MESH + WORKLOAD % kind + POLICIES)
    assert "IST0173" in found
    assert "Subset v2" in found


def test_pods_that_are_there_stand_for_their_workload(tmp_path):
    second = POLICIES.replace(
        "name: cart, namespace: shop}\nspec: {workload", "name: b, namespace: shop}\nspec: {workload"
    )
    found = told(tmp_path, MESH + WORKLOAD % "Deployment" + POD + POLICIES + "---\n" + second)
    conflicts = [line for line in found if "IST0110" in line]
    assert len(conflicts) == 2  # one for each Sidecar
    assert all('"cart-1"' in line for line in conflicts)
