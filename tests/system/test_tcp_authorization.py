"""Istio's task "TCP Traffic": policies about connections, by port and by the caller's real certificate."""

import json

import pytest
from samples import NS, obj, tasks  # noqa: F401 - a fixture of this module

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

SELECTED = {"selector": {"matchLabels": {"app": "tcp-echo"}}}
CODE = """
import socket
try:
    with socket.create_connection(("tcp-echo", %d), 5) as s:
        s.settimeout(5)
        s.sendall(b"hi\\n")
        print(s.recv(100).decode().split()[-1:])
except OSError:
    print([])
"""
OWN = f"cluster.local/ns/{NS}/sa/sleep"


def source(**fields):
    return {"from": [{"source": fields}]}


def port(*numbers):
    return {"to": [{"operation": {"ports": list(numbers)}}]}


BOTH, NEITHER, FIRST, SECOND = {9000, 9001}, set(), {9000}, {9001}
CASES = {
    "a denied port": ("DENY", [port("9000")], SECOND),
    "an allowed port": ("ALLOW", [port("9000")], FIRST),
    "a denied caller": ("DENY", [source(principals=[OWN])], NEITHER),
    "a denied caller by the end of its name": ("DENY", [source(principals=["*/sa/sleep"])], NEITHER),
    "a denied caller by the beginning": ("DENY", [source(principals=[f"cluster.local/ns/{NS}/*"])], NEITHER),
    "any denied caller with an identity": ("DENY", [source(principals=["*"])], NEITHER),
    "another denied caller": ("DENY", [source(principals=["*/sa/other"])], BOTH),
    "all denied but one": ("DENY", [source(notPrincipals=["*/sa/sleep"])], BOTH),
    "a denied namespace at a port": ("DENY", [source(namespaces=[NS]) | port("9001")], FIRST),
    "an allowed caller": ("ALLOW", [source(principals=[OWN])], BOTH),
    "an allowed caller by the end of its name": ("ALLOW", [source(principals=["*/sa/sleep"])], BOTH),
    "another allowed caller": ("ALLOW", [source(principals=["*/sa/other"])], NEITHER),
    "another allowed namespace": ("ALLOW", [source(namespaces=["other"])], NEITHER),
    "conditions about requests allow nothing": ("ALLOW", [{"to": [{"operation": {"methods": ["GET"]}}]}], NEITHER),
    "conditions about requests count as met": (
        "DENY",
        [{"to": [{"operation": {"methods": ["GET"], "ports": ["9000"]}}]}],
        SECOND,
    ),
    "nothing": ("ALLOW", [], NEITHER),
}


def answering(found):
    """The ports that answer to sleep."""
    asked = "; ".join(f"echo {n}; python3 -c '{CODE % n}'" for n in sorted(BOTH))
    words = found.sh(asked, ok=False).replace("[", "").replace("]", "").split()
    return {int(n) for n, said in zip(words, [*words[1:], ""], strict=True) if n.isdigit() and said == "'hi'"}


def test_connections_are_admitted_by_port_and_by_the_callers_certificate(tasks):  # noqa: F811
    tasks.until(lambda: answering(tasks) == BOTH, what="both ports without a policy")
    wrong = {}
    for name, (action, rules, wanted) in CASES.items():
        spec = json.dumps({**SELECTED, "action": action, **({"rules": rules} if rules else {})})
        with tasks.applied(obj("AuthorizationPolicy", "tcp", spec, "security.istio.io/v1")):
            where = ("authorizationpolicy", "tcp", "-n", NS)
            tasks.mesh.kubectl("wait", *where, "--for=condition=Reconciled", "--timeout=30s")
            if (got := answering(tasks)) != wanted:
                wrong[name] = (got, wanted)
    assert wrong == {}
