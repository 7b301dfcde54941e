"""istiod's settings: the environment variables that it is started with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

from lateen.api.crds import EXPERIMENTAL
from lateen.api.domain import CLUSTER_DOMAIN, CLUSTER_NAME, TRUST_DOMAIN, service_suffix
from lateen.ca.authority import DEFAULT_TTL, MAX_TTL, Identity
from lateen.ca.rotation import Pace
from lateen.control import wanted
from lateen.control.external import MODE, Signers
from lateen.control.fetching import DEFAULT_FETCHING, Fetching, networks
from lateen.inject.deployment import ENABLED as DEPLOYS_GATEWAYS
from lateen.kit import duration
from lateen.kit.booleans import boolean
from lateen.mesh.settings import Cluster
from lateen.wire.revision import Revision

T = TypeVar("T")
BLOCKED, REFRESH = "BLOCKED_CIDRS_IN_JWKS_URIS", "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL"
"""As in Istio: networks from which token keys are never fetched, and the refresh interval."""
REGISTRIES = "WASM_INSECURE_REGISTRIES"
"""As in Istio (there a setting of agents): registries that are contacted without TLS."""

TTL, LONGEST_TTL = "DEFAULT_WORKLOAD_CERT_TTL", "MAX_WORKLOAD_CERT_TTL"
ROOT_TTL, ROOT_CHECK = "CITADEL_SELF_SIGNED_CA_CERT_TTL", "CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL"
ROOT_GRACE = "CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE"
ROOT_JITTER = "CITADEL_ENABLE_JITTER_FOR_ROOT_CERT_ROTATOR"
"""As in Istio (security/pkg and pilot/pkg/bootstrap/istio_ca.go): validity of certificates and of the self-signed root,
how often the latter is checked, and the remaining share of its lifetime at which it is replaced."""
EXTERNAL, SIGNER, SIGNER_DOMAIN = "EXTERNAL_CA", "K8S_SIGNER", "CERT_SIGNER_DOMAIN"
"""As in Istio: an external CA through Kubernetes' CertificateSigningRequests, and the names of its signers."""
INSECURE = "PILOT_INSECURE_MULTICLUSTER_KUBECONFIG_OPTIONS"
"""As in Istio: what is allowed in the kubeconfigs of other clusters (clientCertificate, clientKey, exec, tokenFile)."""
SERVES = "EXTERNAL_ISTIOD"
"""As in Istio: whether it is the control plane of proxies in other clusters, too."""
FILTERED, SCOPED = "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG", "PILOT_SCOPE_GATEWAY_TO_NAMESPACE"
"""As in Istio, where the former is off by default: whether gateways get only the clusters that they need, and whether
Gateways select only workloads in their own namespaces."""
NATIVE = "ENABLE_NATIVE_SIDECARS"
HTTP10 = "PILOT_HTTP10"
"""As in Istio: whether every proxy accepts HTTP/1.0."""
ANNOUNCED = "LATEEN_ROOT_ANNOUNCED_FOR"
"""How long a new root is published before anything is signed under it."""


