"""The order of filters, with a reason for each place. A row gives a chain's filters of one kind, or none."""

from __future__ import annotations

from functools import lru_cache

from lateen.xds.filters import (
    authorization,
    cors,
    dynamic_forward,
    fault,
    mongo,
    protocol_mark,
    redis,
    router,
    sni_cluster,
    sni_forward,
    tcp_proxy,
)
from lateen.xds.filters.chain import Connections, HttpFilter, NetworkFilter, Requests

HTTP = (
    authorization.http,  # what is refused shall cost nothing, and no filter acts on it
    dynamic_forward.http,  # looks up the request's host while the rest goes on
    protocol_mark.http,  # before the router connects
    fault.http,  # a fault takes the place of the answer, preflights included, as in Istio
    cors.http,
    router.http,  # forwards: nothing comes after it
)
NETWORK = (
    authorization.network,
    sni_cluster.network,  # chooses the cluster
    sni_forward.network,  # finds the address
    mongo.network,  # only watches
    redis.network,  # takes the place of the proxy, so that commands are balanced and not connections
    tcp_proxy.network,  # forwards: nothing comes after it
)


@lru_cache(maxsize=64)
def http(chain: Requests) -> tuple[HttpFilter, ...]:
    return tuple(f for row in HTTP for f in row(chain))


def network(chain: Connections) -> list[NetworkFilter]:
    return [f for row in NETWORK for f in row(chain)]
