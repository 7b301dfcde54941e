"""Envoy's memory with 1,000 services, and with a Sidecar resource for five of them.

Both in the same run, with the configuration that istiod makes, as files. Private memory counts (Envoy's binary is
shared by all proxies of a machine), besides what Envoy itself says that it has allocated.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from world import report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit"))

PORT = 25900
SIDECAR = {"egress": [{"hosts": [f"./s{i}.d.svc.cluster.local" for i in range(5)]}]}


KINDS = {
    "clusters": ("cds_config", "type.googleapis.com/envoy.config.cluster.v3.Cluster"),
    "listeners": ("lds_config", "type.googleapis.com/envoy.config.listener.v3.Listener"),
}


def _as_resources(path: Path) -> Path:
    """Clusters and listeners as files that Envoy reads like a control plane's answers: in the bootstrap itself they
    would stay in memory twice."""
    whole = json.loads(path.read_text())
    dynamic = {}
    for kind, (source, type_url) in KINDS.items():
        found = [{"@type": type_url, **r} for r in whole["staticResources"].pop(kind, [])]
        file = path.parent / f"{kind}.json"
        file.write_text(json.dumps({"version_info": "1", "type_url": type_url, "resources": found}))
        dynamic[source] = {"resource_api_version": "V3", "path_config_source": {"path": str(file)}}
    path.write_text(json.dumps({**whole, "dynamic_resources": dynamic}))
    return path


def measured(view: Any) -> dict[str, float]:
    import judge

    from lateen.cluster.kubelet.images import envoy_binary

    def local(out: Any) -> None:
        out.admin.address.socket_address.address = "127.0.0.1"
        out.admin.address.socket_address.port_value = PORT
        for listener in out.static_resources.listeners:
            listener.address.socket_address.address = "127.0.0.1"
            if listener.name in ("virtualInbound", "virtualOutbound"):
                listener.address.socket_address.port_value += 11000
        out.stats_config.stats_matcher.inclusion_list.patterns.add(prefix="istio")

    with tempfile.TemporaryDirectory() as directory:
        path = _as_resources(judge.bootstrap(judge.messages(view), Path(directory), None, local))
        process = subprocess.Popen(
            [envoy_binary(), "-c", str(path), "--concurrency", "2", "--disable-hot-restart", "--log-level", "error"]
        )
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/ready", timeout=2) as answer:
                        if answer.status == 200:
                            break
                except OSError:
                    if time.monotonic() > deadline or process.poll() is not None:
                        sys.exit("Envoy is not ready")
                time.sleep(0.1)
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/memory", timeout=5) as answer:
                allocated = int(json.loads(answer.read())["allocated"])
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            private = sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_Dirty"))
            return {"private_mb": round(private / 1024, 1), "allocated_mb": round(allocated / 2**20, 1)}
        finally:
            process.terminate()
            process.wait(10)


def main() -> None:
    from fanout import build

    from lateen.api import kinds
    from lateen.api import objects as o
    from lateen.api.config import decode
    from lateen.api.networking import Sidecar
    from lateen.mesh.model import Mesh
    from lateen.mesh.views import Views

    objects = build()
    pod = objects.pods[("d", "s0-0")]
    whole = measured(Views(Mesh(objects)).of(pod, "sidecar"))
    made = o.Resource(kinds.SIDECAR.ref("d", "few"), "u", "u/1", "2026-01-01T00:00:00Z", decode(Sidecar, SIDECAR))
    few = measured(Views(Mesh(objects.put(kinds.SIDECAR, ("d", "few"), made))).of(pod, "sidecar"))
    report(
        bench="memory",
        services=1000,
        whole=whole,
        sidecar_for_five=few,
        ratio=round(few["private_mb"] / whole["private_mb"], 3),
        kb_a_service=round((whole["private_mb"] - few["private_mb"]) * 1024 / 995, 1),
    )


if __name__ == "__main__":
    main()
