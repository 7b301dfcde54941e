"""CertificateSigningRequests at the API server: the requester, who may approve and sign, and what they may change.

Follows pkg/registry/certificates and the admission plugins CertificateApproval, CertificateSigning and
CertificateSubjectRestriction.
"""

from __future__ import annotations

from lateen.cluster.apiserver import rbac
from lateen.cluster.apiserver.auth import User
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.errors import forbidden
from lateen.cluster.apiserver.rbac import MASTERS, Attributes
from lateen.cluster.rules import requests
from lateen.cluster.store.objects import Store
from lateen.kit import times
from lateen.kit.jsons import Json, dig


def stamp(c: Call, obj: Json, old: Json | None) -> None:
    """In place: the requester is whoever sends the request; afterwards only conditions and certificate change."""
    if old is not None:
        obj["spec"] = old["spec"]
        if c.subresource:
            _date(obj, old)
        return
    spec = obj.setdefault("spec", {})
    for key in ("username", "uid", "groups", "extra"):
        spec.pop(key, None)
    user = c.user.info()
    spec |= {"username": user["username"], "groups": user["groups"]}
    spec |= {k: user[k] for k in ("uid", "extra") if k in user}


def _date(obj: Json, old: Json) -> None:
    """Conditions get the time of their change."""
    before = {x.get("type"): x for x in dig(old, "status", "conditions", default=[])}
    now = times.stamp()
    for condition in dig(obj, "status", "conditions", default=[]):
        was = before.get(condition.get("type"))
        if was is None or was.get("status") != condition.get("status"):
            condition["lastTransitionTime"] = condition.get("lastTransitionTime") or now
        condition["lastUpdateTime"] = condition.get("lastUpdateTime") or now


def permit(c: Call, obj: Json, old: Json | None, store: Store) -> None:
    """Raises ApiError."""
    signer = str(dig(obj, "spec", "signerName", default=""))
    if c.subresource == "approval" and not _may(store, c.user, "approve", signer):
        raise _forbidden(c, obj, f'user not permitted to approve requests with signerName "{signer}"')
    if c.subresource == "status" and not _may(store, c.user, "sign", signer):
        raise _forbidden(c, obj, f'user not permitted to sign requests with signerName "{signer}"')
    if old is None and signer == requests.APISERVER_CLIENT:
        from lateen.cluster.rules import signing

        try:
            organizations = signing.subject(signing.parse(obj["spec"].get("request"))).organizations
        except ValueError:
            return  # validation says so
        if MASTERS in organizations:
            raise _forbidden(c, obj, f"use of {signer} signer with {MASTERS} group is not allowed")


def _may(store: Store, user: User, verb: str, signer: str) -> bool:
    domain = signer.partition("/")[0]
    return any(
        rbac.allowed(store, user, Attributes(verb, requests.GROUP, "signers", name=name))
        for name in (signer, f"{domain}/*")
    )


def _forbidden(c: Call, obj: Json, says: str) -> Exception:
    r, name = c.resource, str(obj["metadata"].get("name", ""))
    return forbidden(f'{r.qualified} "{name}" is forbidden: {says}', r.plural, name, r.group)
