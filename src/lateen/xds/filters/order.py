"""The order of filters, with the reason for each position. A row yields a chain's filters of one kind, if any."""

from __future__ import annotations

from functools import lru_cache

from lateen.xds.filters import (
    acme,
    authentication,
    authorization,
    cors,
    dynamic_forward,
    fault,
    grpc_messages,
    mongo,
    plugins,
    protocol_mark,
    quota,
    rate_limit,
    redis,
    router,
    security,
    sessions,
    sni_cluster,
    sni_forward,
    tcp_proxy,
    workload,
)
from lateen.xds.filters.chain import Connections, HttpFilter, NetworkFilter, Requests

HTTP = (
    acme.http,  # ACME servers have no credentials, and the responses are public
    authorization.custom,  # first, as in Istio: the provider sees unmodified requests
    security.cors,  # answers preflight requests, which have no credentials
    security.guards,  # who asks: other filters, plugins included, may depend on it
    plugins.before_authentication,  # phases as in Istio
    authentication.http,  # claims of tokens are conditions of policies
    plugins.before_authorization,
    authorization.http,  # denied requests should cost nothing more, and no other filter should act on them
    security.rules,  # about headers, which claims of tokens and plugins may replace
    rate_limit.http,  # denied requests do not count; requests over the limit should cost nothing more
    quota.http,  # requests refused by local limits do not use up shared ones
    plugins.others,  # on what is let in
    dynamic_forward.http,  # resolves the request's host while the other filters run
    protocol_mark.http,  # before the router connects
    fault.http,  # a fault replaces the response, that of a preflight included, as in Istio
    cors.http,
    grpc_messages.http,  # of what is let in, and forwarded
    sessions.http,  # says which endpoint the router chooses
    router.http,  # forwards: nothing can follow it
)
NETWORK = (
    workload.network,  # sets state that all others, and the logs, may read
    plugins.connections_first,
    authorization.network,
    plugins.connections_after,  # on what is let in
    sni_cluster.network,  # chooses the cluster
    sni_forward.network,  # finds the address
    protocol_mark.network,  # before the proxy connects
    mongo.network,  # only observes
    redis.network,  # replaces the proxy, so that commands are balanced instead of connections
    tcp_proxy.network,  # forwards: nothing can follow it
)


@lru_cache(maxsize=1024)
def http(chain: Requests) -> tuple[HttpFilter, ...]:
    return tuple(f for row in HTTP for f in row(chain))


def network(chain: Connections) -> list[NetworkFilter]:
    return [f for row in NETWORK for f in row(chain)]
