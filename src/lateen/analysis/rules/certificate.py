"""Server certificates that are not issued or renewed, and issuers that are not ready."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Snapshot, message
from lateen.api import kinds
from lateen.kit.jsons import dig


@analyzer("certificates.IssuingAnalyzer", "Checks that certificates of servers are issued and renewed")
def issuing(snapshot: Snapshot) -> Iterator[Message]:
    """According to the status written by istiod: only a running mesh knows."""
    for kind in (kinds.ISSUER, kinds.CLUSTER_ISSUER, kinds.CERTIFICATE):
        for source in snapshot.all(kind):
            for c in dig(source.obj, "status", "conditions", default=[]):
                if c.get("type") == "Ready" and c.get("status") == "False":
                    what = "no certificate is issued" if kind is kinds.CERTIFICATE else "the issuer is not ready"
                    yield message("LAT0123", source, what, str(c.get("message")), path=("spec",))
