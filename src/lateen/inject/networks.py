"""The annotation by which Multus attaches pods to networks.

Source: https://github.com/k8snetworkplumbingwg/multus-cni/blob/master/docs/how-to-use.md
"""

from __future__ import annotations

from lateen.kit import jsons


def with_network(given: str, ours: str) -> str:
    """The networks that a pod has, and ``ours``: a list of names, or JSON, whose formatting is kept."""
    if not given:
        return ours
    end = given.rfind("]")
    if end < 0:
        return given if ours in [n.strip() for n in given.split(",")] else f"{given}, {ours}"
    try:
        names = [n.get("name") for n in jsons.loads(given)]
    except (ValueError, AttributeError, TypeError):
        return given
    return given if ours in names else f'{given[:end]}, {{"name": "{ours}"}}{given[end:]}'
