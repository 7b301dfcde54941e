"""What somebody sees who is no administrator: the role of the documentation is enough, and less is explained."""

import json

import pytest
from pages import blocks, pages

from lateen.kit import yamldoc

pytestmark = pytest.mark.system
ROLE = next(
    yamldoc.load(b.text)
    for b in blocks(pages()["docs/howto-production.md"])
    if b.language == "yaml" and "name: mesh-viewer" in b.text
)
BINDING = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: mesh-viewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: mesh-viewer}
subjects: [{kind: ServiceAccount, name: viewer, namespace: default}]
"""


@pytest.fixture
def viewer(mesh, tmp_path):
    """Runs commands with a role."""
    mesh.kubectl("create", "serviceaccount", "viewer", "-n", "default")
    config = yamldoc.load((mesh.home / "kubeconfig").read_text())
    token = mesh.kubectl("create", "token", "viewer", "-n", "default").stdout.strip()
    config["users"] = [{"name": u["name"], "user": {"token": token}} for u in config["users"]]
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))

    def run(role, *argv, ok=True):
        mesh.apply(f"{yamldoc.dump(role)}---\n{BINDING}")
        return mesh.lateen(*argv, "--kubeconfig", str(path), ok=ok)

    yield run
    mesh.kubectl("delete", "clusterrolebinding,clusterrole", "mesh-viewer", "--ignore-not-found")
    mesh.kubectl("delete", "serviceaccount", "viewer", "-n", "default")


@pytest.mark.parametrize(
    ("argv", "shows"),
    [
        (("proxy-status",), "SYNCED"),
        (("proxy-config", "routes", "deploy/productpage-v1", "-n", "default"), "reviews"),
        (("x", "describe", "service", "reviews", "-n", "default"), "reviews"),
        (("analyze", "-n", "default"), ""),
        (("version",), "control plane version"),
    ],
    ids=lambda a: a[0] if isinstance(a, tuple) else "",
)
def test_the_documented_role_is_enough(viewer, argv, shows):
    done = viewer(ROLE, *argv)
    assert shows in done.stdout
    assert "forbidden" not in done.stderr.replace("secrets is forbidden", "")


def test_a_command_in_a_pod_that_is_forbidden_says_which_verbs_it_takes(viewer):
    less = {**ROLE, "rules": [r for r in ROLE["rules"] if "pods/exec" not in r["resources"]]}
    done = viewer(less, "proxy-config", "routes", "deploy/productpage-v1", "-n", "default", ok=False)
    assert done.returncode
    assert "it takes the verbs get (before Kubernetes 1.35) and create of pods/exec" in done.stderr
