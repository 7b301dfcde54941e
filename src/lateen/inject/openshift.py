"""User ids on OpenShift, which assigns a range of them to each namespace. The proxy takes the last one, because the
redirection distinguishes it from the application by user id.

Source: https://docs.openshift.com/container-platform/latest/authentication/managing-security-context-constraints.html
"""

from __future__ import annotations

from collections.abc import Mapping

from lateen.wire import ports

UIDS = "openshift.io/sa.scc.uid-range"
GROUPS = "openshift.io/sa.scc.supplemental-groups"


def proxy_ids(annotations: Mapping[str, str]) -> tuple[int, int]:
    """(user, group) of the proxy in a namespace with these annotations. Raises ValueError."""
    uid = _last(annotations[UIDS]) if annotations.get(UIDS) else ports.PROXY_UID
    gid = _last(annotations[GROUPS].split(",")[0]) if annotations.get(GROUPS) else ports.PROXY_UID
    return uid, gid


def _last(block: str) -> int:
    """``1000/10`` (first/size) and ``1000-1009`` -> 1009"""
    first, slash, size = block.partition("/")
    low, dash, high = block.partition("-")
    try:
        found = int(first) + int(size) - 1 if slash else int(high) if dash else None
        if found is None or found < int(first if slash else low):
            raise ValueError
    except ValueError:
        raise ValueError(f'the namespace\'s range of ids "{block}" is not first/size or first-last') from None
    return found
