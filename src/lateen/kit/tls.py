"""TLS of connections to servers whose certificates others have made."""

from __future__ import annotations

import ssl


def client_context(authorities: str | None) -> ssl.SSLContext:
    """``authorities``: PEM; None for the machine's. Since Python 3.13 certificates without the identifier of their
    authority's key are refused by default (VERIFY_X509_STRICT); clusters and their webhooks have such, and Kubernetes'
    own clients take them. Raises ssl.SSLError."""
    context = ssl.create_default_context(cadata=authorities)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
