"""Run all benchmarks, or those that are named: python bench/run.py [NAME]... (cli, demo, effect, ...).

Each prints lines of figures in JSON; those with a baseline measure it in the same run and print ratios.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ALL = (
    "cli",
    "demo",
    "effect",
    "fanout",
    "scale",
    "memory",
    "status",
    "pods",
    "apiserver",
    "dataplane",
    "series",
    "day",
    "scraping",
    "console",
    "certificates",
    "gateways",
    "security",
)


def main() -> None:
    wanted = sys.argv[1:] or list(ALL)
    if unknown := [w for w in wanted if w not in ALL]:
        sys.exit(f"there is no benchmark {', '.join(unknown)}; there are: {', '.join(ALL)}")
    failed = 0
    for name in wanted:
        print(f"== {name}", flush=True)
        failed += subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode != 0
    print(json.dumps({"benchmarks": len(wanted), "failed": failed}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