@dataclass(frozen=True)
class Settings:
    pod: str
    namespace: str
    service_account: str
    revision: Revision
    cluster: Cluster
    trust_domain: str
    certificate_ttl: timedelta
    proxy_image: str
    native_sidecars: bool | None
    """None: where every node supports them (``auto``)."""
    deploys_gateways: bool = True
    """Whether it deploys proxies for the Gateways of the Gateway API; with false, Gateways are manual ones."""
    fetching: Fetching = DEFAULT_FETCHING
    ca: wanted.Settings = wanted.DEFAULTS
    serves: bool = False
    """Whether it is the control plane of proxies in other clusters, too."""
    insecure: frozenset[str] = frozenset()
    """Normally refused fields that kubeconfigs of other clusters may have; see ``kubeconfig.from_text``."""
    signers: Signers | None = None
    """The external signers, if any."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Parse the environment. Raises ValueError with the variable's name."""
        given = environment.get
        revision = _read("REVISION", given("REVISION") or "default", Revision)
        ttl = min(_period(given, TTL, DEFAULT_TTL), _period(given, LONGEST_TTL, MAX_TTL))
        return cls(
            pod=given("POD_NAME") or "istiod",
            namespace=given("POD_NAMESPACE") or "istio-system",
            service_account=given("SERVICE_ACCOUNT") or revision.istiod,
            revision=revision,
            cluster=Cluster(
                name=given("CLUSTER_ID") or CLUSTER_NAME,
                domain=given("CLUSTER_DOMAIN") or CLUSTER_DOMAIN,
                experimental=_read(EXPERIMENTAL, given(EXPERIMENTAL) or "false", boolean),
                filtered=_read(FILTERED, given(FILTERED) or "true", boolean),
                scoped=_read(SCOPED, given(SCOPED) or "false", boolean),
                http10=_read(HTTP10, given(HTTP10) or "false", boolean),
            ),
            trust_domain=given("TRUST_DOMAIN") or TRUST_DOMAIN,
            certificate_ttl=ttl,
            proxy_image=given("PROXY_IMAGE") or "",
            fetching=Fetching(
                _read(BLOCKED, given(BLOCKED) or "", networks),
                _read(REFRESH, given(REFRESH) or "20m", _refresh),
                frozenset(r.strip() for r in (given(REGISTRIES) or "").split(",") if r.strip()),
            ),
            native_sidecars=_read(NATIVE, given(NATIVE) or "auto", _sidecars),
            ca=_authority(given, ttl),
            signers=_read(EXTERNAL, given(EXTERNAL) or "", partial(_signers, given)),
            serves=_read(SERVES, given(SERVES) or "false", boolean),
            insecure=frozenset(filter(None, (given(INSECURE) or "").replace(" ", "").split(","))),
            deploys_gateways=_read(DEPLOYS_GATEWAYS, given(DEPLOYS_GATEWAYS) or "true", boolean),
        )

    @property
    def identity(self) -> Identity:
        return Identity(self.trust_domain, self.namespace, self.service_account)

    @property
    def host_names(self) -> list[str]:
        """The names by which proxies, webhooks and clients reach this istiod."""
        hosts = dict.fromkeys((self.revision.istiod, "istiod"))
        suffix = service_suffix(self.cluster.domain)
        return [f"{h}.{self.namespace}{end}" for h in hosts for end in (".svc", "", suffix)]


def _authority(given: Callable[[str], str | None], ttl: timedelta) -> wanted.Settings:
    default = wanted.DEFAULTS
    return wanted.Settings(
        pace=Pace(_period(given, ANNOUNCED, default.pace.announce), ttl),
        root_ttl=_period(given, ROOT_TTL, default.root_ttl),
        check=_period(given, ROOT_CHECK, default.check),
        grace_percent=_read(ROOT_GRACE, given(ROOT_GRACE) or str(default.grace_percent), _percent),
        jitter=_read(ROOT_JITTER, given(ROOT_JITTER) or "true", boolean),
    )


def _signers(given: Callable[[str], str | None], mode: str) -> Signers | None:
    if not mode:
        return None
    if mode != MODE:
        raise ValueError(f'"{mode}" is not known; the only external authority is {MODE}')
    found = Signers(given(SIGNER) or "", given(SIGNER_DOMAIN) or "")
    if not found.default and not found.domain:
        raise ValueError(f"{SIGNER} or {SIGNER_DOMAIN} must say who signs")
    return found


def _period(given: Callable[[str], str | None], name: str, default: timedelta) -> timedelta:
    text = given(name)
    return _read(name, text, _positive) if text else default


def _positive(text: str) -> timedelta:
    found = timedelta(seconds=duration.seconds(text))
    if found < timedelta(seconds=1):
        raise ValueError("it must be at least 1s")
    return found


def _sidecars(text: str) -> bool | None:
    """A boolean variable in Istio; None for ``auto``. Raises ValueError."""
    try:
        return None if text == "auto" else boolean(text)
    except ValueError as e:
        raise ValueError(f"{e}, nor auto") from None


def _percent(text: str) -> float:
    found = float(text)
    if not 0 < found < 100:
        raise ValueError("it must be between 0 and 100")
    return found


def _refresh(text: str) -> float:
    found = duration.seconds(text)
    if found < 1:
        raise ValueError("it must be at least 1s")
    return found


def _read(name: str, text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except ValueError as e:
        raise ValueError(f"the environment variable {name}: {e}") from None
