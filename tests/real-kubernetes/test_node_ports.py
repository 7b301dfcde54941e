"""What nobody should send, at the ports of our node in another control plane's cluster (``system/test_ports`` has the
others)."""

import json
import subprocess
import sys

from test_ports import GROWTH_KB, JUNK, LEAK_KB, documented, grown, processes

from lateen.cluster.kubelet.registration import PORT
from lateen.cluster.network import plan

OURS = [[plan.NODE_IP, PORT], [plan.DNS_IP, 53]]


def send(mesh, what):
    inside = ("nsenter", "-t", str(mesh.outside()), "--net", sys.executable, str(JUNK))
    argv = [*inside, what, json.dumps(OURS), json.dumps(OURS[1:])]
    counted = json.loads(subprocess.run(argv, check=True, timeout=300, stdout=subprocess.PIPE, text=True).stdout)
    assert all(opened > 0 for opened, _ in counted.values())
    assert len(counted) == len(OURS)


def test_the_kubelet_suffers_from_no_junk(mesh):
    assert {port for _, port in OURS} <= documented()
    mesh.kubectl(
        "run", "web", "--image=lateen/sleep", "--restart=Never", "--command", "--", "sh", "-c", "echo up; sleep 600"
    )
    mesh.kubectl("wait", "pod/web", "--for=condition=Ready", "--timeout=90s", timeout=100)
    before = processes(mesh)
    send(mesh, "cases")
    after = processes(mesh)
    assert grown(before, after, GROWTH_KB) == []
    send(mesh, "mutants")
    send(mesh, "silence")
    assert grown(after, processes(mesh), LEAK_KB) == []
    assert mesh.kubectl("logs", "web").stdout == "up\n"
    assert mesh.kubectl("exec", "web", "--", "echo", "well").stdout == "well\n"
