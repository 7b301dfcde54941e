"""How many certificates istiod signs a second, on one core: requests with P-256 keys, as agents make them, verified and
signed with a P-256 CA, and with an RSA CA of 2048 bits behind an intermediate.

Baseline of the same run: signatures alone, with the same key. Limit: 500 certificates a second with the P-256 CA.
"""

from __future__ import annotations

import time
from datetime import datetime

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from world import report

from lateen.ca import rotation, signer
from lateen.ca.authority import Authority, Identity
from lateen.kit import certs, pkcs10, times

COUNT, LIMIT = 2000, 500
WHO = Identity("cluster.local", "default", "bookinfo-reviews")


def rate(authority: Authority, requests: list[str], now: datetime) -> float:
    """Certificates per second of CPU time."""
    authority.sign(requests[0], WHO, now)  # the first one reads the key
    began = time.process_time()
    for csr in requests:
        authority.sign(csr, WHO, now)
    return len(requests) / (time.process_time() - began)


def plugged(now: datetime) -> Authority:
    root = certs.authority("root", now)
    own = certs.intermediate(root, "istio", now, key=rsa.generate_private_key(65537, 2048))
    data = {"ca-cert.pem": own.certificate, "ca-key.pem": own.key, "root-cert.pem": root.certificate}
    return Authority(rotation.begin(signer.read(data, signer.PLUGGED, now), now, rotation.PACE))


def signatures() -> float:
    key, began = certs.new_key(), time.process_time()
    for _ in range(COUNT):
        key.sign(b"x" * 500, ec.ECDSA(hashes.SHA256()))
    return COUNT / (time.process_time() - began)


def main() -> None:
    now = times.now()
    requests = [pkcs10.request(certs.new_key(), str(WHO)) for _ in range(COUNT)]
    report(
        bench="certificates",
        ecdsa_per_s=round(rate(Authority.create(now, "cluster.local"), requests, now)),
        rsa_per_s=round(rate(plugged(now), requests, now)),
        signatures_alone_per_s=round(signatures()),
        limit_per_s=LIMIT,
    )


if __name__ == "__main__":
    main()
