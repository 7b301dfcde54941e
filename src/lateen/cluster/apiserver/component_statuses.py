"""ComponentStatuses, which nothing stores: all components are this process, and it answers."""

from __future__ import annotations

from lateen.cluster.apiserver import errors, selection
from lateen.cluster.apiserver.call import Call, Listing
from lateen.cluster.store.objects import Store
from lateen.kit.jsons import Json

NAMES = ("scheduler", "controller-manager", "etcd-0")
DEPRECATED = "v1 ComponentStatus is deprecated in v1.19+"


def answer(store: Store, c: Call, verb: str) -> Json | Listing:
    """get and list. Raises ApiError."""
    c.warnings.append(DEPRECATED)
    wanted = selection.test(c)
    found = [obj for name in NAMES if wanted(obj := _status(name))]
    if verb == "list":
        return Listing(found, str(store.rv))
    if not found:
        raise errors.not_found(c.resource.plural, c.name)
    return found[0]


def _status(name: str) -> Json:
    return {
        "kind": "ComponentStatus",
        "apiVersion": "v1",
        "metadata": {"name": name},
        "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}],
    }
