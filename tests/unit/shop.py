"""A small cluster as the console sees it."""

from lateen.api import kinds
from lateen.console.cluster import Cluster


def kubernetes(kind, name, namespace="shop", **more):
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": namespace, **more.pop("metadata", {})},
        **more,
    }


def shop_pod(name, labels, owner="cart-v1", ready=True, proxy=True):
    hash_ = "5d4f"
    return kubernetes(
        kinds.POD,
        name,
        metadata={
            "labels": {**labels, "pod-template-hash": hash_},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{owner}-{hash_}", "controller": True}
            ],
        },
        spec={"containers": [{"name": "app"}, *([{"name": "istio-proxy"}] if proxy else [])]},
        status={"phase": "Running", "containerStatuses": [{"name": "app", "ready": ready}]},
    )


def place(obj):
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


class NoClient:
    """The objects come from the test, not from a cluster."""


def cluster(*objects):
    found = Cluster(NoClient(), "istio-system")
    for obj in objects:
        kind = kinds.of(obj)
        informer = found.informers[kind]
        informer._change(place(obj), obj)
    return found


CART = {"app": "cart", "version": "v1"}
SHOP = (
    kubernetes(kinds.SERVICE, "cart", spec={"selector": {"app": "cart"}, "ports": [{"name": "http", "port": 80}]}),
    shop_pod("cart-v1-5d4f-a", CART),
    shop_pod("cart-v1-5d4f-b", CART, ready=False, proxy=False),
    kubernetes(
        kinds.VIRTUAL_SERVICE,
        "cart",
        spec={"hosts": ["cart"], "http": [{"route": [{"destination": {"host": "cart", "subset": "gone"}}]}]},
    ),
    kubernetes(kinds.PEER_AUTHENTICATION, "strict", spec={"mtls": {"mode": "STRICT"}}),
    kubernetes(kinds.AUTHORIZATION_POLICY, "other", spec={"selector": {"matchLabels": {"app": "other"}}}),
)
