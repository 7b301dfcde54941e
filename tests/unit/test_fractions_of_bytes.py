"""Memory of ``100m``: a tenth of a byte, which Kubernetes warns of and rounds up."""

import pytest

from lateen.cluster.apiserver import pod_warnings
from lateen.cluster.kubelet import downward


def pod(**limits):
    return {"spec": {"containers": [{"name": "a", "resources": {"limits": limits}}]}}


@pytest.mark.parametrize(
    ("kind", "around", "at"),
    [
        ("Pod", lambda p: p, "spec"),
        ("Deployment", lambda p: {"spec": {"template": p}}, "spec.template.spec"),
        (
            "CronJob",
            lambda p: {"spec": {"jobTemplate": {"spec": {"template": p}}}},
            "spec.jobTemplate.spec.template.spec",
        ),
    ],
)
def test_a_fraction_of_a_byte_is_warned_of_in_the_words_of_kubernetes(kind, around, at):
    (says,) = pod_warnings.of(kind, around(pod(memory="100m", cpu="100m")))
    field = f"{at}.containers[0].resources.limits[memory]"
    assert says == f'{field}: fractional byte value "100m" is invalid, must be an integer'
    assert not list(pod_warnings.of(kind, around(pod(memory="100M", cpu="100m"))))


@pytest.mark.parametrize(
    ("given", "divisor", "told"),
    [
        ("100m", None, "1"),
        ("1Pi", "1Ti", "1024"),
        ("2e3", "1k", "2"),
        ("1500m", "1m", "1500"),
        (1.5, None, "2"),
    ],
)
def test_a_variable_of_a_resource_knows_every_unit_and_is_rounded_up(given, divisor, told):
    container = {"resources": {"limits": {"memory": given}}}
    assert downward.resource(container, {"resource": "limits.memory", "divisor": divisor}) == told
