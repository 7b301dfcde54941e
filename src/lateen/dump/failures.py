"""What counts as an error, everywhere alike: in ``x stat`` and ``x top``, in the console's graph, lists and health, and
in the success rates of the boards.

It is a 5xx, no answer at all, the proxy's own 404 because no rule routes the request (Envoy's flag NR), and a gRPC
status that is the server's fault. Other answers of 4xx are what a client may well expect.
"""

from __future__ import annotations

NO_ROUTE = "NR"
GRPC = (2, 4, 12, 13, 14, 15)
"""Unknown, DeadlineExceeded, Unimplemented, Internal, Unavailable, DataLoss: as Linkerd's proxy classifies them."""

_SERVER, _ROUTELESS, _GRPC = "5..|0", f"(.+,)?{NO_ROUTE}(,.+)?", "|".join(map(str, GRPC))
MATCHERS = (f'response_code=~"{_SERVER}"', f'response_flags=~"{_ROUTELESS}"', f'grpc_response_status=~"{_GRPC}"')
"""PromQL: the series of ``istio_requests_total`` that have failed are those that at least one of these selects."""
ANSWERED = ", ".join(one.replace("=~", "!~") for one in MATCHERS)
"""PromQL: those that have not."""


def failed(code: int, flags: str, grpc: int | None = None) -> bool:
    """Whether a request has. ``code``: 0 where there was no response; ``flags``: Envoy's, separated by commas."""
    return code >= 500 or not code or NO_ROUTE in flags.split(",") or grpc in GRPC
