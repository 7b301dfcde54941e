"""What a connection tells of itself: its bytes while it is open, and whose it is.

Envoy's counters can only add what a connection has carried altogether, so they count connections that end soon. Of the
others each proxy writes a line now and then, to a pipe that its agent reads and makes counters of.
"""

from __future__ import annotations

METADATA = "LATEEN_CONNECTIONS"
"""The key of the node metadata by which an agent says (``true``) that it reads the pipe. Where nobody does, Envoy would
make a regular file that grows for ever, in the pod's memory."""
PIPE = "/etc/istio/proxy/connections.pipe"
EVERY_S = 5.0
"""Between two lines of one connection, unless a Telemetry says otherwise (``reportingInterval``); Istio's default."""
AT_LEAST_S = 1.0
"""A shorter interval counts as this one."""
ID, WHEN, COUNTS = "id", "when", "counts"
"""Keys of a line, a JSON object: the number of the connection, Envoy's AccessLogType, and a list of
[metric, bytes so far, labels]; labels are a list of [name, value], where null stands for what is not known."""
PERIODIC, END = "TcpPeriodic", "TcpConnectionEnd"


def long_ms(every_s: float) -> int:
    """The milliseconds from which a connection is not one of Envoy's own counters: surely before its first line."""
    return round(every_s * 800)


PEER = ("workload", "namespace", "service", "revision", "app", "version")
"""What a certificate says of the workload that it was issued to, in this order, joined by ``SEPARATOR``; the keys are
those of ``node.PEER_HEADERS``."""
SEPARATOR = ";"
"""Neither object names nor labels contain it. Names in ownerReferences are not validated: a workload whose owner has it
in its name is not told (``mesh.workloads.said``)."""
