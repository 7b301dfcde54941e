"""How long the commands take that people wait for: medians of ten runs, as ratios to a Python that only starts.

Limits: --help 150 ms, version --remote=false 200 ms, analyze of Bookinfo's files 500 ms, of 1,000 objects 2 s.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "samples" / "bookinfo"
RUNS = 10
OBJECTS = """apiVersion: v1
kind: Service
metadata: {{name: s{i}, namespace: default}}
spec: {{ports: [{{port: 80, name: http}}], selector: {{app: s{i}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: p{i}, namespace: default, labels: {{app: s{i}, version: v1}}}}
spec: {{containers: [{{name: a, image: b}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: v{i}, namespace: default}}
spec: {{hosts: [s{i}], http: [{{route: [{{destination: {{host: s{i}, subset: v1}}}}]}}]}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: d{i}, namespace: default}}
spec: {{host: s{i}, subsets: [{{name: v1, labels: {{version: v1}}}}]}}
"""


def median_ms(*argv: str) -> float:
    taken = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run(argv, check=True, capture_output=True)
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def main() -> None:
    lateen = str(Path(sys.executable).parent / "lateen")
    with tempfile.TemporaryDirectory() as folder:
        many = Path(folder) / "thousand.yaml"
        many.write_text("---\n".join(OBJECTS.format(i=i) for i in range(250)))
        bookinfo = [
            str(SAMPLES / "platform" / "kube" / "bookinfo.yaml"),
            str(SAMPLES / "networking" / "bookinfo-gateway.yaml"),
        ]
        base = median_ms(sys.executable, "-c", "pass")
        found = {
            "help_ms": (median_ms(lateen, "--help"), 150),
            "version_ms": (median_ms(lateen, "version", "--remote=false"), 200),
            "analyze_bookinfo_ms": (median_ms(lateen, "analyze", "--use-kube=false", *bookinfo), 500),
            "analyze_1000_objects_ms": (median_ms(lateen, "analyze", "--use-kube=false", str(many)), 2000),
        }
    out: dict[str, float] = {"python_ms": round(base, 1)}
    for name, (value, limit) in found.items():
        out |= {
            name: round(value, 1),
            f"{name}_of_limit": round(value / limit, 2),
            f"{name}_of_python": round(value / base, 1),
        }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
