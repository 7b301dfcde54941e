"""What `lateen check` says of istiod's Deployments."""

import pytest

from lateen.cli.checking import Wrong
from lateen.cli.checks import istiods_ready


def istiod(name="istiod", ready=1, wanted=1):
    return {"metadata": {"name": name}, "spec": {"replicas": wanted}, "status": {"readyReplicas": ready}}


def test_a_control_plane_of_a_revision_alone_is_a_control_plane():
    assert istiods_ready([istiod("istiod-canary", 2, 2)], "istio-system") == "2 of 2 pods"


def test_every_revision_counts():
    both = [istiod(), istiod("istiod-canary", 0, 1)]
    with pytest.raises(Wrong, match="0 of 1 pods of istiod-canary are ready"):
        istiods_ready(both, "istio-system")
    assert (
        istiods_ready([istiod(), istiod("istiod-canary")], "x") == "1 of 1 pods of istiod, 1 of 1 pods of istiod-canary"
    )


def test_none_at_all_is_told_with_the_remedy():
    with pytest.raises(Wrong, match="there is no istiod in namespace istio-system"):
        istiods_ready([], "istio-system")
