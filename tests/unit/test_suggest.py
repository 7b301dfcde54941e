"""Policies from what was seen: who may call whom."""

from lateen.api import validate
from lateen.cli.suggest import Seen, callers, policy
from lateen.console.plaintext import services

WEB = "cluster.local/ns/default/sa/web"


def series(principal, service="api", value="3", namespace="default"):
    labels = {"destination_workload_namespace": namespace, "destination_canonical_service": service}
    return {"metric": {**labels, "source_principal": principal}, "values": [[0, "0"], [60, value]]}


def pod(labels, containers=("app", "istio-proxy"), namespace="default"):
    return {
        "metadata": {"name": "p", "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": c} for c in containers]},
    }


def test_callers_are_known_by_their_certificates_and_the_others_are_counted():
    found = callers([series(f"spiffe://{WEB}"), series("unknown", value="2.5"), series("spiffe://x", value="0")])
    assert found == {("default", "api"): Seen({WEB}, 2.5)}


def test_a_service_is_selected_by_the_label_that_names_it():
    found = services(
        [
            pod({"app": "api", "version": "v1"}),
            pod({"app.kubernetes.io/name": "shop", "app": "x"}),
            pod({"app": "outside"}, containers=("app",)),
            pod({"version": "v1"}),
        ]
    )
    assert found == {("default", "api"): {"app": "api"}, ("default", "shop"): {"app.kubernetes.io/name": "shop"}}


def test_the_policy_is_valid_and_names_the_callers():
    made = policy(("default", "api"), {"app": "api"}, Seen({WEB}))
    assert list(validate.problems(made)) == []
    assert made["spec"]["rules"] == [{"from": [{"source": {"principals": [WEB]}}]}]
