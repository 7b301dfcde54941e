"""istiod's settings: the environment variables that it is started with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from lateen.api.crds import EXPERIMENTAL
from lateen.api.domain import CLUSTER_DOMAIN, CLUSTER_NAME, TRUST_DOMAIN, service_suffix
from lateen.ca.authority import DEFAULT_TTL, Identity
from lateen.control.fetching import DEFAULT_FETCHING, Fetching, networks
from lateen.inject.deployment import ENABLED as DEPLOYS_GATEWAYS
from lateen.kit import duration
from lateen.mesh.settings import Cluster
from lateen.wire.revision import Revision

T = TypeVar("T")
BLOCKED, REFRESH = "BLOCKED_CIDRS_IN_JWKS_URIS", "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL"
"""As in Istio: where keys of tokens are never fetched from, and how often they are fetched."""


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
    native_sidecars: str
    """true, false or auto"""
    deploys_gateways: bool = True
    """Whether it deploys proxies for the Gateways of the Gateway API; with false, Gateways are manual ones."""
    fetching: Fetching = DEFAULT_FETCHING

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Raises ValueError with the variable's name."""
        given = environment.get
        revision = _read("REVISION", given("REVISION") or "default", Revision)
        ttl = _read("DEFAULT_WORKLOAD_CERT_TTL", given("DEFAULT_WORKLOAD_CERT_TTL") or "", _ttl)
        return cls(
            pod=given("POD_NAME") or "istiod",
            namespace=given("POD_NAMESPACE") or "istio-system",
            service_account=given("SERVICE_ACCOUNT") or revision.istiod,
            revision=revision,
            cluster=Cluster(
                name=given("CLUSTER_ID") or CLUSTER_NAME,
                domain=given("CLUSTER_DOMAIN") or CLUSTER_DOMAIN,
                experimental=_read(EXPERIMENTAL, given(EXPERIMENTAL) or "false", flag),
            ),
            trust_domain=given("TRUST_DOMAIN") or TRUST_DOMAIN,
            certificate_ttl=ttl,
            proxy_image=given("PROXY_IMAGE") or "",
            fetching=Fetching(
                _read(BLOCKED, given(BLOCKED) or "", networks),
                _read(REFRESH, given(REFRESH) or "20m", _refresh),
            ),
            native_sidecars=given("ENABLE_NATIVE_SIDECARS") or "auto",
            deploys_gateways=_read(DEPLOYS_GATEWAYS, given(DEPLOYS_GATEWAYS) or "true", flag),
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


def flag(text: str) -> bool:
    """Raises ValueError."""
    if text.lower() not in ("true", "false"):
        raise ValueError(f'"{text}" is neither true nor false')
    return text.lower() == "true"


def _ttl(text: str) -> timedelta:
    return timedelta(seconds=duration.seconds(text)) if text else DEFAULT_TTL


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
