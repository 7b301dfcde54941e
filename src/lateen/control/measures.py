"""istiod's metrics (port 15014), under the names and with the meaning that Istio documents.

https://istio.io/latest/docs/reference/commands/pilot-discovery/#metrics
"""

from __future__ import annotations

import time

from lateen import __version__
from lateen.ads.measures import PUSH
from lateen.ads.measures import Measures as Xds
from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.kit import process
from lateen.kit.metrics import Registry

CONTEXT = (0.01, 0.1, 0.5, 1.0, 3.0, 5.0)
INJECTION = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
REGISTRY_KINDS = {
    kinds.SERVICE: "Services",
    kinds.POD: "Pods",
    kinds.NODE: "Nodes",
    kinds.ENDPOINT_SLICE: "EndpointSlice",
}
"""Kinds of the service registry, as Istio calls them."""
REASONS = {
    kinds.SERVICE: "service",
    kinds.ENDPOINT_SLICE: "endpoint",
    kinds.POD: "endpoint",
    kinds.NODE: "endpoint",
    kinds.NAMESPACE: "namespace",
    kinds.SECRET: "secret",
    kinds.CONFIG_MAP: "global",
}


CONFLICTS = {
    "LAT0101": ("pilot_vservice_dup_domain", "VirtualServices with a host that an older one already has."),
    "LAT0106": (
        "pilot_conflict_outbound_listener_tcp_over_current_tcp",
        "ServiceEntries whose connections go to an older one with the same port.",
    ),
    "LAT0109": ("lateen_conflict_gateway_listener", "Gateways with a listener that conflicts with an older one."),
}
"""Metrics by the code of the finding."""

ABSENT = {
    "pilot_conflict_inbound_listener": "a port of a workload has one listener whatever services share it: the first "
    "one with an explicit protocol decides",
    "pilot_duplicate_envoy_clusters": "resources are identified by name, so none is sent twice",
    "pilot_destrule_subsets": "not counted",
    "pilot_dns_cluster_without_endpoints": "see `pilot_eds_no_instances`, which counts by service",
    "pilot_envoy_filter_status": "`pilot_total_xds_rejects` and istiod's log say which patches proxies reject",
    "pilot_k8s_endpoints_pending_pod, pilot_k8s_endpoints_with_no_pods, endpoint_no_pod": "endpoints and pods are read "
    "from tables of one instant; no endpoint waits for a pod",
    "pilot_k8s_object_errors": "see `pilot_total_rejected_configs`",
    "pilot_sds_certificate_errors_total": "`lateen analyze` reports missing or unusable Secrets",
    "pilot_worker_queue_depth, pilot_worker_queue_duration, pilot_worker_queue_latency, controller_sync_errors_total": (
        "changes are not queued for workers: one loop handles them"
    ),
    "pilot_xds_expired_nonce, pilot_xds_write_timeout": "not counted",
    "xds_cache_reads, xds_cache_evictions, xds_cache_size, xds_cache_dependent_config_size": "resources are kept in "
    "the views that they are made of; there is no cache beside them",
    "galley_validation_config_*, webhook_patch_retries_total": "webhooks are installed with their configuration; "
    "only their CA is set, see `webhook_patch_attempts_total`",
    "citadel_server_id_extraction_err_count": "identities come from tokens; see "
    "`citadel_server_authentication_failure_count`",
    "provider_lookup_cluster_failures, remote_cluster_sync_timeouts_total": "see `istiod_managed_clusters` and "
    "`lateen remote-clusters`",
}
"""Metrics of Istio's istiod that do not apply here, and why."""


