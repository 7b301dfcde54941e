"""What the certificates between a signer and its root permit. Pure.

Proxies verify with BoringSSL, istiod and agents with OpenSSL. A path that either of them rejects would end all
connections under it, so it is refused before it signs. Sources: RFC 5280 sections 4.2 and 6.1, and the answers of Envoy
1.40 and OpenSSL 3 to each of these cases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from lateen.kit import certs

_WEAK = (hashes.MD5, hashes.SHA1)
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.POLICY_MAPPINGS,
        ExtensionOID.INHIBIT_ANY_POLICY,
    }
)
"""The extensions that may be critical"""


def violated(path: Sequence[x509.Certificate], trust_domain: str, hosts: Iterable[str] = ()) -> str:
    """Why a certificate that the first one of ``path`` signs would be rejected; empty if it would not. ``path`` ends
    with the root; ``hosts``: DNS names of istiod, whose own certificate is signed, too."""
    names = [x509.UniformResourceIdentifier(f"spiffe://{trust_domain}/ns/x/sa/x")] if trust_domain else []
    found = (
        f'the certificate "{certificate.subject.rfc4514_string()}" {why}'
        for below, certificate in enumerate(path)
        for why in _faults(path, below, [*names, *map(x509.DNSName, hosts)])
    )
    return next(found, "")


def _faults(path: Sequence[x509.Certificate], below: int, names: Sequence[x509.GeneralName]) -> Iterator[str]:
    certificate = path[below]
    key = certificate.public_key()
    if not isinstance(key, ed25519.Ed25519PublicKey):
        try:
            certs.strong(key, "")
        except ValueError as e:
            yield str(e).strip()
    if certificate is not path[-1] and isinstance(certificate.signature_hash_algorithm, _WEAK):
        yield f"is signed with {certificate.signature_hash_algorithm.name.upper()}, which is not secure any more"
    for extension in certificate.extensions:
        match extension.value:
            case x509.BasicConstraints(path_length=int() as most):
                if (many := sum(c.subject != c.issuer for c in path[:below])) > most:
                    says = "certificate authorities below itself (pathLenConstraint)"
                    yield f"permits {most} {says}, but there are {many}"
            case x509.ExtendedKeyUsage() as usages:
                if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= {*usages}:
                    yield "has an extendedKeyUsage without both serverAuth and clientAuth, which every proxy needs"
            case x509.NameConstraints() as constraints:
                yield from (
                    f"does not permit {n.value} (nameConstraints)" for n in names if not _permits(constraints, n)
                )
        if extension.critical and extension.oid not in _UNDERSTOOD:
            yield f"has the critical extension {extension.oid.dotted_string}, which proxies do not know"


def _permits(constraints: x509.NameConstraints, name: x509.GeneralName) -> bool:
    permitted, excluded = (
        [one for one in trees or () if type(one) is type(name)]
        for trees in (constraints.permitted_subtrees, constraints.excluded_subtrees)
    )
    return not any(_within(name, one) for one in excluded) and (
        not permitted or any(_within(name, one) for one in permitted)
    )


def _within(name: x509.GeneralName, tree: x509.GeneralName) -> bool:
    """RFC 5280 section 4.2.1.10: for URIs, a host, or with a leading dot everything below; for DNS, both."""
    limit = str(tree.value).lower()
    if isinstance(name, x509.UniformResourceIdentifier):
        host = name.value.split("/")[2].lower()
        return host.endswith(limit) if limit.startswith(".") else host == limit
    host = str(name.value).lower()
    return not limit or host == limit or host.endswith(limit if limit.startswith(".") else f".{limit}")
