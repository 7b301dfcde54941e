"""Finding control groups in kernels of several kinds, made of plain directories, and what is written into them."""

import pytest

from lateen.cluster.kubelet import limits
from lateen.cluster.runtime import cgroups
from lateen.cluster.runtime.cgroups import Groups, Limits

GI = 1 << 30


class Kernel(cgroups.Kernel):
    """A tree of directories in the place of the kernel's. ``refused``: by group, why no process can enter it."""

    def __init__(self, tmp_path):
        self.top, self.proc = tmp_path / "sys", tmp_path / "proc"
        self.proc.mkdir()
        self._mounts, self._groups, self._offers = [], [], {}
        self.refused = {}

    def mount(self, name, own, controllers, version=1):
        """A hierarchy in which we are in the group ``own``."""
        at, names = self.top / name, ",".join(controllers) if version == 1 else ""
        kind = "cgroup" if names else "cgroup2"
        self._mounts.append(f"30 20 0:1 / {at} rw,relatime shared:1 - {kind} {kind} rw,{names or 'nsdelegate'}")
        self._groups.append(f"0:{names}:{own}")
        self._offers[at] = controllers, version
        inside = at / own.lstrip("/")
        inside.mkdir(parents=True)
        return inside

    def hand_down(self, group, controller):
        pass

    def has(self, group, controller, version):
        of_version = {at: (found, v) for at, (found, v) in self._offers.items() if v == version}
        return any(controller in found for at, (found, _) in of_version.items() if at in group.parents)

    def enters(self, group):
        return self.refused.get(group.parent.parent, "")

    def find(self):
        (self.proc / "mountinfo").write_text("\n".join(self._mounts))
        (self.proc / "cgroup").write_text("\n".join(self._groups))
        return cgroups.find("own", self, self.proc)


@pytest.fixture
def kernel(tmp_path):
    return Kernel(tmp_path)


def test_version_2_has_all_controllers_in_one_directory(kernel):
    own = kernel.mount("all", "/user.slice", cgroups.CONTROLLERS, 2)
    found = kernel.find()
    assert [(b.path, b.version, b.controllers) for b in found.bases] == [(own / "own", 2, cgroups.CONTROLLERS)]
    assert found.missing == {}


def test_the_older_hierarchies_are_used_where_they_have_the_controllers(kernel):
    kernel.mount("unified", "/", ["pids"], 2)
    memory = kernel.mount("memory", "/some/job", ["memory"])
    cpu = kernel.mount("cpu,cpuacct", "/", ["cpu", "cpuacct"])
    found = kernel.find()
    assert [(b.path, b.version, b.controllers) for b in found.bases][1:] == [
        (memory / "own", 1, ("memory",)),
        (cpu / "own", 1, ("cpu",)),
    ]
    assert found.bases[0].controllers == ("pids",)


def test_a_group_that_cannot_have_groups_below_it_is_left_for_the_one_above(kernel):
    own = kernel.mount("all", "/user.slice/shell.scope", cgroups.CONTROLLERS, 2)
    kernel.refused[own] = "a process cannot be moved there"
    assert [b.path for b in kernel.find().bases] == [own.parent / "own"]


def test_nobody_gets_out_of_a_group_that_is_limited_itself(kernel):
    own = kernel.mount("all", "/user.slice/shell.scope", cgroups.CONTROLLERS, 2)
    kernel.refused[own] = "a process cannot be moved there"
    (own / "memory.max").write_text("1000000\n")
    found = kernel.find()
    assert found.bases == []
    assert found.missing["memory"] == "a process cannot be moved there"


def test_what_there_is_not_is_said(kernel):
    found = kernel.find()
    assert (found.bases, set(found.missing)) == ([], set(cgroups.CONTROLLERS))
    told = limits.condition(found, "now")
    assert (told["status"], "memory: this machine has no control groups" in told["message"]) == ("False", True)
    kernel.mount("memory", "/", ["memory"])
    found = kernel.find()
    assert sorted(found.missing) == ["cpu", "pids"]


def contents(path):
    return {f.name: f.read_text() for f in sorted(path.iterdir()) if not f.name.startswith("cgroup.")}


def test_limits_are_written_in_the_kernels_units(tmp_path):
    for name, version in (("two", 2), ("one", 1)):
        (tmp_path / name).mkdir()
        groups = Groups([cgroups.Base(tmp_path / name, version, cgroups.CONTROLLERS)], {})
        assert groups.make("c", Limits(memory=GI, cpu=0.25, pids=10)) == [str(tmp_path / name / "c")]
    assert contents(tmp_path / "two" / "c") == {"memory.max": str(GI), "cpu.max": "25000 100000", "pids.max": "10"}
    assert contents(tmp_path / "one" / "c") == {
        "memory.limit_in_bytes": str(GI),
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "25000",
        "pids.max": "10",
    }


def test_without_a_limit_there_is_a_group_for_one_that_comes_later(tmp_path):
    bases = [cgroups.Base(tmp_path / c, 1, (c,)) for c in cgroups.CONTROLLERS]
    for base in bases:
        base.path.mkdir()
    groups = Groups(bases, {})
    assert groups.make("c", Limits()) == [str(tmp_path / c / "c") for c in cgroups.CONTROLLERS]
    assert contents(tmp_path / "memory" / "c") == {"memory.limit_in_bytes": "-1"}
    groups.change("c", Limits(memory=GI))
    assert contents(tmp_path / "memory" / "c") == {"memory.limit_in_bytes": str(GI)}


def test_a_group_without_a_limit_of_memory_may_swap(tmp_path):
    groups = Groups([cgroups.Base(tmp_path, 2, ("memory",))], {})
    (tmp_path / "c").mkdir()
    for file in ("memory.swap.max", "memory.oom.group"):
        (tmp_path / "c" / file).touch()
    for memory, swap in ((0, "max"), (GI, "0"), (0, "max")):
        groups.make("c", Limits(memory=memory))
        assert (tmp_path / "c" / "memory.swap.max").read_text() == swap


def test_the_group_of_a_container_that_is_gone_is_not_made_again(tmp_path):
    groups = Groups([cgroups.Base(tmp_path, 1, ("memory", "cpu", "pids"))], {})
    with pytest.raises(FileNotFoundError):
        groups.change("c", Limits(memory=GI))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(("version", "file"), [(2, "memory.events"), (1, "memory.oom_control")])
def test_kills_for_want_of_memory_are_counted(tmp_path, version, file):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / file).write_text("low 0\noom 3\noom_kill 2\n")
    groups = Groups([cgroups.Base(tmp_path, version, ("memory",))], {})
    assert (groups.killed("c"), groups.killed("gone")) == (2, 0)


def test_a_limit_of_no_less_than_the_machine_is_none():
    huge = {"resources": {"limits": {"memory": "900Ti", "cpu": "4000"}}}
    assert limits.of(huge) == Limits()
    assert limits.of({"resources": {"limits": {"memory": "100m"}}}) == Limits(1)
    assert limits.of({"resources": {"limits": {"memory": "1Mi", "cpu": "100m"}}}) == Limits(1 << 20, 0.1)
