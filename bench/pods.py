"""Memory of each pod's agent and Envoy, with Bookinfo and the gateways running: PSS and RSS of every process."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

from world import cluster, report


def memory(pid: Path) -> tuple[float, float, float]:
    """RSS, PSS and private MB."""
    values = {}
    for line in (pid / "smaps_rollup").read_text().splitlines()[1:]:
        key, _, rest = line.partition(":")
        values[key] = float(rest.split()[0]) / 1024
    return values["Rss"], values["Pss"], values["Private_Dirty"] + values["Private_Clean"]


def main() -> None:
    with cluster() as environment:
        home = environment["LATEEN_HOME"]
        groups: dict[str, list[tuple[float, float, float]]] = {}
        portal = int((Path(home) / "cluster.pid").read_text().split()[0])
        for pid in descendants(portal):
            path = Path(f"/proc/{pid}")
            try:
                argv = (path / "cmdline").read_bytes().split(b"\0")
                name = (path / "comm").read_text().strip()
                kind = {"envoy": "envoy", "pilot-agent": "agent"}.get(name) or next(
                    (
                        k
                        for k, marker in (
                            ("istiod", b"lateen.control"),
                            ("node daemon", b"lateen.cluster.node"),
                            ("runtime", b"lateen.cluster.inside"),
                            ("portal", b"lateen.cluster.portal_process"),
                            ("application", b"lateen.samples."),
                        )
                        if any(marker in a for a in argv)
                    ),
                    "",
                )
                if kind:
                    groups.setdefault(kind, []).append(memory(path))
            except OSError:
                continue
        for kind, found in sorted(groups.items()):
            rss, pss, private = (statistics.median(v) for v in zip(*found, strict=True))
            report(
                process=kind,
                count=len(found),
                rss_mb=round(rss, 1),
                pss_mb=round(pss, 1),
                private_mb=round(private, 1),
                **({"limit_rss_mb": {"agent": 35, "envoy": 60}[kind]} if kind in ("agent", "envoy") else {}),
            )


def descendants(pid: int) -> list[int]:
    out = [pid]
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        out += descendants(int(child))
    return out


if __name__ == "__main__":
    os.environ.setdefault("NO_COLOR", "1")
    main()
