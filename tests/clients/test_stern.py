"""The real stern (``binaries``) follows the logs of Bookinfo's pods: several at a time, by watches and streams."""

import json
import subprocess

import binaries
import pytest

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def program():
    return binaries.needed("stern")


def lines(done):
    return [json.loads(x) for x in done.stdout.splitlines()]


def test_the_logs_of_several_pods_are_shown_by_pod_and_container(mesh, program):
    mesh.until(lambda: mesh.page()[0] == 200, what="a page")
    found = lines(mesh.run(program, "productpage|details", "-n", "default", "--no-follow", "-o", "json"))
    seen = {(x["podName"], x["containerName"]) for x in found}
    expected = {(mesh.pod(app), app) for app in ("productpage", "details")}
    assert expected <= seen
    only = lines(
        mesh.run(program, "deployment/details-v1", "--no-follow", "-c", "details", "--tail", "2", "-o", "json")
    )
    assert {x["containerName"] for x in only} == {"details"}
    assert 1 <= len(only) <= 2


def test_the_logs_of_a_pod_that_comes_later_are_followed(mesh, program, tmp_path):
    out = tmp_path / "out"
    argv = [program, "-n", "default", "-l", "run=later", "-o", "json"]
    with out.open("w") as file, subprocess.Popen(argv, stdout=file, stderr=file, env=mesh.environment) as stern:
        try:
            mesh.kubectl(
                "run", "later", "--image=lateen/sleep", "--command", "--", "sh", "-c", "echo I am here; exec sleep 600"
            )
            mesh.until(lambda: "I am here" in out.read_text(), 60, "a line of the new pod")
        finally:
            stern.terminate()
            mesh.kubectl("delete", "pod", "later", "--grace-period=1", "--ignore-not-found", ok=False)
