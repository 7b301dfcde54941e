"""What istiod costs at its first start among many objects, and ``lateen analyze`` over them; as CPU time.

The cluster is the embedded one's API server with 1,000 Services with 3 pods each, 1,000 VirtualServices and
1,000 DestinationRules, none of them with a status, and nothing else: no pod runs, and no proxy is connected.

Baseline of the same run: a plain loop of ten million steps. Limits: 2 CPU seconds until istiod is ready, 2 for all
statuses (istiod's and its analysis'), 2 for ``analyze -A``.
"""

from __future__ import annotations

import asyncio
import compileall
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from world import report

import lateen
from lateen.api import crds, kinds
from lateen.control.findings import Child, fork
from lateen.kit.files import write_atomic

SERVICES, PODS, NAMESPACE = int(os.environ.get("BENCH_SERVICES", "1000")), 3, "shop"
SYSTEM = "istio-system"
LONGEST_S = 120


def objects() -> list[tuple[kinds.Kind, dict[str, Any]]]:
    out: list[tuple[kinds.Kind, dict[str, Any]]] = []

    def add(kind: kinds.Kind, name: str, spec: dict[str, Any], **meta: Any) -> None:
        out.append((kind, {"metadata": {"name": name, "namespace": NAMESPACE, **meta}, "spec": spec}))

    for i in range(SERVICES):
        host = f"s{i}"
        add(kinds.SERVICE, host, {"selector": {"app": host}, "ports": [{"name": "http", "port": 80}]})
        for j in range(PODS):
            containers = [{"name": "app", "image": "app"}, {"name": "istio-proxy", "image": "proxy"}]
            # On a node that is not there, so that nothing runs them.
            spec = {"nodeName": "elsewhere", "containers": containers}
            add(kinds.POD, f"{host}-{j}", spec, labels={"app": host, "version": f"v{j}"})
        route = [{"destination": {"host": host, "subset": "v0"}}]
        add(kinds.VIRTUAL_SERVICE, host, {"hosts": [host], "http": [{"timeout": "3s", "route": route}]})
        subsets = [{"name": f"v{j}", "labels": {"version": f"v{j}"}} for j in range(PODS)]
        add(kinds.DESTINATION_RULE, host, {"host": host, "subsets": subsets})
    return out


async def serve(home: Path) -> None:
    """The embedded cluster's API server alone, with all objects in memory; writes home/kubeconfig when it serves."""
    from lateen.cluster.apiserver import strategies
    from lateen.cluster.apiserver.admission import Webhooks
    from lateen.cluster.apiserver.api import Api
    from lateen.cluster.apiserver.auth import Tokens
    from lateen.cluster.apiserver.direct import DirectClient
    from lateen.cluster.apiserver.http import Server, tls
    from lateen.cluster.apiserver.registry import Registry
    from lateen.cluster.bootstrap import bootstrap
    from lateen.cluster.pki import Pki
    from lateen.cluster.store.objects import Store

    strategies.MAX_PODS = SERVICES * PODS  # nothing runs them
    store, pki = Store(lambda *_: None), Pki(home)
    allocator = strategies.Allocator(store, "10.96.0.0/16")
    registry = Registry()
    api = Api(store, registry, Webhooks(store, registry), Tokens(pki.token_key, store), allocator)
    client = DirectClient(api, "kube-apiserver")
    await bootstrap(client)
    for obj in crds.crds():
        await client.create(kinds.CRD, obj)
    for name, labels in ((SYSTEM, {}), (NAMESPACE, {"istio-injection": "enabled"})):
        await client.create(kinds.NAMESPACE, {"metadata": {"name": name, "labels": labels}})
        account = {"metadata": {"name": "default", "namespace": name}}
        await client.create(kinds.SERVICE_ACCOUNT, account)
    for kind, obj in objects():
        await client.create(kind, {"apiVersion": kind.api_version, "kind": kind.kind, **obj})
    context = tls(str(pki.server), str(pki.server_key), str(pki.ca_file))
    protocol = Server(api, None).protocol  # type: ignore[arg-type]
    listening = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=context)
    write_atomic(home / "kubeconfig", pki.kubeconfig(listening.sockets[0].getsockname()[1]), 0o600)
    await asyncio.Event().wait()


async def istiod(analysis: Child) -> dict[str, float]:
    """istiod without its servers: from nothing to ready, and until every object has a status."""
    from lateen.control.app import Istiod
    from lateen.control.plane import Control
    from lateen.control.roots import Roots
    from lateen.control.settings import Settings
    from lateen.kube.kubeconfig import from_files

    settings = Settings.of(os.environ)
    async with from_files([Path(os.environ["KUBECONFIG"])]) as client:
        control = Control(client, settings.namespace, settings.revision)
        roots = Roots(client, settings.namespace, settings.trust_domain, settings.ca, lambda: started.leading.held())
        await roots.start()
        started = Istiod(settings, client, roots, control, analysis)
        await started.learn()
        control.newest()
        ready = time.process_time()
        started.work()
        wanted = (kinds.VIRTUAL_SERVICE, kinds.DESTINATION_RULE)
        watched = [i for i in started.informers if i.kind in wanted]
        async with asyncio.timeout(LONGEST_S):
            while not all(
                len(i.objects) == SERVICES and all(o.get("status") for o in i.objects.values()) for i in watched
            ):
                await asyncio.sleep(0.25)
        written = time.process_time()
        await asyncio.sleep(1)  # what follows a status is part of what it costs
        await started.leading.writer.close()
    child = resource.getrusage(resource.RUSAGE_CHILDREN)
    analysed = child.ru_utime + child.ru_stime
    return {
        "ready_s": round(ready, 2),
        "statuses_istiod_s": round(written - ready, 2),
        "statuses_analysis_s": round(analysed, 2),
        "statuses_s": round(written - ready + analysed, 2),
    }


def baseline() -> float:
    began, number = time.process_time(), 0
    for i in range(10_000_000):
        number += i
    return time.process_time() - began


def children() -> float:
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


@contextmanager
def server() -> Iterator[None]:
    """``$KUBECONFIG`` leads to an API server that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="lateen-bench-") as home:
        process = subprocess.Popen([sys.executable, __file__, "server", home])
        try:
            config = Path(home) / "kubeconfig"
            for _ in range(LONGEST_S * 10):
                if config.exists() or process.poll() is not None:
                    break
                time.sleep(0.1)
            os.environ["KUBECONFIG"] = str(config)
            yield
        finally:
            process.kill()
            process.wait()


def main() -> None:
    # An installation has its bytecode; without, what is measured is Python's compiler.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    match sys.argv[1:]:
        case ["istiod"]:
            print(json.dumps(asyncio.run(istiod(fork()))))
        case ["server", home]:
            asyncio.run(serve(Path(home)))
        case _:
            compileall.compile_dir(Path(lateen.__file__).parent, quiet=1)
            with server():
                measure()


def measure() -> None:
    done = subprocess.run([sys.executable, __file__, "istiod"], check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    before = children()
    subprocess.run([str(Path(sys.executable).parent / "lateen"), "analyze", "-A"], check=False, capture_output=True)
    found["analyze_s"] = round(children() - before, 2)
    report(bench="status", services=SERVICES, pods=SERVICES * PODS, rules=2 * SERVICES, **found)
    loop = baseline()
    report(
        bench="status", baseline_s=round(loop, 2), **{f"{k}_of_baseline": round(v / loop, 2) for k, v in found.items()}
    )
    report(bench="status", ready_limit_s=2, statuses_limit_s=2, analyze_limit_s=2)


if __name__ == "__main__":
    main()
