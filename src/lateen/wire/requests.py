"""Requests, one line each: what Envoy tells its agent, which makes Istio's metrics of it.

Envoy's stats logger formats the labels and looks a statistic up for each metric of each request: of the instructions
that a pair of sidecars spends on a small request, a fifth. A line, whose labels are formatted once, costs 4 %. A line:

    MARK duration SPACE bytes received SPACE bytes sent MARK metrics MARK label=value MARK label=value … MARK

Of a request of gRPC there is another line, with ``messages received , messages sent`` in place of the values.

``metrics`` are digits, positions in ``KINDS``; a value that is not known is ``-``. Values may contain anything, since
certificates of other authorities and expressions of Telemetry objects have a say. So a mark is what no peer can guess:
the agent draws it when it starts and puts it into Envoy's environment, from which Envoy's formats take it.
"""

from __future__ import annotations

METADATA = "LATEEN_REQUESTS"
"""The key of the node metadata with which an agent declares (``true``) that it reads the pipe. Without a reader, Envoy
would create a regular file that grows forever, in the pod's memory."""
PIPE = "/etc/istio/proxy/requests.pipe"
MARK = "LATEEN_MARK"
"""The variable of Envoy's environment with the mark."""
LATEST_S = 1.0
"""The longest time in seconds that a line may take (``fileFlushInterval`` of the proxy's configuration); where it takes
longer, Envoy counts requests itself."""
HISTOGRAMS = ("request_duration_milliseconds", "request_bytes", "response_bytes")
"""In the order of a line's values."""
METRICS = ("requests_total", *HISTOGRAMS)
MESSAGES = ("request_messages_total", "response_messages_total")
"""In the order of a line's values."""
KINDS = (*METRICS, *MESSAGES)
MESSAGES_METADATA = "LATEEN_MESSAGES"
"""The key of the node metadata with which an agent declares (``true``) that it takes lines about messages of gRPC."""
