"""The same lines typed at two clusters, and what differs once names, addresses, times and numbers are left out."""

import json
import re
import subprocess
import time
from difflib import unified_diff
from pathlib import Path

SECONDS = 120
"""How long a line may take; one that takes longer has failed, and the next one is typed."""
SETTLED_S = 45
"""How long controllers have to see a change of a workload."""
LINES = Path(__file__).parent / "kubectl.lines"
KNOWN = LINES.with_suffix(".known")
_CHANGING = re.compile(
    r"kubectl (set|scale|patch (deploy|sts|ds)|rollout (undo|restart|resume|status)|"
    r"delete (pods?|deploy|rs|sts|ds|job)) "
)
_SAME = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", "TIME"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID"),
    (r"\b10\.(\d+\.){2}\d+\b", "ADDRESS"),
    (r"\b(web|once)-[a-z0-9]{8,10}(-[a-z0-9]{5})?\b", r"\1-RANDOM"),
    (r"\b(web|once)-[a-z0-9]{5}\b", r"\1-RANDOM"),
    (r"(pod-template-hash[=:] ?)\"?[a-z0-9]+\"?", r"\1HASH"),
    (r"kube-api-access-\w{5}", "kube-api-access-RANDOM"),
    (r"resourceVersion: \"\d+\"", "resourceVersion: NUMBER"),
    (r"nodePort: \d+", "nodePort: NUMBER"),
    (r":3\d{4}/", ":NUMBER/"),
    (r"(?<!cpu: )\b(\d+[smhd])+( ago)?(?=\s|$|\))", "AGE"),
    (r"127\.0\.0\.1:\d+", "SERVER"),
)


def normal(text):
    for pattern, name in _SAME:
        text = re.sub(pattern, name, text)
    return [re.sub(r"[ \t]+", " ", line).rstrip() for line in text.splitlines()]


def lines():
    text = LINES.read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def expected():
    """line -> why its output differs."""
    out, reason = {}, ""
    for text in KNOWN.read_text().splitlines():
        if text.startswith("## "):
            reason = text.removeprefix("## ")
        elif text and not text.startswith("# "):
            out[text] = reason
    assert out.keys() <= set(lines()), "these are typed no longer: " + "\n".join(out.keys() - set(lines()))
    return out


def typed(mesh, bin_):
    """(line, its exit code, its output), in order; ``bin_`` has the kubectl."""
    environment = mesh.environment | {"PATH": f"{bin_}:{mesh.environment['PATH']}"}
    out = []
    for line in lines():
        done = subprocess.run(
            ["timeout", str(SECONDS), "bash", "-c", line],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            check=False,
        )
        out.append((line, done.returncode, normal(done.stdout)))
        if _CHANGING.match(line):
            _settle(mesh)
    return out


def _settle(mesh):
    """Let controllers see the newest version of each workload, which the revisions that there are depend on, and pods
    that are to go be gone; what does not come true shows in what comes next."""
    deadline = time.monotonic() + SETTLED_S
    while time.monotonic() < deadline:
        found = json.loads(mesh.kubectl("get", "deploy,sts,ds,pods", "-A", "-o", "json").stdout)["items"]
        pods, workloads = ([o for o in found if (o["kind"] == "Pod") is is_pod] for is_pod in (True, False))
        seen = all(o["metadata"]["generation"] == o.get("status", {}).get("observedGeneration") for o in workloads)
        if seen and not any(o["metadata"].get("deletionTimestamp") for o in pods):
            return
        time.sleep(0.1)


def differences(ours, theirs):
    """line -> what differs, as a unified diff from kube-apiserver's answer to ours."""
    found = {}
    for (line, code, text), (_, their_code, their_text) in zip(ours, theirs, strict=True):
        if (code, text) != (their_code, their_text):
            diff = list(unified_diff(their_text, text, "kube-apiserver", "embedded", lineterm="", n=1))[2:]
            found[line] = [f"exit code {their_code}, here {code}"] * (code != their_code) + diff
    return found
