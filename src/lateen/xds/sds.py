"""Certificates and other secrets of proxies as SDS: files of the pod that Envoy watches, and resources of their own, so
that a missing one affects only the host or server that needs it."""

from __future__ import annotations

import posixpath

from envoy.config.core.v3 import base_pb2, config_source_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from lateen.api import objects as o
from lateen.api.networking.server_tls import ServerTLS
from lateen.api.networking.traffic_policy import ClientTLS
from lateen.kit.derived import held
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import pb

DIRECTORY = "/etc/istio/proxy"
CERTIFICATE, ROOT = f"{DIRECTORY}/sds-default.json", f"{DIRECTORY}/sds-rootca.json"
SYSTEM = f"{DIRECTORY}/sds-system.json"
"""The system's CA certificates; the agent writes the file."""
PATIENCE_S = 1.0
"""Seconds after which a host or server whose certificate is missing fails on its own (``Secret is not supplied by
SDS``), so that it does not hold up the proxy's start. It works once the Secret exists; a missing file is rejected by
Envoy, and looked for again when the proxy reconnects."""


def in_file(name: str, path: str) -> secret_pb2.SdsSecretConfig:
    """A secret that the agent writes into ``path``, a file of ``DIRECTORY``."""
    source = config_source_pb2.PathConfigSource(path=path, watched_directory=base_pb2.WatchedDirectory(path=DIRECTORY))
    return secret_pb2.SdsSecretConfig(
        name=name, sds_config=config_source_pb2.ConfigSource(path_config_source=source, resource_api_version="V3")
    )


def by_ads(name: str, patience_s: float = PATIENCE_S) -> secret_pb2.SdsSecretConfig:
    """A secret that comes by the proxy's own xDS stream."""
    return secret_pb2.SdsSecretConfig(name=name, sds_config=pb.ads(patience_s))


def of_files(tls: ClientTLS | ServerTLS) -> tuple[Resource, ...]:
    """SDS resources for certificates in the pod's files; Envoy reloads them when a file is moved into the directory."""
    if isinstance(tls, ServerTLS):
        if tls.secrets or tls.mode == "ISTIO_MUTUAL":
            return ()
        pairs = file_pairs(tls)
    elif tls.credential_name or tls.mode not in ("SIMPLE", "MUTUAL"):
        return ()
    else:
        pairs = [(tls.client_certificate, tls.private_key)] if tls.client_certificate else []
    out = [_file_certificate(chain, key) for chain, key in pairs]
    if tls.ca_certificates and tls.ca_certificates != "system":
        out.append(_file_authorities(tls.ca_certificates, tls.ca_crl))
    return tuple(out)


def file_pairs(tls: ServerTLS) -> list[tuple[str, str]]:
    """(certificate chain, key): the files that a server without Secrets presents."""
    many = [(c.server_certificate, c.private_key) for c in tls.tls_certificates]
    return many or [(tls.server_certificate, tls.private_key)]


def _file(path: str) -> base_pb2.DataSource:
    return base_pb2.DataSource(filename=path)


def _directory(path: str) -> base_pb2.WatchedDirectory:
    return base_pb2.WatchedDirectory(path=posixpath.dirname(path) or ".")


@held
def _file_certificate(chain: str, key: str) -> Resource:
    out = secret_pb2.Secret(name=names.file_certificate(chain, key))
    out.tls_certificate.certificate_chain.CopyFrom(_file(chain))
    out.tls_certificate.private_key.CopyFrom(_file(key))
    out.tls_certificate.watched_directory.CopyFrom(_directory(chain))
    return pb.resource(out.name, out)


@held
def _file_authorities(ca: str, crl: str) -> Resource:
    out = secret_pb2.Secret(name=names.file_authorities(ca, crl))
    out.validation_context.trusted_ca.CopyFrom(_file(ca))
    out.validation_context.watched_directory.CopyFrom(_directory(ca))
    if crl:
        out.validation_context.crl.CopyFrom(_file(crl))
    return pb.resource(out.name, out)


NO_AUTHORITIES = "kubernetes://none-cacert"
"""A Secret that no proxy gets, so that a backend without CA certificates fails on its own."""


def opaque(name: str, content: str) -> Resource:
    """A secret that is no certificate: the password of a client, the key of cookies."""
    out = secret_pb2.Secret(name=name)
    out.generic_secret.secret.inline_string = content
    return pb.resource(name, out)


def secret(credential: o.Credential) -> Resource:
    """A certificate with its key, or the authorities that verify clients, as an SDS resource."""
    if credential.chain:
        name = names.credential(credential.name)
        out = secret_pb2.Secret(name=name)
        out.tls_certificate.certificate_chain.inline_bytes = credential.chain.encode()  # where istioctl looks for it
        out.tls_certificate.private_key.inline_string = credential.key
    else:
        name = f"kubernetes://{credential.name}"
        out = secret_pb2.Secret(name=name)
        out.validation_context.trusted_ca.inline_bytes = credential.ca.encode()
        if credential.crl:
            out.validation_context.crl.inline_string = credential.crl
    return pb.resource(name, out)
