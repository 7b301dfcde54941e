"""Features that are taken out of the translator, and the tests of the conformance suite that have to notice.

A mutant is a copy of the package in which one function is replaced; istiod alone runs it, from an image of its own.
``run.py --mutate NAME`` fails if a test passes nevertheless.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import lateen


class Mutant(NamedTuple):
    path: str
    """Of the module, below the package."""
    without: str
    """Written at its end, so that it replaces what has the name there."""
    tests: tuple[str, ...]
    """Each of these has to fail."""


API = "mesh/dialects/gateway_api"
MUTANTS = {
    "order": Mutant(f"{API}/templates.py", "def _http_rank(m): return (0,)", ("HTTPRouteMatchingAcrossRoutes",)),
    "isolation": Mutant(
        f"{API}/listeners.py",
        "def isolated(written, others, hosts): return tuple(hosts)",
        ("GatewayHTTPListenerIsolation",),
    ),
    "grants": Mutant(
        "mesh/gateway_routes.py",
        "GatewayRoutes._may_use_backend = lambda *_: True",
        ("HTTPRouteInvalidCrossNamespaceBackendRef",),
    ),
    "redirects": Mutant(f"{API}/settings.py", "def _redirect(given): return None", ("HTTPRouteRedirectHostAndStatus",)),
    "rewrites": Mutant(f"{API}/settings.py", "def rewrite(given, match): return None", ("HTTPRouteRewritePath",)),
    "mirrors": Mutant(f"{API}/templates.py", "def _mirrors(*_): return iter(())", ("HTTPRouteRequestMirror",)),
    "methods": Mutant(f"{API}/templates.py", "def _grpc_path(m): return None", ("GRPCExactMethodMatching",)),
    "misdirected": Mutant(
        f"{API}/templates.py",
        "def misdirected(gateway, port): return Route((gateway.ref, port), name='none', match=None, backends=(), "
        "settings=settings.answer(404), mirrors=(), port=port, scheme='https', rule=gateway.ref, origins=())",
        ("HTTPRouteHTTPSListenerDetectMisdirectedRequests",),
    ),
    "mesh": Mutant(
        "mesh/gateway_routes.py",
        "GatewayRoutes.mesh_requests = lambda *_: None",
        ("MeshHTTPRouteRequestHeaderModifier",),
    ),
    "backend-tls": Mutant(
        "mesh/backend_policies.py", "BackendPolicies.backend_tls = lambda *_: ()", ("BackendTLSPolicy",)
    ),
    "datagrams": Mutant("xds/listeners/datagrams.py", "def listeners(view): return iter(())", ("UDPRoute",)),
    "connections": Mutant("xds/routes/connections.py", "def clusters(route): return ()", ("TCPRouteWeightedRouting",)),
}


def write(name: str, under: Path) -> Path:
    """The directory with the mutant of that name, for PYTHONPATH."""
    found, directory = MUTANTS[name], under / name
    shutil.rmtree(directory, ignore_errors=True)
    source = Path(lateen.__file__).parent
    shutil.copytree(source, directory / "lateen", ignore=shutil.ignore_patterns("__pycache__", "static"))
    with (directory / "lateen" / found.path).open("a") as module:
        module.write(f"\n\n{found.without}\n")
    return directory
