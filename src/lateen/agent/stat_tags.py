"""Which parts of the names of Envoy's statistics become labels of Prometheus: the tags of Istio's proxies, whose
dashboards and alerts look for ``envoy_cluster_upstream_cx_total{cluster_name="xds-grpc"}``.

Envoy searches a name as a whole for each pattern (ECMAScript, at most 1024 characters), takes its first group out of
the name, and its second one for the value. It tries a pattern that begins with a word only for names that do, which
costs a third less where somebody keeps all statistics. ``/stats`` and statsd have whole names all the same.

Source: ``stats_tags`` in istio.io/istio tools/packaging/common/envoy_bootstrap.json, and ``TagSpecifier`` in
https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/metrics/v3/stats.proto. Istio gives each cluster and
connection manager a second name that ends with a semicolon, to tell names with dots from what follows. Here, what
follows is known: its last part, and before that at most one of the groups of statistics that Envoy has.
"""

from __future__ import annotations

from lateen.kit.jsons import Json

_GROUPS = (
    r"circuit_breakers\.\w+",
    "outlier_detection",
    "health_check",
    "http[123]",
    r"ssl(?:\.(?:ciphers|curves|sigalgs|versions(?:\.TLSv1)?|certificate\.[^.]+))?",
    "(?:client|server)_ssl_socket_factory",
    r"[^.]+(?=\.total_match_count$)",
    # a host below .internal loses its end in these
    r"(?:canary|external|internal|retry|zone\.[^.]+\.[^.]+)(?=\.upstream_rq_(?:\w\w\w|completed|time)$)",
    r"grpc(?:\..+)?(?=\.(?:success|failure|total|\d+|(?:request|response)_message_count)$)",
    r"(?:ext_authz|ratelimit|ext_proc)(?:\.\w+)?",
)
"""Groups of a cluster's statistics."""
_ADDRESS = r"(?:[\d.]+|\[[\da-fA-F_]*\])_\d+"
_MANAGER = r"(?:in|out)bound_.*?_\d+(?=\.)|[^.]+"
"""A connection manager: what it serves, with the address of its listener; or a word."""

TAGS = (
    ("cluster_name", rf"^cluster\.((.+?)\.)(?:(?:{'|'.join(_GROUPS)})\.)?[^.]+$"),
    ("tcp_prefix", r"^tcp\.((?!rbac\.)(.+)\.)\w+$"),
    ("response_code", r"_rq(_(\d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    ("http_conn_manager_listener_prefix", rf"^listener\..*?\.http\.(({_MANAGER})\.)"),
    ("http_conn_manager_prefix", rf"^http\.(({_MANAGER})\.)"),
    ("listener_address", rf"^listener\.(({_ADDRESS})\.)"),
    ("mongo_prefix", r"^mongo\.((.+?)\.)(?:collection|cmd|cx_|op_|delays_|decoding_)"),
    ("thread_name", r"^server(\.(.+))\.watchdog"),
    ("wasm_filter", r"^wasmcustom\..*?(wasm_filter\.(.+?)\.)"),
    *(
        (label, rf"^{kind}\.(?:.*\.)?{pattern}")
        for kind in ("http", "tcp")
        for label, pattern in (
            ("authz_enforce_result", r"rbac(\.(allowed|denied))$"),
            ("authz_dry_run_action", r"rbac(\.istio_dry_run_(allow|deny)_)\."),
            ("authz_dry_run_result", r"rbac(?:\.\w+)?(\.shadow_(allowed|denied))$"),
        )
    ),
)
"""(label, pattern)"""


def config() -> list[Json]:
    """``stats_tags`` of a bootstrap."""
    return [{"tag_name": name, "regex": pattern} for name, pattern in TAGS]
