"""The names that workloads have in metrics."""

import pytest

from lateen.api import objects as o
from lateen.mesh.workloads import described

NAME, VERSION = "app.kubernetes.io/name", "app.kubernetes.io/version"


def seen(labels):
    pod = o.Pod("shop", "web-1", "u", "10.0.0.1", tuple(labels.items()), "default", "web", (), True)
    found = described(pod)
    return {key: found[key] for key in ("service", "revision", "app", "version")}


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ({}, ("web", "latest", "unknown", "unknown")),
        ({"app": "a", "version": "v1"}, ("a", "v1", "a", "v1")),
        ({NAME: "chart", VERSION: "2.0"}, ("chart", "2.0", "chart", "2.0")),
        ({"app": "a", "version": "v1", NAME: "chart", VERSION: "2.0"}, ("chart", "2.0", "chart", "2.0")),
        (
            {NAME: "chart", "service.istio.io/canonical-name": "mine", "service.istio.io/canonical-revision": "r"},
            ("mine", "r", "chart", "unknown"),
        ),
        ({"service.istio.io/workload-name": "other"}, ("other", "latest", "unknown", "unknown")),
    ],
)
def test_labels_of_charts_precede_app_and_version_as_in_istio(labels, wanted):
    assert tuple(seen(labels).values()) == wanted
