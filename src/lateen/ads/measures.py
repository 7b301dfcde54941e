"""The ADS server's metrics, with the names that istiod has in Istio.

https://istio.io/latest/docs/reference/commands/pilot-discovery/#metrics
"""

from __future__ import annotations

from lateen.kit.metrics import Registry

SECONDS = (0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0)
PUSH = (0.01, 0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0)
BYTES = (1.0, 10_000.0, 1_000_000.0, 4_000_000.0, 10_000_000.0, 40_000_000.0)


class Measures:
    def __init__(self, registry: Registry) -> None:
        self.pushes = registry.counter(
            "pilot_xds_pushes", "Messages with resources that were sent to proxies, by xDS type.", "type"
        )
        self.rejects = registry.counter(
            "pilot_total_xds_rejects", "Messages that proxies have rejected, by xDS type.", "type"
        )
        self.failures = registry.counter(
            "pilot_total_xds_internal_errors", "Pushes to one proxy that failed because of an error in istiod."
        )
        self.push_time = registry.histogram(
            "pilot_xds_push_time",
            "Seconds to generate a proxy's resources of one xDS type in a push.",
            PUSH,
            "type",
        )
        self.send_time = registry.histogram(
            "pilot_xds_send_time", "Seconds to write a message to the proxy's connection.", PUSH
        )
        self.size = registry.histogram(
            "pilot_xds_config_size_bytes",
            "Bytes of the messages that were sent to proxies, by xDS type.",
            BYTES,
            "type",
        )
        self.queue_time = registry.histogram(
            "pilot_proxy_queue_time", "Seconds that a proxy waits in a push before it is served.", SECONDS
        )
        self.convergence_time = registry.histogram(
            "pilot_proxy_convergence_time",
            "Seconds from a configuration change until everything that it changes for a proxy has been sent.",
            SECONDS,
        )

    def sent(self, kind: str, size: int) -> None:
        """Count one message to a proxy; ``size`` in bytes."""
        self.pushes.add(kind)
        self.size.observe(size, kind)
