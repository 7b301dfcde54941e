"""The Secrets of issued certificates: ownership, when renewal is due, and contents. Pure, apart from key generation."""

from __future__ import annotations

import asyncio
import base64
from datetime import datetime

from lateen.api import cert_manager as cm
from lateen.ca import serving
from lateen.ca.signer import decoded
from lateen.control.issuers import Found, Made, Ordered, Unusable, identity
from lateen.kit import certs
from lateen.kit.certs import PrivateKey
from lateen.kit.jsons import Json, dig

OWNER = f"{cm.GROUP}/certificate-name"
"""Annotation: the Certificate that owns the Secret"""


def due(wanted: Ordered, issuer: Found, secret: Json | None, now: datetime) -> str:
    """Why a certificate has to be issued; empty if the current one is still good. Raises Unusable."""
    spec, name = wanted.spec, wanted.spec.secret_name
    if secret is None:
        return f"there is no Secret {name}"
    check(wanted, secret)
    notes = dig(secret, "metadata", "annotations", default={})
    data = decoded(secret)
    chain = data.get("tls.crt", "")
    if why := serving.unlike(spec, chain, data.get("tls.key", "")):
        return why
    if any(notes.get(k) != v for k, v in identity(issuer).items()):
        return "it was issued by another issuer"
    at = serving.renewal(spec, chain)
    return f"it will be renewed from {at:%Y-%m-%d %H:%M} UTC on" if at <= now else ""


async def key_for(spec: cm.Certificate, before: Json | None) -> PrivateKey:
    if before is not None and spec.private_key and spec.private_key.rotation_policy == "Never":
        kept = serving.read_key(decoded(before).get("tls.key", ""))
        if kept is not None and serving.is_of(kept, spec.private_key):
            return kept
    return await asyncio.to_thread(serving.new_key, spec.private_key)


def check(wanted: Ordered, secret: Json) -> None:
    """Raises Unusable for a Secret that does not belong to the Certificate."""
    name, notes = wanted.spec.secret_name, dig(secret, "metadata", "annotations", default={})
    if secret.get("type") != "kubernetes.io/tls":
        raise Unusable(f"Secret {name} is of type {secret.get('type')}, and is left alone; delete it or name another")
    if notes.get(OWNER, wanted.ref.name) != wanted.ref.name:
        raise Unusable(f"Secret {name} is that of Certificate {notes[OWNER]}; name another one in spec.secretName")


def content(wanted: Ordered, issuer: Found, before: Json | None, made: Made, key: PrivateKey) -> Json:
    """The Secret's new contents, preserving what others have added."""
    spec, template = wanted.spec, wanted.spec.secret_template or cm.SecretTemplate()
    entries = {"tls.crt": made.chain, "tls.key": certs.key_pem(key)}
    entries |= {"ca.crt": made.authorities} if made.authorities else {}
    data = {k: base64.b64encode(v.encode()).decode() for k, v in entries.items()}
    said = {
        OWNER: wanted.ref.name,
        f"{cm.GROUP}/common-name": spec.common_name,
        f"{cm.GROUP}/alt-names": ",".join(spec.dns_names),
    }
    meta: Json = dict((before or {}).get("metadata") or {})
    meta |= {"name": spec.secret_name, "namespace": wanted.ref.namespace}
    meta["annotations"] = {**(meta.get("annotations") or {}), **template.annotations, **said, **identity(issuer)}
    meta["labels"] = {**(meta.get("labels") or {}), **template.labels}
    return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": meta, "data": data}
