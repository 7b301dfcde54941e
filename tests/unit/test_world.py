"""Which objects istiod takes into the mesh, and which it leaves out and reports."""

import pytest

from lateen.api import kinds
from lateen.control.world import World
from lateen.wire.revision import Revision

KEY = ("default", "reviews")


def rule(spec):
    return {"metadata": {"name": "reviews", "namespace": "default", "uid": "u", "generation": 1}, "spec": spec}


GOOD = {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews"}}]}]}


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"hosts": 7}, "spec.hosts: expected a list, got an integer"),
        ({**GOOD, "http": [{"match": [{"uri": {"regex": "("}}], **GOOD["http"][0]}]}, "spec.http[0].match[0].uri"),
        ({**GOOD, "hosts": ["a b"]}, "spec.hosts[0]"),
    ],
)
def test_an_object_that_bypassed_the_webhook_does_not_replace_the_last_valid_one(spec, word):
    """It may come from a time before the webhook."""
    world = World("istio-system", lambda: None)
    world.changed(kinds.VIRTUAL_SERVICE, KEY, None, rule(GOOD))
    good = world.objects.virtual_services[KEY]
    world.changed(kinds.VIRTUAL_SERVICE, KEY, rule(GOOD), rule(spec))
    assert world.objects.virtual_services[KEY] is good
    assert word in world.bad[kinds.VIRTUAL_SERVICE.ref(*KEY)]
    world.changed(kinds.VIRTUAL_SERVICE, KEY, rule(spec), None)
    assert not world.bad
    assert not world.objects.virtual_services


def test_the_findings_of_validation_are_kept_until_the_object_is_gone():
    """The analysis takes them over."""
    world = World("istio-system", lambda: None)
    ref = kinds.VIRTUAL_SERVICE.ref(*KEY)
    world.changed(kinds.VIRTUAL_SERVICE, KEY, None, rule(GOOD))
    assert world.validated == {ref: []}
    world.changed(kinds.VIRTUAL_SERVICE, KEY, rule(GOOD), rule({**GOOD, "hosts": ["a b"]}))
    assert [f.path for f in world.validated[ref]] == ["spec.hosts[0]"]
    world.changed(kinds.VIRTUAL_SERVICE, KEY, rule(GOOD), None)
    assert not world.validated


def test_objects_are_one_value_until_something_changes():
    heard = []
    world = World("istio-system", lambda: heard.append(1))
    world.changed(kinds.VIRTUAL_SERVICE, KEY, None, rule(GOOD))
    first = world.objects
    assert world.objects is first
    world.changed(kinds.VIRTUAL_SERVICE, ("default", "other"), None, None)
    assert world.objects is first
    assert heard == [1]
    world.changed(kinds.VIRTUAL_SERVICE, ("default", "other"), None, rule(GOOD))
    assert KEY in world.objects.virtual_services
    assert ("default", "other") not in first.virtual_services


def test_the_revisions_that_run_follow_their_pods():
    world = World("istio-system", lambda: None, Revision("canary"))
    key = ("istio-system", "istiod-1")
    meta = {"namespace": key[0], "name": key[1], "labels": {"app": "istiod"}}
    pod = {"metadata": meta, "spec": {"containers": []}, "status": {"phase": "Running", "podIP": "10.0.0.9"}}
    assert world.revisions() == ("canary",)
    world.changed(kinds.POD, key, None, pod)
    assert world.revisions() == ("default", "canary")
    world.changed(kinds.POD, key, pod, None)
    assert world.revisions() == ("canary",)


@pytest.mark.parametrize(("phase", "first"), [("Running", "default"), ("Failed", "canary"), ("Succeeded", "canary")])
def test_a_revision_whose_istiods_have_finished_does_not_run(phase, first):
    """An evicted pod stays in the API until somebody removes it."""
    world = World("istio-system", lambda: None, Revision("canary"))
    meta = {"name": "istiod-0", "namespace": "istio-system", "uid": "u", "labels": {"app": "istiod"}}
    pod = {"metadata": meta, "spec": {"containers": []}, "status": {"phase": phase, "podIP": "10.0.0.1"}}
    world.changed(kinds.POD, ("istio-system", "istiod-0"), None, pod)
    assert world.first_revision() == first


def test_a_pod_that_has_finished_has_no_address_in_the_mesh():
    world, key = World("istio-system", lambda: None), ("default", "job")
    meta = {"name": "job", "namespace": "default", "uid": "u"}
    pod = {"metadata": meta, "spec": {"containers": []}, "status": {"phase": "Running", "podIP": "10.0.0.1"}}
    world.changed(kinds.POD, key, None, pod)
    assert key in world.objects.pods
    world.changed(kinds.POD, key, pod, {**pod, "status": {**pod["status"], "phase": "Succeeded"}})
    assert key not in world.objects.pods
