"""networking.k8s.io: Kubernetes' Ingress, as far as a gateway of the mesh serves it."""

from __future__ import annotations

from lateen.api.config import Config


class BackendPort(Config):
    name: str = ""
    number: int = 0


class BackendService(Config):
    name: str
    port: BackendPort = BackendPort()


class Backend(Config):
    service: BackendService | None = None


class Path(Config):
    backend: Backend
    path: str = ""
    path_type: str = "ImplementationSpecific"


class Http(Config):
    paths: tuple[Path, ...] = ()


class Rule(Config):
    host: str = ""
    http: Http | None = None


class Tls(Config):
    hosts: tuple[str, ...] = ()
    secret_name: str = ""


class Ingress(Config):
    ingress_class_name: str | None = None
    default_backend: Backend | None = None
    rules: tuple[Rule, ...] = ()
    tls: tuple[Tls, ...] = ()


class IngressClass(Config):
    controller: str = ""
