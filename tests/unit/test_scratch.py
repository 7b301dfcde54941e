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
