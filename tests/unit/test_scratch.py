"""emptyDir volumes with a limit, and those in memory."""

import os

import pytest

from lateen.cluster import kernel
from lateen.cluster.kubelet import limits, scratch


def pod(*volumes, **resources):
    return {"spec": {"containers": [{"name": "c", "resources": resources}], "volumes": list(volumes)}}


def volume(name="v", **source):
    return {"name": name, "emptyDir": source}


def test_a_volume_that_is_larger_than_its_limit_is_named(tmp_path):
    about = pod(volume(), volume("cache", sizeLimit="64Ki"), volume("ram", medium="Memory", sizeLimit="1"))
    for name in ("v", "cache/deep", "ram"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_bytes(os.urandom(40 * 1024))
    (tmp_path / "cache/link").symlink_to(tmp_path / "v")
    assert scratch.exceeded(about, tmp_path) == ""
    (tmp_path / "cache/more").write_bytes(os.urandom(40 * 1024))
    assert scratch.exceeded(about, tmp_path) == 'Usage of EmptyDir volume "cache" exceeds the limit "64Ki". '


def test_only_a_limit_on_the_disk_is_looked_at():
    assert not scratch.limited(pod(volume(), volume("a", medium="Memory", sizeLimit="1Mi"), volume("b", sizeLimit="0")))
    assert scratch.limited(pod(volume(), volume("a", sizeLimit="1Mi")))


@pytest.mark.parametrize(
    ("source", "resources", "size"),
    [
        ({}, {}, None),
        ({"sizeLimit": "1Mi"}, {}, 1 << 20),
        ({}, {"limits": {"memory": "2Mi"}}, 2 << 20),
        ({"sizeLimit": "3Mi"}, {"limits": {"memory": "2Mi"}}, 2 << 20),
        ({}, {"limits": {"cpu": "1"}}, None),
    ],
)
def test_a_volume_in_memory_is_no_larger_than_what_the_pod_may_have(monkeypatch, source, resources, size):
    mounted = []
    monkeypatch.setattr(kernel, "mount", lambda *given: mounted.append(given))
    asked = volume(medium="Memory", **source)
    scratch.mount(7, pod(asked, **resources), asked)
    ((_, at, kind, _, options, _),) = mounted
    assert (at, kind) == ("/proc/self/fd/7", "tmpfs")
    assert options == f"mode=777,size={size or limits.machine_memory()}"


@pytest.mark.parametrize("home", ["lateen", "of Jörg", "link"])
def test_what_is_mounted_for_a_pod_is_released_wherever_the_state_directory_is(tmp_path, monkeypatch, home):
    """The kernel writes spaces as numbers, and paths without links."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    root = tmp_path / home / "u"
    root.mkdir(parents=True)
    mounted = [f"{os.path.realpath(root)}/volumes/v", f"{os.path.realpath(root)}2/volumes/v", "/proc"]
    lines = (f"36 35 98:0 / {at} rw - tmpfs tmpfs rw\n".replace(at, at.replace(" ", "\\040")) for at in mounted)
    (tmp_path / "mountinfo").write_text("".join(lines), encoding="utf-8")
    released = []
    monkeypatch.setattr(kernel, "unmount", released.append)
    scratch.release(root, tmp_path / "mountinfo")
    assert released == mounted[:1]


def test_a_file_system_that_cannot_be_unmounted_keeps_no_pod(tmp_path, monkeypatch, caplog):
    def busy(at):
        raise OSError(16, f"umount of {at}: busy")

    (tmp_path / "mountinfo").write_text(f"36 35 98:0 / {tmp_path}/u/v rw - tmpfs tmpfs rw\n")
    monkeypatch.setattr(kernel, "unmount", busy)
    scratch.release(tmp_path / "u", tmp_path / "mountinfo")
    assert "busy" in caplog.text
