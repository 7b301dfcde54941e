"""A container's streams: the log, whoever is attached, and an input that waits for the first of them."""

from __future__ import annotations

import os
import selectors
import socket
from pathlib import Path
from typing import Any

import pytest

from lateen.cluster.runtime.logs import Log
from lateen.cluster.runtime.stdio import Stdio


class Node:
    """A container's streams with a selector, and what a program at their other end does."""

    def __init__(self, root: Path, **spec: Any) -> None:
        given = {"tty": False, "stdin": False, "stdinOnce": False, "uid": 0, "nested": False, **spec}
        self.root, self.selector = root, selectors.DefaultSelector()
        self.stdio = Stdio(given)
        self.stdin, self.stdout, self.stderr = (os.dup(fd) for fd in self.stdio.theirs)
        self.stdio.forked()
        self.stdio.log(self.selector, Log(str(root), "c/0.log"))

    def turn(self) -> None:
        """Handle what has happened, as the runtime's loop does, until nothing is left."""
        while events := self.selector.select(0):
            for key, _ in events:
                key.data()

    def attach(self, stdin: bool = False) -> tuple[int, int, int]:
        """Our ends of stdout and stderr, and the container's input (-1 if there is none)."""
        (out, their_out), (err, their_err) = os.pipe(), os.pipe()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            given = -1
            if self.stdio.attach(their_out, their_err, theirs.fileno(), stdin):
                given = socket.recv_fds(ours, 1, 1)[1][0]
        os.close(their_out)
        os.close(their_err)
        os.set_blocking(out, False)
        os.set_blocking(err, False)
        return out, err, given

    def log(self) -> list[str]:
        return [line.partition(" ")[2] for line in (self.root / "c" / "0.log").read_text().splitlines()]

    def exits(self) -> None:
        for fd in {self.stdin, self.stdout, self.stderr}:
            os.close(fd)
        self.stdio.exited()
        self.turn()


def test_what_a_container_writes_goes_to_its_log_and_from_then_on_to_whoever_is_attached(tmp_path: Path) -> None:
    node = Node(tmp_path)
    os.write(node.stdout, b"before\n")
    node.turn()
    one, two = node.attach(), node.attach()
    os.write(node.stdout, b"out\n")
    os.write(node.stderr, b"err\n")
    node.turn()
    assert [os.read(fd, 100) for fd in (one[0], two[0], one[1], two[1])] == [b"out\n", b"out\n", b"err\n", b"err\n"]
    assert node.log()[0] == "before"
    assert sorted(node.log()[1:]) == ["err", "out"]
    node.exits()
    assert os.read(one[0], 100) == b""


def test_a_client_that_does_not_read_holds_up_the_container_and_not_the_memory(tmp_path: Path) -> None:
    node = Node(tmp_path)
    slow, _, _ = node.attach()
    os.set_blocking(node.stdout, False)
    written = 0
    for _ in range(1000):
        try:
            written += os.write(node.stdout, b"x" * 65536)
        except BlockingIOError:
            break
        node.turn()
    assert written < 1024 * 1024, "the container was not held up"
    taken = 0
    while taken < written:
        taken += len(os.read(slow, 1 << 20))
        node.turn()
    assert taken == written, "everything arrives once the client reads again"
    assert os.write(node.stdout, b"y") == 1
    os.close(slow)
    node.turn()
    assert os.write(node.stdout, b"z") == 1, "a client that has gone holds up nothing"
    node.exits()
    assert len("".join(node.log())) == written + 2


def test_clients_that_go_away_leave_nothing_behind_while_the_container_is_silent(tmp_path: Path) -> None:
    node = Node(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        out, err, _ = node.attach()
        os.close(out)
        os.close(err)
        node.turn()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_input_waits_for_the_first_client_and_stays_for_the_next(tmp_path: Path) -> None:
    node = Node(tmp_path, stdin=True)
    os.set_blocking(node.stdin, False)
    with pytest.raises(BlockingIOError):
        os.read(node.stdin, 10)  # open, and empty
    for text in (b"one", b"two"):
        *_, given = node.attach(stdin=True)
        os.write(given, text)
        os.close(given)
        assert os.read(node.stdin, 10) == text
        with pytest.raises(BlockingIOError):
            os.read(node.stdin, 10)
    node.exits()


def test_with_stdin_once_the_input_ends_with_the_first_client(tmp_path: Path) -> None:
    node = Node(tmp_path, stdin=True, stdinOnce=True)
    assert node.attach(stdin=False)[2] == -1
    *_, given = node.attach(stdin=True)
    os.write(given, b"one")
    os.close(given)
    assert os.read(node.stdin, 10) == b"one"
    assert os.read(node.stdin, 10) == b"", "the end"
    assert node.attach(stdin=True)[2] == -1
    node.exits()


def test_without_stdin_the_input_is_empty_from_the_start(tmp_path: Path) -> None:
    node = Node(tmp_path)
    assert os.read(node.stdin, 10) == b""
    assert node.attach(stdin=True)[2] == -1
    node.exits()
