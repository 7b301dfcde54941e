"""What security costs: tokens, 100 authorization policies and a local rate limit at a sidecar, and how soon 1,000
policies are everywhere. security.py [ROUNDS]

Throughput: the pair of sidecars of ``dataplane``, with and without each of the three at the server, by wrk in
alternating rounds; the ratio of each round to the plain one of the same round, as a median. Limit: 0.95. All
requests carry the same token, also to the plain pair, so that what differs is the work and not the bytes. The CPU time
per request, of both sidecars and of the server's alone, says the same also while something else is running.
Policies: the world ``one`` of ``fanout``; 1,000 policies, one for each service, change at once. Limit: 1 s until 200
proxies have theirs.
Certificates: see ``certificates``.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import dataplane
import fanout
import tokens
from world import report

from lateen.agent.certificates import Trusted, write_secrets
from lateen.kit import certs, times

ROUNDS, LIMIT = 9, 0.95
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
    target = "targetRefs: [{group: '', kind: Service, name: ratings}]"
    limit = "{type: Local, local: {rules: [{limit: {requests: 4000000000, unit: Second}}]}}"
    return {
        "plain": "",
        "jwt": token,
        "rbac": policies,
        "limit": f"kind: BackendTrafficPolicy\nmetadata: {{name: limit}}\nspec: {{{target}, rateLimit: {limit}}}\n",
    }


def throughput(directory: Path, rounds: int) -> None:
    ca = certs.authority("bench", times.now())
    leaf = certs.issue(ca, ["spiffe://cluster.local/ns/default/sa/sa-ratings"], times.now(), timedelta(hours=1))
    write_secrets(directory, leaf.certificate, leaf.key, Trusted(ca.certificate))
    header = f"Authorization: Bearer {tokens.token('one')}"
    ports = {name: 26000 + 100 * i for i, name in enumerate(documents())}
    app = dataplane.Envoy(directory, "app", dataplane.application(), 0)
    pairs: dict[str, list[dataplane.Envoy]] = {}
    for name, text in documents().items():
        sides = dataplane.ours("full", ports[name], text)
        pairs[name] = [dataplane.Envoy(directory, f"{name}-{i}", side, 1) for i, side in enumerate(sides)]
    os.sched_setaffinity(0, {0})
    rps: dict[str, list[float]] = {name: [] for name in ports}
    cpu: dict[str, list[tuple[float, float]]] = {name: [] for name in ports}
    try:
        time.sleep(2)
        for i in range(rounds):
            for name in list(ports)[:: 1 if i % 2 else -1]:
                before = [e.cpu_s() for e in pairs[name]]
                rps[name].append(dataplane.saturate(ports[name], [header]))
                client, server = (e.cpu_s() - b for e, b in zip(pairs[name], before, strict=True))
                cpu[name].append(((client + server) / rps[name][-1], server / rps[name][-1]))
    finally:
        for envoy in [app, *(e for pair in pairs.values() for e in pair)]:
            envoy.stop()
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    for name in (n for n in ports if n != "plain"):
        ratio = dataplane.median([a / b for a, b in zip(rps[name], rps["plain"], strict=True)])
        report(
            bench=name,
            plain_rps=round(dataplane.median(rps["plain"])),
            rps=round(dataplane.median(rps[name])),
            throughput_to_plain=round(ratio, 3),
            by_cpu_time=round(_median_ratio(cpu["plain"], cpu[name], 0), 3),
            by_cpu_time_of_server=round(_median_ratio(cpu["plain"], cpu[name], 1), 3),
            limit_at_least=LIMIT,
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
