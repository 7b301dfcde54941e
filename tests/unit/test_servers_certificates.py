"""What ``check`` and ``analyze`` say of Certificates that are not issued, not renewed or expired."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace

import pytest

from lateen.analysis import analyze
from lateen.analysis.snapshot import Snapshot, Source
from lateen.cli.checking import Skip, Wrong
from lateen.cli.checks_mesh import servers_certificates
from lateen.kit import times
from lateen.kube.client import KubeError


def certificate(days=None, due=None, ready="True", says="attempt 3 failed"):
    """One that expires in so many days, and whose renewal is due in so many."""
    at = {"notAfter": days, "renewalTime": due}
    status = {k: times.stamp(times.now() + timedelta(days=v)) for k, v in at.items() if v is not None}
    status["conditions"] = [{"type": "Ready", "status": ready, "message": says}] if ready else []
    meta = {"name": "shop", "namespace": "web"}
    return {"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": meta, "spec": {}, "status": status}


def checked(*found, error=None):
    async def listed(_):
        if error:
            raise error
        return list(found), "1"

    return asyncio.run(servers_certificates(SimpleNamespace(api=lambda: SimpleNamespace(list=listed))))


def test_a_certificate_that_is_renewed_in_time_is_in_order():
    assert checked(certificate(60, 30), certificate(30, -1)) == "2 Certificates"
    assert checked(certificate(ready="")) == "1 Certificates", "one that has just been made"


@pytest.mark.parametrize(
    ("found", "warning", "says"),
    [
        (certificate(-1, -30), False, "expired on"),
        (certificate(5, -25, "False"), True, "is not renewed: attempt 3 failed"),
        (certificate(ready="False"), True, "web/shop has no certificate: attempt 3 failed"),
    ],
    ids=["expired", "not renewed", "never issued"],
)
def test_one_that_is_not_is_told_with_the_reason_and_what_to_look_at(found, warning, says):
    with pytest.raises(Wrong) as told:
        checked(certificate(60, 30), found)
    assert told.value.warning is warning
    assert says in told.value.says
    assert told.value.remedy == "kubectl describe certificate shop -n web"


def test_an_expired_one_is_told_before_one_that_expires():
    with pytest.raises(Wrong, match="expired on"):
        checked(certificate(5, -25), certificate(-1, -30))


def test_without_certificates_there_is_nothing_to_check():
    for error in (None, KubeError(404, "NotFound", "no such kind")):
        with pytest.raises(Skip, match="there are no Certificates"):
            checked(error=error)


def test_the_analysis_names_the_certificates_and_issuers_that_are_not_ready():
    issuer = {**certificate(ready="False", says="no answer"), "kind": "Issuer"}
    snapshot = Snapshot(map(Source, (certificate(ready="False"), issuer)))
    told = [(m.source.kind, m.kind.code, m.text) for m in analyze(snapshot, ["certificates.IssuingAnalyzer"])]
    assert told == [
        ("Certificate", "LAT0123", "no certificate is issued: attempt 3 failed."),
        ("Issuer", "LAT0123", "the issuer is not ready: no answer."),
    ]
    assert not analyze(Snapshot([Source(certificate(60, 30))]), ["certificates.IssuingAnalyzer"])
