"""The configuration of a client's and a server's sidecar with an application between them, all on loopback: exactly the
listeners, filters, loggers, TLS and clusters that the translator makes, with other addresses."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit"))

import judge
import meshes
from google.protobuf import json_format

from lateen.agent import statistics
from lateen.agent.certificates import Trusted, write_secrets
from lateen.kit import certs, times
from lateen.mesh.observability import Reporting
from lateen.mesh.settings import MeshConfig
from lateen.wire import labels, names, requests

APP = 21000
LOG = "/bench/access.log"
"""Becomes a file of the run's directory; nothing else in a configuration looks like it (``%ACCESS_LOG_TYPE%`` is an
operator of Envoy's)."""
HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
Json = dict[str, Any]

PRINCIPAL = "spiffe://cluster.local/ns/default/sa/sa-ratings"
SAID = "ratings-v1;default;ratings;v1;ratings;v1;Kubernetes"
OLDER = {key: value for key, value in meshes.AGENT.items() if key != requests.METADATA}
"""An agent that does not count requests."""


def with_certificate(directory: Path, said: str = SAID, ca: certs.Pair | None = None) -> None:
    """Write one of a mesh where both sides are the same workload. ``said``: the workload's description."""
    ca = ca or certs.authority("bench", times.now())
    key = certs.new_key()
    leaf = certs.sign(ca, key.public_key(), [PRINCIPAL], times.now(), timedelta(hours=1), description=said)
    write_secrets(directory, leaf, certs.key_pem(key), Trusted(ca.certificate))


def as_json(message: Any) -> Json:
    return dict(json_format.MessageToDict(message, preserving_proto_field_name=True))


def address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def bootstrap(listener: Json, clusters: list[Json], admin: int) -> Json:
    keep = [{"prefix": p} for p in ("istio", "server", "access_logger")]
    return {
        "node": {"id": "bench", "cluster": "bench"},
        "admin": {"address": address(admin)},
        "static_resources": {"listeners": [listener], "clusters": clusters},
        "stats_config": {"use_all_default_tags": False, "stats_matcher": {"inclusion_list": {"patterns": keep}}},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": statistics.runtime({})}]},
    }


def static(cluster: Json, port: int) -> Json:
    """The cluster as generated, but with a known endpoint."""
    out = {k: v for k, v in cluster.items() if k not in ("eds_cluster_config", "upstream_bind_config")}
    endpoint = {
        "endpoint": {"address": address(port)},
        "metadata": {
            "filter_metadata": {"lateen": {labels.OF_DESCRIPTION: SAID, **dict.fromkeys(labels.PARTS, "bench")}}
        },
    }
    return {
        **out,
        "type": "STATIC",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": out["name"], "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def held(filter_: Json, found: Any) -> Json:
    """A slot's configuration in its place."""
    if "config_discovery" not in filter_:
        return filter_
    return {"name": filter_["name"], "typed_config": as_json(found[names.ECDS][filter_["name"]].typed_config)}


def filled(filter_: Json, found: Any) -> Json:
    """With the slots of a connection manager filled, too."""
    config = filter_["typed_config"]
    if "http_filters" not in config:
        return filter_
    return {**filter_, "typed_config": {**config, "http_filters": [held(f, found) for f in config["http_filters"]]}}


def ours(telemetry: str, base: int, documents: str = "", agent: dict[str, str] = meshes.AGENT) -> tuple[Json, Json]:
    """``documents``: objects of the mesh besides its services, as YAML; ``agent``: what it says of itself."""
    config = MeshConfig(reporting=Reporting(LOG if telemetry == "full" else "", lean=telemetry == "lean"))
    found = judge.messages(meshes.view(meshes.objects(documents, config), "ratings-v1", agent=agent))
    outbound = as_json(found[names.LDS]["0.0.0.0_9080"])
    for chain in (*outbound["filter_chains"], outbound["default_filter_chain"]):
        chain["filters"] = [filled(held(f, found), found) for f in chain["filters"]]
    manager = outbound["filter_chains"][0]["filters"][-1]["typed_config"]
    manager.pop("rds")
    manager["route_config"] = as_json(judge.routes(found, "9080"))
    name = "outbound|9080||ratings.default.svc.cluster.local"
    client = bootstrap(
        {**outbound, "address": address(base), "bind_to_port": True},
        [
            static(as_json(c), base + 1)
            for c in found[names.CDS].values()
            if c.name.startswith("outbound") and c.name == name
        ]
        + [plain(c.name) for c in found[names.CDS].values() if c.name != name],
        base + 2,
    )
    inbound = as_json(found[names.LDS][names.VIRTUAL_INBOUND])
    chain = next(
        c
        for c in inbound["filter_chains"]
        if c.get("filter_chain_match", {}).get("destination_port") == 9080 and "transport_socket" in c
    )
    chain.pop("filter_chain_match")
    chain["filters"] = [filled(f, found) for f in chain["filters"]]
    server = bootstrap(
        {"name": "inbound", "address": address(base + 1), "filter_chains": [chain]},
        [static(as_json(found[names.CDS]["inbound|9080||"]), APP)],
        base + 3,
    )
    return client, server


def plain(name: str) -> Json:
    return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name}}


def application() -> Json:
    manager = {
        "@type": HCM,
        "stat_prefix": "app",
        "generate_request_id": False,
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "app",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "direct_response": {"status": 200, "body": {"inline_string": "x" * 1024}},
                        }
                    ],
                }
            ]
        },
    }
    listener = {
        "name": "app",
        "address": address(APP),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return bootstrap(listener, [], APP + 1)
