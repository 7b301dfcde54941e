"""The world of the benchmarks with many namespaces: 100 of them, 1,000 services, one name that all of them have.

Workloads are of 200 kinds: in each namespace, one that sees everything and one whose Sidecar shows its own namespace
and the next one.
"""

from __future__ import annotations

from typing import Any

NAMESPACES, EACH = 100, 10


def build() -> Any:
    """The objects of the mesh; each namespace ``n0`` … ``n99`` has services ``redis`` and ``s1`` … ``s9``."""
    from lateen.api import kinds
    from lateen.api import objects as o
    from lateen.api.config import decode
    from lateen.api.networking import Sidecar
    from lateen.mesh.objects import Objects
    from lateen.mesh.observability import Reporting
    from lateen.mesh.settings import MeshConfig

    services, pods, slices, sidecars = {}, {}, {}, {}
    for n in range(NAMESPACES):
        space = f"n{n}"
        for i in range(EACH):
            name = f"s{i}" if i else "redis"
            key = (space, name)
            port = o.ServicePort("http", 80, 8080, "TCP")
            services[key] = o.Service(space, name, f"10.96.{n}.{i + 1}", (port,), (("app", name),))
            found = []
            for k in range(3):
                pod = o.Pod(
                    space,
                    f"{name}-{k}",
                    f"u{n}-{i}-{k}",
                    f"10.{n}.{i + 1}.{k + 1}",
                    (("app", name), ("kind", "narrow" if i % 2 else "wide"), ("security.istio.io/tlsMode", "istio")),
                    "default",
                    name,
                    (("", 8080, "TCP"),),
                    True,
                )
                pods[(space, pod.name)] = pod
                found.append(o.Endpoint(pod.address, 8080, pod.name))
            slices[key] = (name, {"http": tuple(found)})
        spec = decode(
            Sidecar,
            {
                "workloadSelector": {"labels": {"kind": "narrow"}},
                "egress": [{"hosts": ["./*", f"n{(n + 1) % NAMESPACES}/*"]}],
            },
        )
        ref = kinds.SIDECAR.ref(space, "narrow")
        sidecars[(space, "narrow")] = o.Resource(ref, f"u-{space}", f"u-{space}/1", "2026-01-01T00:00:00Z", spec)
    tables: dict[kinds.Kind, dict[tuple[str, str], Any]] = {
        kinds.SERVICE: services,
        kinds.ENDPOINT_SLICE: slices,
        kinds.POD: pods,
        kinds.SIDECAR: sidecars,
    }
    return Objects(
        MeshConfig(reporting=Reporting("/dev/stdout")), {kind.id: objects for kind, objects in tables.items()}
    )
