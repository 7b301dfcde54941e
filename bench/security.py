"""What security costs: tokens, 100 authorization policies and a local rate limit at a sidecar, and how soon 1,000
policies are everywhere. security.py [ROUNDS]

Throughput: the pair of sidecars of ``dataplane``, with and without each of the three at the server (a listener of its
own for each, in the same two processes), by wrk in alternating rounds; the ratio of each round to the plain one of the
same round, as a median. Limit: 0.95. All requests carry the same token, also to the plain listener, so that what
differs is the work and not the bytes. ``again`` is the plain configuration once more: how far its ratio is from 1 is
the noise of the run. The CPU time per request, of both sidecars and of the server's alone, says the same also while
something else is running. ``claims`` is the token with a policy about its principal, without a limit: the sidecar then
stores what the token says.
Policies: the world ``one`` of ``fanout``; 1,000 policies, one for each service, change at once. Limit: 1 s until 200
proxies have theirs.
Certificates: see ``certificates``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import dataplane
import fanout
import sidecars
import tokens
from world import report

ROUNDS, LIMIT = 9, 0.95
PORTS = {name: 26000 + 100 * i for i, name in enumerate(("plain", "again", "jwt", "claims", "rbac", "limit"))}
LIMITED = ("jwt", "rbac", "limit")
SELECTED = "selector: {matchLabels: {app: ratings}}"
_RULE = "{from: [{source: {principals: [cluster.local/ns/default/sa/other-%d]}}], to: [{operation: {paths: [/p%d/*]}}]}"


def documents() -> dict[str, str]:
    keys = tokens.key_set("one").replace("'", "''")
    rule = f"{{issuer: tests.example, jwks: '{keys}', forwardOriginalToken: true}}"
    token = f"kind: RequestAuthentication\nmetadata: {{name: tokens}}\nspec: {{{SELECTED}, jwtRules: [{rule}]}}\n"
    denied = (f"spec: {{{SELECTED}, action: DENY, rules: [{_RULE % (i, i)}]}}" for i in range(100))
    policies = "---\n".join(
        f"kind: AuthorizationPolicy\nmetadata: {{name: p{i}}}\n{spec}\n" for i, spec in enumerate(denied)
    )
    principal = f"spec: {{{SELECTED}, rules: [{{from: [{{source: {{requestPrincipals: [tests.example/joe]}}}}]}}]}}"
    target = "targetRefs: [{group: '', kind: Service, name: ratings}]"
    limit = "{type: Local, local: {rules: [{limit: {requests: 4000000000, unit: Second}}]}}"
    return {
        "plain": "",
        "again": "",
        "jwt": token,
        "claims": f"{token}---\nkind: AuthorizationPolicy\nmetadata: {{name: joe}}\n{principal}\n",
        "rbac": policies,
        "limit": f"kind: BackendTrafficPolicy\nmetadata: {{name: limit}}\nspec: {{{target}, rateLimit: {limit}}}\n",
    }


def pair() -> tuple[sidecars.Json, sidecars.Json]:
    """One client and one server with a listener for each variant. Two processes of the same configuration can differ
    by 15 % for as long as they live (where their memory happens to lie), so all variants are measured in one."""
    sides: list[tuple[sidecars.Json, sidecars.Json]] = []
    for name, text in documents().items():
        found = sidecars.ours("full", PORTS[name], text)
        client, server = (json.loads(json.dumps(side).replace("|9080||", f"|9080|{name}|")) for side in found)
        sides.append((client, server))
    return dataplane.merged([client for client, _ in sides]), dataplane.merged([server for _, server in sides])


def throughput(directory: Path, rounds: int) -> None:
    sidecars.with_certificate(directory)
    header = f"Authorization: Bearer {tokens.token('one')}"
    app = dataplane.Envoy(directory, "app", sidecars.application(), 0)
    client, server = (dataplane.Envoy(directory, f"side-{i}", side, 1) for i, side in enumerate(pair()))
    os.sched_setaffinity(0, {0})
    rps: dict[str, list[float]] = {name: [] for name in PORTS}
    cpu: dict[str, list[tuple[float, float]]] = {name: [] for name in PORTS}
    try:
        time.sleep(2)
        for i in range(rounds):
            for name in list(PORTS)[:: 1 if i % 2 else -1]:
                before = [e.cpu_s() for e in (client, server)]
                rps[name].append(dataplane.saturate(PORTS[name], [header]))
                ours, theirs = (e.cpu_s() - b for e, b in zip((client, server), before, strict=True))
                cpu[name].append(((ours + theirs) / rps[name][-1], theirs / rps[name][-1]))
            print(f"round {i + 1} of {rounds}", file=sys.stderr)
    finally:
        for envoy in (app, client, server):
            envoy.stop()
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    for name in (n for n in PORTS if n != "plain"):
        ratio = dataplane.median([a / b for a, b in zip(rps[name], rps["plain"], strict=True)])
        report(
            bench=name,
            plain_rps=round(dataplane.median(rps["plain"])),
            rps=round(dataplane.median(rps[name])),
            throughput_to_plain=round(ratio, 3),
            by_cpu_time=round(_median_ratio(cpu["plain"], cpu[name], 0), 3),
            by_cpu_time_of_server=round(_median_ratio(cpu["plain"], cpu[name], 1), 3),
            **({"limit_at_least": LIMIT} if name in LIMITED else {}),
        )


def _median_ratio(plain: list[tuple[float, float]], found: list[tuple[float, float]], side: int) -> float:
    return dataplane.median([a[side] / b[side] for a, b in zip(plain, found, strict=True)])


def main() -> None:
    if not shutil.which("wrk"):
        sys.exit("wrk is missing; install it with: apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="lateen-security-") as directory:
        throughput(Path(directory), int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    fanout.run("one", 200, [("policies", 3, None)])


if __name__ == "__main__":
    main()
