"""Image names of samples, mirrors and digests lead to the catalogue; what a program needs is found."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from lateen.cluster.kubelet import programs
from lateen.cluster.kubelet.catalogue import UNPACKING_S, Catalogue, Unreadable
from lateen.cluster.kubelet.images import UnknownImage


@pytest.fixture
def catalogue(tmp_path):
    return Catalogue(tmp_path / "images.json", tmp_path / "bin", tmp_path / "rootfs", False)


@pytest.mark.parametrize(
    ("image", "known"),
    [
        ("docker.io/istio/examples-bookinfo-reviews-v2:1.16.2", "istio/examples-bookinfo-reviews-v2"),
        ("registry.istio.io/release/examples-bookinfo-details-v1:1.20.3", "istio/examples-bookinfo-details-v1"),
        ("registry.istio.io/release/tcp-echo-server:1.3", "istio/tcp-echo-server"),
        ("registry.istio.io/release/examples-helloworld-v2:1.0", "istio/examples-helloworld-v2"),
        ("gcr.io/istio-release/pilot:1.30.0", "istio/pilot"),
        ("mirror.example.com:5000/hub/curlimages/curl:8@sha256:" + "0" * 64, "curlimages/curl"),
        ("mirror.example.com/a/b/istio/proxyv2", "istio/proxyv2"),
        ("mccutchen/go-httpbin", "mccutchen/go-httpbin"),
        ("my.example.com/team/examples-bookinfo-ratings-v1", "istio/examples-bookinfo-ratings-v1"),
    ],
)
def test_image_names_of_samples_and_mirrors_are_found(catalogue, image, known):
    assert catalogue.entry(image)[0] == known


@pytest.mark.parametrize("image", ["auto", "example/curl", "curl", "pilot", "evil/x;rm -rf /", "a/b:c@d"])
def test_other_image_names_are_not_found(catalogue, image):
    with pytest.raises(UnknownImage, match="lateen image add"):
        catalogue.find(image)


def test_an_added_image_has_what_it_was_given_and_is_found_by_its_exact_name_first(catalogue):
    entry = {
        "command": ["/bin/app"],
        "mounts": ["/old", {"source": "/a", "target": "/b", "readOnly": False}],
        "env": {"A": "1"},
        "user": [7, None],
        "directory": "/w",
    }
    catalogue.add("example/app", entry)
    catalogue.add("example/app:2", {"command": ["/bin/sh"], "replaceable": True})
    found = catalogue.find("mirror.example.com/example/app:1")
    assert found.entrypoint == ("/bin/app",)
    assert found.mounts == (("/old", "/old", True), ("/a", "/b", False))
    assert (found.env, found.user, found.directory) == ((("A", "1"),), (7, None), "/w")
    assert catalogue.find("example/app:2").arguments == ("/bin/sh",)
    assert catalogue.find("example/app:2").entrypoint == ()
    assert catalogue.remove("example/app:2")
    assert not catalogue.remove("example/app:2")
    assert not catalogue.remove("istio/pilot")


# --- programs --------------------------------------------------------------------------------------------------------


def test_files_of_images_in_use_stay_wherever_the_state_directory_is_now(tmp_path):
    rootfs, long_ago = tmp_path / "rootfs", time.time() - UNPACKING_S - 1
    for name in ("sha256-used", "sha256-left"):
        (rootfs / name).mkdir(parents=True)
        os.utime(rootfs / name, (long_ago, long_ago))
    catalogue = Catalogue(tmp_path / "images.json", tmp_path / "bin", tmp_path / "rootfs", False)
    catalogue.add("app", {"command": ["/app"], "rootfs": "/another/way/rootfs/sha256-used"})
    catalogue.sweep()
    assert [p.name for p in rootfs.iterdir()] == ["sha256-used"]


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_nothing_is_lost_where_the_list_of_images_cannot_be_read(tmp_path, text):
    own, rootfs = tmp_path / "images.json", tmp_path / "rootfs"
    own.write_text(text)
    (rootfs / "sha256-used").mkdir(parents=True)
    os.utime(rootfs / "sha256-used", (0, 0))
    catalogue = Catalogue(own, tmp_path / "bin", rootfs, False)
    for work in (lambda: catalogue.sweep(), lambda: catalogue.add("app", {}), lambda: catalogue.find("app")):
        with pytest.raises(Unreadable, match="repair it"):
            work()
    assert own.read_text() == text
    assert (rootfs / "sha256-used").exists()


def executable(path, text="#!/bin/sh\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_venvs_interpreter_behind_a_link_is_needed_too(tmp_path):
    real = executable(tmp_path / "pyenv/versions/3.11/bin/python3.11")
    (tmp_path / "pyenv/versions/3.11/bin/python3").symlink_to("python3.11")
    venv = tmp_path / "app/venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text(f"home = {real.parent}\n")
    (venv / "bin/python").symlink_to(tmp_path / "pyenv/versions/3.11/bin/python3")
    script = executable(venv / "bin/serve", f"#!{venv}/bin/python\n")
    wanted = [str(venv), str(tmp_path / "pyenv/versions/3.11")]
    assert programs.needs([str(venv / "bin/python"), "-m", "x"]) == wanted
    assert programs.needs([str(script)]) == wanted


def test_files_among_the_arguments_are_needed(tmp_path):
    (tmp_path / "app.py").write_text("")
    assert programs.needs(["/usr/bin/env", str(tmp_path / "app.py"), "/nosuch", "/usr/bin/env"]) == [
        str(tmp_path / "app.py")
    ]
    assert programs.needs(["curl"]) == []


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(programs.Missing, match="does not exist"):
        programs.needs([str(tmp_path / "x/nosuch")])
    (tmp_path / "link").symlink_to("/nosuch/python")
    with pytest.raises(programs.Missing, match="symbolic link to /nosuch/python"):
        programs.needs([str(tmp_path / "link")])
    with pytest.raises(programs.Missing, match="interpreter /nosuch/sh"):
        programs.needs([str(executable(tmp_path / "s", "#!/nosuch/sh\n"))])
    (tmp_path / "data").write_text("x")
    os.chmod(tmp_path / "data", 0o644)
    with pytest.raises(programs.Missing, match="not executable"):
        programs.needs([str(tmp_path / "data")])
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(programs.Missing, match="leads back to itself"):
        programs.needs([str(tmp_path / "loop")])


def test_images_that_are_run_for_their_shell_run_this_machines(catalogue):
    for name in ("busybox", "busybox:1.36", "docker.io/library/busybox@sha256:" + "0" * 64):
        assert catalogue.find(name).arguments[0].endswith("/sh")
        assert catalogue.find(name).entrypoint == ()
    for name in ("registry.k8s.io/busybox", "registry.k8s.io/e2e-test-images/busybox:1.29-4"):
        assert catalogue.find(name).arguments[0].endswith("/sh")
    for name in ("example.com/team/busybox", "team/python", "nginx"):
        with pytest.raises(UnknownImage):
            catalogue.find(name)


def _catches(pid, number):
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_kubernetes_own_pause_does_nothing_and_ends_when_it_is_told_to(catalogue):
    for name in ("registry.k8s.io/pause:3.10", "k8s.gcr.io/pause@sha256:" + "0" * 64, "gcr.io/google_containers/pause"):
        process = subprocess.Popen(catalogue.find(name).entrypoint)
        while not _catches(process.pid, signal.SIGTERM):
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        assert process.wait(5) == 0
    with pytest.raises(UnknownImage):
        catalogue.find("team/pause")
