"""What kubectl shows of the embedded cluster is what it shows of Kubernetes itself."""

import re

import building
import pytest
from comparing import differences, typed
from world import Mesh, kubectls

pytestmark = pytest.mark.skipif(building.VERSION != building.COMPARED, reason=f"compared with {building.COMPARED} only")
KNOWN = {
    # What is not there, or is there in addition, as the documentation says.
    r"api-versions|--api-group='' -o name|--api-group=(networking|storage)\.k8s\.io -o name|node lateen": "other kinds",
    r"kubectl explain": "descriptions are our own",
    r"can-i --list": "no document of the issuer of tokens",
    r"Endpoints|get endpoints web": "Kubernetes 1.33 calls Endpoints deprecated, 1.32 does not",
    r"jsonpath='\{\.status\.conditions\[0\]|get events --field-selector": "nothing is preempted",
    r"get endpointslices|logs deploy/web": "other names, other moments",
    r"--show-managed-fields": "the order of what is written within a second",
    # Fields of Go that are always written.
    r'"StatefulSet"|HorizontalPodAutoscaler|get (deploy|job|svc|rs) .*-o yaml|"DaemonSet"': "empty Go structures",
    r'"PersistentVolume"|CustomResourceDefinition.*things': "times and conditions that come later",
    # Refusals in other words.
    r'"image": 7|"a": "c"|"minAvailable": 1|"app": "x"|"clusterIP": "1|exec deploy/web -c none': "values as JSON",
    r'"Secret".*"!"|"pods": "x"': "says which field it is",
    r"patch pod p1|subresource=status": "what differs, as Go structures; resizing, which the other node cannot",
    r"apply --prune|csr joe -o|get --raw /metrics|kube-root-ca": "times in logs, order of names, metrics of etcd",
    r"--type=json": "says what is wrong with the patch",
}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("embedded")
    made = Mesh(tmp / "home", tmp)
    made.lateen("cluster", "start")
    try:
        made.until(
            lambda: made.kubectl("wait", "node", "lateen", "--for=condition=Ready", ok=False).returncode == 0, 60
        )
        yield made
    finally:
        made.lateen("cluster", "delete", ok=False)


def test_kubectl_shows_the_same_of_both(mesh, embedded, tmp_path):
    (tmp_path / "kubectl").symlink_to(kubectls()[-1])
    found = differences(typed(embedded, tmp_path), typed(mesh, tmp_path))
    new = {line: diff for line, diff in found.items() if not any(re.search(known, line) for known in KNOWN)}
    assert not new, "\n".join(f"$ {line}\n" + "\n".join(diff) for line, diff in new.items())
    assert all(any(re.search(known, line) for line in found) for known in KNOWN), "what is known to differ does not"
