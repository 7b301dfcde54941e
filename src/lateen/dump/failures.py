"""The single definition of a failed request: for ``x stat`` and ``x top``, the console's graph, lists and health, and
the success rates of the boards.

A failure is a 5xx, no response at all, the proxy's own 404 because no rule routes the request (Envoy's flag NR), or a
gRPC status that is the server's fault. Other 4xx responses are normal.
"""

from __future__ import annotations

NO_ROUTE = "NR"
GRPC = (2, 4, 12, 13, 14, 15)
"""Unknown, DeadlineExceeded, Unimplemented, Internal, Unavailable, DataLoss: as Linkerd's proxy classifies them."""

_SERVER, _ROUTELESS, _GRPC = "5..|0", f"(.+,)?{NO_ROUTE}(,.+)?", "|".join(map(str, GRPC))
MATCHERS = (f'response_code=~"{_SERVER}"', f'response_flags=~"{_ROUTELESS}"', f'grpc_response_status=~"{_GRPC}"')
"""PromQL: failed series of ``istio_requests_total`` are those that at least one of these selects."""
ANSWERED = ", ".join(one.replace("=~", "!~") for one in MATCHERS)
"""PromQL: series that have not failed."""


def failed(code: int | None, flags: str, grpc: int | None = None) -> bool:
    """Whether a request failed. ``code``: 0 without a response, None if nobody knows; ``flags``: Envoy's, separated by
    commas."""
    return code == 0 or (code or 0) >= 500 or NO_ROUTE in flags.split(",") or grpc in GRPC
