"""Reports about open connections: bytes so far, and the peer.

Envoy's counters add a connection's bytes only at its end, so they cover short connections. For the others each proxy
periodically writes a line to a pipe, which its agent turns into counters.
"""

from __future__ import annotations

METADATA = "LATEEN_CONNECTIONS"
"""The key of the node metadata with which an agent declares (``true``) that it reads the pipe. Without a reader, Envoy
would create a regular file that grows forever, in the pod's memory."""
PIPE = "/etc/istio/proxy/connections.pipe"
EVERY_S = 5.0
"""Seconds between two lines of one connection, unless a Telemetry sets ``reportingInterval``; Istio's default."""
AT_LEAST_S = 1.0
"""The minimum interval in seconds."""
ID, WHEN, COUNTS = "id", "when", "counts"
"""Keys of a line, a JSON object: the number of the connection, Envoy's AccessLogType, and a list of
[metric, bytes so far, labels]; labels are a list of [name, value], where null stands for what is not known."""
PERIODIC, END = "TcpPeriodic", "TcpConnectionEnd"


def long_ms(every_s: float) -> int:
    """The age in milliseconds from which a connection is not in Envoy's own counters; earlier than its first line."""
    return round(every_s * 800)
