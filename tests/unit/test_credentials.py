"""Certificates in Secrets of users: what istiod takes, the real Envoy takes; the rest is refused with its reason."""

import json
import subprocess
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from lateen.cluster.kubelet.images import envoy_binary
from lateen.kit import certs, credentials, times
from lateen.kit.pair import Pair

NOW = times.now()
ROOT = certs.authority("root", NOW)
PEM = serialization.Encoding.PEM
P256 = certs.issue(ROOT, ["a.example.com"], NOW, timedelta(days=1))
LIST = """-----BEGIN X509 CRL-----
{}
-----END X509 CRL-----
"""


def leaf(key, *extensions):
    issuer = x509.load_pem_x509_certificate(ROOT.certificate.encode())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example.com")]), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    made = builder.sign(serialization.load_pem_private_key(ROOT.key.encode(), None), hashes.SHA256())
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return Pair(made.public_bytes(PEM).decode(), key.private_bytes(PEM, form, none).decode())


def usage(**more):
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{n: more.get(n, False) for n in names})


def spelled(change):
    return Pair(change(P256.certificate), change(P256.key))


def indented(text):
    return "".join(f"  {line}\n" for line in text.splitlines())


def unusual(curve):
    return leaf(ec.generate_private_key(curve()))


TAKEN = {
    "P-384": unusual(ec.SECP384R1),
    "P-521": unusual(ec.SECP521R1),
    "RSA": leaf(rsa.generate_private_key(65537, 2048)),
    "Ed25519": leaf(ed25519.Ed25519PrivateKey.generate()),
    "with a chain": Pair(P256.certificate + ROOT.certificate, P256.key),
    "of Windows": spelled(lambda t: t.replace("\n", "\r\n")),
    "of old Macs": Pair(P256.certificate.replace("\n", "\r"), P256.key),
    "indented": spelled(indented),
    "with a byte order mark": spelled("\ufeff{}".format),
    "without a line break between": Pair(P256.certificate.strip() + ROOT.certificate, P256.key),
    "with remarks": spelled("subject=a\n{}done\n".format),
    "may sign": leaf(certs.new_key(), usage(digital_signature=True)),
    "an RSA key that may only encrypt": leaf(rsa.generate_private_key(65537, 2048), usage(key_encipherment=True)),
}


def inconsistent():
    key = rsa.generate_private_key(65537, 2048)
    x, one = key.private_numbers(), leaf(key)
    wrong = rsa.RSAPrivateNumbers(x.p, x.q, x.d, x.dmp1 + 2, x.dmq1, x.iqmp, x.public_numbers)
    made = wrong.private_key(unsafe_skip_rsa_key_validation=True)
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return Pair(one.certificate, made.private_bytes(PEM, form, none).decode())


REFUSED = {
    "an RSA key whose parts do not belong together": (inconsistent(), "do not belong together"),
    "a small RSA key": (leaf(rsa.generate_private_key(65537, 1024)), "RSA key of at least 2048 bits"),
    "P-224": (unusual(ec.SECP224R1), "P-256, P-384 or P-521"),
    "secp256k1": (unusual(ec.SECP256K1), "P-256, P-384 or P-521"),
    "Brainpool": (unusual(ec.BrainpoolP256R1), "P-256, P-384 or P-521"),
    "Ed448": (leaf(ed448.Ed448PrivateKey.generate()), "P-256, P-384 or P-521"),
    "a key that may not sign": (leaf(certs.new_key(), usage(key_cert_sign=True)), "may not sign"),
    "a chain that is cut off": (Pair(P256.certificate + ROOT.certificate[:300], P256.key), "is cut off"),
    "another key": (Pair(P256.certificate, ROOT.key), "does not belong to the certificate"),
}


def envoys_answer(pairs, directory):
    """What the real Envoy says to listeners with these certificates; empty if it takes them."""
    tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    listeners = []
    for i, pair in enumerate(pairs):
        own = {
            "certificate_chain": {"inline_string": pair.certificate},
            "private_key": {"inline_string": pair.key},
        }
        socket = {"@type": tls, "common_tls_context": {"tls_certificates": [own]}}
        chain = {"transport_socket": {"name": "tls", "typed_config": socket}}
        at = {"socket_address": {"address": "127.0.0.1", "port_value": 20000 + i}}
        listeners.append({"name": f"l{i}", "address": at, "filter_chains": [chain]})
    path = directory / "envoy.json"
    path.write_text(json.dumps({"static_resources": {"listeners": listeners}}))
    argv = [envoy_binary(), "--mode", "validate", "-c", str(path), "--log-level", "error"]
    done = subprocess.run(argv, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def test_envoy_takes_every_certificate_that_istiod_takes(tmp_path):
    served = [credentials.served(pair.certificate, pair.key) for pair in TAKEN.values()]
    assert envoys_answer(served, tmp_path) == ""


@pytest.mark.parametrize("what", REFUSED)
def test_a_certificate_that_envoy_would_refuse_is_refused_with_the_reason(what):
    pair, says = REFUSED[what]
    with pytest.raises(ValueError, match=says):
        credentials.served(pair.certificate, pair.key)


@pytest.mark.parametrize("what", REFUSED)
def test_envoy_would_indeed_refuse_it(what, tmp_path):
    assert envoys_answer([REFUSED[what][0]], tmp_path)


@pytest.mark.parametrize("more", [("-newkey", "rsa-pss"), ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                                                           "-pkeyopt", "ec_param_enc:explicit")])  # fmt: skip
def test_keys_in_forms_that_envoy_does_not_read_are_refused(more, tmp_path):
    crt, key = tmp_path / "crt", tmp_path / "key"
    argv = ["openssl", "req", "-x509", "-nodes", *more, "-keyout", key, "-out", crt, "-subj", "/CN=x"]
    subprocess.run(argv, check=True, capture_output=True)
    with pytest.raises(ValueError, match="which Envoy refuses"):
        credentials.served(crt.read_text(), key.read_text())


@pytest.mark.parametrize("text", ["garbage", ROOT.certificate, LIST.format("AAAA"), LIST.format("") + "x"])
def test_lists_that_envoy_would_skip_silently_are_refused(text):
    """A file that is no revocation list revokes nothing, and Envoy does not say so."""
    with pytest.raises(ValueError, match="revocation lists are not PEM text"):
        credentials.lists(text)


def test_authorities_that_are_cut_off_are_refused():
    assert credentials.authorities(f"\ufeff{indented(ROOT.certificate)}") == ROOT.certificate
    with pytest.raises(ValueError, match="is cut off"):
        credentials.authorities(ROOT.certificate + ROOT.certificate[:300])
