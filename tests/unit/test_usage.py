"""What containers use, read from a /proc that is written here."""

from __future__ import annotations

from pathlib import Path

from lateen.cluster.kubelet import usage


class Machine:
    def __init__(self, proc: Path) -> None:
        self.proc = proc
        (proc / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\n")
        self.busy(0)

    def busy(self, ticks: int) -> None:
        (self.proc / "stat").write_text(f"cpu  {ticks} 0 0 5000 70 0 0 0 0 0\ncpu0 {ticks} 0 0 5000 70 0 0 0 0 0\n")

    def process(self, pid: int, parent: int, ticks: int = 0, waited: int = 0, pss: int = 0) -> None:
        at = self.proc / str(pid)
        at.mkdir(exist_ok=True)
        zeros = " ".join(["0"] * 9)
        (at / "stat").write_text(f"{pid} (a) b) c) S {parent} {zeros} {ticks} 0 {waited} 0 20 0\n")
        (at / "smaps_rollup").write_text(f"0-1 ---p 0 0:0 0 [rollup]\nRss: 99999 kB\nPss: {pss} kB\nPss_Dirty: 1 kB\n")


def test_a_container_uses_what_its_first_process_and_all_below_it_use(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.process(10, 1, ticks=100, pss=20)
    machine.process(11, 10, ticks=50, waited=30, pss=4)
    machine.process(12, 11, pss=1)
    machine.process(20, 1, ticks=7, pss=900)
    first = usage.look([10, 20], tmp_path)
    machine.process(10, 1, ticks=100 + 40, pss=30)
    machine.process(11, 10, ticks=50 + 10, waited=30 + 50, pss=4)
    machine.busy(300)
    last = usage.look([10, 20], tmp_path)
    used = usage.between(usage.Look(0.0, first.cpu, first.memory), usage.Look(2.0, last.cpu, last.memory))
    assert (round(used[10].cpu, 6), used[10].memory) == (0.5, 35 * 1024)
    assert used[20] == usage.Usage(0.0, 900 * 1024)
    assert (round(used[0].cpu, 6), used[0].memory) == (1.5, 600 * 1024)


def test_cpu_time_never_decreases_although_processes_end_unawaited() -> None:
    looks = [usage.Look(at, {0: total, 7: total / 2}, {}) for at, total in enumerate((10.0, 14.0, 12.0, 13.0))]
    found, before, seen = {}, None, []
    for look in looks:
        found = usage.spent(found, before, look)
        before = look
        seen.append((found[0], found[7]))
    assert seen == [(10.0, 5.0), (14.0, 7.0), (14.0, 7.0), (15.0, 7.5)]
    assert usage.spent(found, before, usage.Look(5.0, {8: 3.0}, {})) == {8: 3.0}


def test_a_container_that_has_come_or_gone_between_two_looks_is_left_out(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.process(10, 1)
    first = usage.look([10, 30], tmp_path)
    machine.process(30, 1, ticks=1000)
    assert set(usage.between(first, usage.look([10, 30], tmp_path))) == {0, 10}