class Measures:
    def __init__(self) -> None:
        r = self.registry = Registry()
        self.xds = Xds(r)
        self._started = time.monotonic()
        self.reasons: set[str] = set()
        """The reasons for the next push."""
        self._of_itself(r)
        self._of_pushes(r)
        self._of_the_mesh(r)
        self._of_registrations(r)
        self._of_webhooks(r)
        self._of_certificates(r)
        self.quota_buckets = r.gauge("lateen_quota_buckets", "Global limits with current requests.")
        self.quota_requests = r.total(
            "lateen_quota_requests_total",
            "Requests under a global limit, by outcome.",
            "rule",
            "outcome",
        )

    def _of_itself(self, r: Registry) -> None:
        version = r.gauge("pilot_info", "Constant 1, labelled with the version.", "version")
        version.read = lambda: {(__version__,): 1}
        build = r.gauge("istio_build", "Constant 1, labelled with the component and its version.", "component", "tag")
        build.read = lambda: {("pilot", __version__): 1}
        up = r.gauge("istiod_uptime_seconds", "Seconds since istiod was started.")
        up.read = lambda: {(): time.monotonic() - self._started}
        self.startup = r.gauge("startup_duration_seconds", "Seconds from the start until istiod was ready.")
        self.clusters = r.gauge(
            "istiod_managed_clusters", "The number of clusters whose services are known.", "cluster_type"
        )
        process.measure(r)

    def _of_pushes(self, r: Registry) -> None:
        self.connected = r.gauge("pilot_xds", "Connected proxies, by version.", "version")
        self.rejecting = {
            short: r.gauge(
                f"pilot_xds_{short}_reject",
                f"1 for each proxy that currently rejects its {short.upper()}.",
                "node",
                "err",
            )
            for short in ("cds", "eds", "lds", "rds")
        }
        self.triggers = r.counter("pilot_push_triggers", "Pushes by reason; a push may have several.", "type")
        self.debounce = r.histogram(
            "pilot_debounce_time", "Seconds from the first change of a batch until its push begins (debouncing).", PUSH
        )
        self.context = r.histogram(
            "pilot_pushcontext_init_seconds", "Seconds to update the model of the mesh.", CONTEXT
        )
        self.registry_events = r.counter(
            "pilot_k8s_reg_events", "Observed changes of services, endpoints, pods and nodes.", "type", "event"
        )
        self.config_events = r.counter(
            "pilot_k8s_cfg_events", "Observed changes of configuration objects, by kind.", "type", "event"
        )
        self.updates = r.counter("pilot_inbound_updates", "Changes that affect the mesh.", "type")

    def _of_the_mesh(self, r: Registry) -> None:
        self.services = r.gauge("pilot_services", "Services that are known.")
        self.virtual_services = r.gauge("pilot_virt_services", "Known VirtualServices.")
        self.not_ready = r.gauge(
            "pilot_endpoint_not_ready", "Workloads of the mesh that have an address but are not ready."
        )
        self.without_endpoint = r.gauge(
            "pilot_no_ip", "Connected sidecars whose pod is not an endpoint of any service."
        )
        self.without_instances = r.gauge("pilot_eds_no_instances", "Services with a selector but without endpoints.")
        self.conflicts = {
            code: r.gauge(name, f"{says} Counted by the leader.") for code, (name, says) in CONFLICTS.items()
        }
        self.rejected = r.counter(
            "pilot_total_rejected_configs", "Objects that were left out because they are invalid.", "type", "name"
        )
        self.keys_fetched = r.total(
            "pilot_jwks_resolver_network_fetch_success_total", "Key sets of token issuers that were fetched."
        )
        self.keys_failed = r.total(
            "pilot_jwks_resolver_network_fetch_fail_total", "Attempts to fetch a key set that failed."
        )

    def _of_registrations(self, r: Registry) -> None:
        name = "auto_registration"
        self.registered = r.counter(f"{name}_success_total", "Machines that were registered.")
        self.reregistered = r.counter(f"{name}_updates_total", "Machines whose registration was updated.")
        self.left = r.counter(f"{name}_unregister_total", "Machines that have disconnected.")
        self.unregistered = r.counter(f"{name}_deletes_total", "Registrations of machines that were removed.")
        self.registration_errors = r.counter(f"{name}_errors_total", "Registrations that failed.")

    def _of_webhooks(self, r: Registry) -> None:
        name = "sidecar_injection"
        self.injection_requests = r.counter(f"{name}_requests_total", "Injection requests from the API server.")
        self.injected = r.counter(f"{name}_success_total", "Pods that were injected.")
        self.injection_failed = r.counter(f"{name}_failure_total", "Pods that could not be injected.")
        self.injection_skipped = r.counter(f"{name}_skip_total", "Pods that were not to be injected.")
        self.injection_time = r.histogram(f"{name}_time_seconds", "Seconds to answer an injection request.", INJECTION)
        what = ("group", "version", "resource")
        self.valid = r.counter("galley_validation_passed", "Objects that were accepted.", *what)
        self.invalid = r.counter("galley_validation_failed", "Objects that were refused.", *what, "reason")
        self.bad_reviews = r.counter(
            "galley_validation_http_error", "Admission requests that could not be parsed.", "status"
        )
        self.patches = r.counter(
            "webhook_patch_attempts_total", "Attempts to set the CA bundle of a webhook configuration.", "name"
        )
        self.failed_patches = r.counter(
            "webhook_patch_failures_total", "Failed attempts to set a CA bundle.", "name", "reason"
        )

    def _of_certificates(self, r: Registry) -> None:
        name = "citadel_server"
        self.requested = r.counter(f"{name}_csr_count", "Certificate requests.")
        self.issued = r.counter(f"{name}_success_cert_issuance_count", "Issued certificates.")
        self.unauthenticated = r.counter(
            f"{name}_authentication_failure_count", "Certificate requests whose token was not accepted."
        )
        self.unreadable = r.counter(f"{name}_csr_parsing_err_count", "Certificate requests that could not be parsed.")
        self.unsigned = r.counter(f"{name}_csr_sign_err_count", "Certificate requests that the CA could not sign.")
        self.root_expiry = r.gauge(
            f"{name}_root_cert_expiry_timestamp", "When the root certificate expires (Unix time)."
        )
        self.root_left = r.gauge(f"{name}_root_cert_expiry_seconds", "Seconds until the root certificate expires.")
        self.chain_expiry = r.gauge(
            f"{name}_cert_chain_expiry_timestamp", "When the CA's own certificate expires (Unix time)."
        )
        self.chain_left = r.gauge(
            f"{name}_cert_chain_expiry_seconds", "Seconds until the CA's own certificate expires."
        )

        name = "certmanager_certificate"  # names and meanings as in cert-manager
        self.server_expiry = r.gauge(
            f"{name}_expiration_timestamp_seconds",
            "When a Certificate's certificate expires (Unix time).",
            "name",
            "namespace",
        )
        self.server_renewal = r.gauge(
            f"{name}_renewal_timestamp_seconds", "When it is due for renewal (Unix time).", "name", "namespace"
        )
        self.server_ready = r.gauge(
            f"{name}_ready_status", "1 if a Certificate is ready, otherwise 0.", "name", "namespace"
        )
        self.trusted_roots = r.gauge("lateen_ca_trusted_roots", "Root certificates that proxies trust.")
        self.ca_problem = r.gauge("lateen_ca_problem", "1 while there is a problem with the CA's certificates.")

    # --- counting --------------------------------------------------------------------------------------------

    def saw(self, kind: Kind, event: str, effective: bool) -> None:
        """Count an informer's ``event`` (add, update, delete); ``effective``: it changed the mesh."""
        if kind in REGISTRY_KINDS:
            self.registry_events.add(REGISTRY_KINDS[kind], event)
        elif kind.spec is not None:
            self.config_events.add(kind.kind, event)
        if not effective:
            return
        self.reasons.add(REASONS.get(kind, "config"))
        if kind is kinds.SERVICE:
            self.updates.add("svcdelete" if event == "delete" else "svc")
        elif kind in REGISTRY_KINDS:
            self.updates.add("eds")
        else:
            self.updates.add("config")

    def pushing(self) -> None:
        """Count a push with the reasons collected so far."""
        for reason in sorted(self.reasons) or ["unknown"]:
            self.triggers.add(reason)
        self.reasons.clear()

    def ready(self) -> None:
        took = time.monotonic() - self._started
        self.startup.read = lambda: {(): took}
