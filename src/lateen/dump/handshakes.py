"""Connections that end because TLS with the client fails, such as for want of a certificate: what Envoy's words mean,
and the Gateways that ask for certificates. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from lateen.api.reading import is_gateway
from lateen.kit.jsons import Json, dig

DETAILS = "no_tls_with_client"
"""Ours, in place of details: such connections have no request."""
_SAID = (
    ("certificate has expired", "the client's certificate has expired"),
    ("certificate is not yet valid", "the client's certificate is not valid yet"),
    ("certificate revoked", "the client's certificate is revoked"),
    ("CRL has expired", "the revocation list has expired, so that no certificate is accepted"),
    ("unable to get certificate CRL", "there is no revocation list of the CA of the client's certificate"),
    ("issuer certificate|self.signed", "the client's certificate is from no CA that is trusted here"),
    ("SAN list|SAN matcher", "the client's certificate has none of the names that may come in"),
    ("CERTIFICATE_VERIFY_FAILED", "the client's certificate is not accepted"),
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "the client has no certificate, and needs one here"),
    ("HTTP_REQUEST|WRONG_VERSION_NUMBER", "the client does not speak TLS"),
    ("ALERT_(UNKNOWN_CA|CERTIFICATE|BAD_CERTIFICATE)", "the client does not trust the certificate that it gets here"),
    ("NO_SHARED_CIPHER|UNSUPPORTED_PROTOCOL", "the client has no version or cipher of TLS in common with this port"),
)
"""What BoringSSL and Envoy say -> what it means"""
_PATTERNS = tuple((re.compile(words.replace(" ", "[ _]"), re.IGNORECASE), says) for words, says in _SAID)
_ABOUT_CERTIFICATES = re.compile("CERTIFICATE_VERIFY_FAILED|PEER_DID_NOT_RETURN")
_ASKING = ("MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL")
_OF_GATEWAY_API = "gateway.networking.k8s.io/gateway-name"


def details(failure: str) -> str:
    return f"{DETAILS}{{{failure}}}"


def meaning(details: str) -> str:
    """A sentence, with Envoy's words. ``details``: see above."""
    reason = details.partition("{")[2].removesuffix("}")
    found = next((says for pattern, says in _PATTERNS if pattern.search(reason)), "TLS with the client has failed")
    return f"{found} ({reason})"


def asking(details: str, seen: Json, gateways: Iterable[Json], pod: Json) -> Iterator[str]:
    """``Gateway web.default, server https``: the servers that may have refused a certificate. ``seen``: a parsed line
    of the log of ``pod``; ``gateways``: Istio's."""
    if not _ABOUT_CERTIFICATES.search(details) or not is_gateway(pod):
        return
    labels = pod["metadata"].get("labels") or {}
    if name := labels.get(_OF_GATEWAY_API):
        yield f"Gateway {name}.{pod['metadata'].get('namespace')}"
    for gateway in gateways:
        meta, spec = gateway["metadata"], gateway.get("spec") or {}
        if not (spec.get("selector") or {}).items() <= labels.items():
            continue
        for server in spec.get("servers") or []:
            if dig(server, "tls", "mode", default="") in _ASKING and _serves(server, str(seen.get("sni") or "")):
                port = server.get("name") or dig(server, "port", "name", default="") or dig(server, "port", "number")
                yield f"Gateway {meta['name']}.{meta.get('namespace')}, server {port}"


def _serves(server: Json, name: str) -> bool:
    """Whether a server is for a server name; an empty one may be any."""
    hosts = [str(host).rpartition("/")[2].lower() for host in server.get("hosts") or ["*"]]
    return not name or any(host in ("*", name) or (host[:2] == "*." and name.endswith(host[1:])) for host in hosts)
