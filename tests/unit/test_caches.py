"""What is derived from a view belongs to the view (``kit.derived``); a cache with a capacity needs a reason."""

import ast
from pathlib import Path

import lateen

ROOMS = ("ads", "control", "mesh", "xds")
MESSAGE = "a message, which cannot be referred to weakly; many chains and hosts share it, and it is soon made again"
TEXT = "of a text or number that users write: reading it again costs more than keeping it"
PATCHES = "of EnvoyFilters' patches, whose results are messages and pairs; few proxies have any"
ALLOWED = {
    "mesh.protocols:protocol": TEXT,
    "mesh.proxies:_read": TEXT,
    "mesh.registry:numeric": TEXT,
    "xds.access_log:logger": MESSAGE,
    "xds.authz.filters:plain": MESSAGE,
    "xds.clusters:fixed": "a pair of resources for each connect timeout, of which a mesh has one",
    "xds.filters.order:http": MESSAGE,
    "xds.filters.plugins:_of_connections": MESSAGE,
    "xds.filters.plugins:_requests": MESSAGE,
    "xds.filters.quota:_slot": MESSAGE,
    "xds.filters.slots:slot": MESSAGE,
    "xds.filters.workload:slot": MESSAGE,
    "xds.patches.apply:_added": PATCHES,
    "xds.patches.apply:_resource": PATCHES,
    "xds.patches.apply:_set": PATCHES,
    "xds.patches.operations:parsed": PATCHES,
    "xds.proxyless_servers:upstream": MESSAGE,
    "xds.rate_limits:config": MESSAGE,
    "xds.rate_limits:of_host": MESSAGE,
    "xds.routes.virtual_host:_rest": MESSAGE,
    "xds.security:cors": MESSAGE,
    "xds.telemetry:metrics": MESSAGE,
    "xds.tls:downstream": MESSAGE,
    "xds.tls:upstream": MESSAGE,
    "xds.tracing:of": MESSAGE,
}


def bounded():
    root = Path(lateen.__file__).parent
    for room in ROOMS:
        for file in sorted((root / room).rglob("*.py")):
            module = ".".join(file.relative_to(root).with_suffix("").parts)
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef) and any(
                    "lru_cache" in ast.unparse(d) for d in node.decorator_list
                ):
                    yield f"{module}:{node.name}"


def test_every_cache_with_a_capacity_has_a_reason():
    assert set(bounded()) == set(ALLOWED)
