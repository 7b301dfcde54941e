"""Starts the node daemon, which is the runtime's child: the first thing that happens inside of the namespaces."""

from __future__ import annotations

import socket
import subprocess
from typing import NamedTuple

BUFFER = 4 * 1024 * 1024


class Node(NamedTuple):
    """The node daemon's process, and the runtime's end of the socket between them."""

    process: subprocess.Popen[bytes]
    socket: socket.socket


def start(argv: list[str], portal: int) -> Node:
    """``argv`` is followed by the descriptors of its end of the socket and of the portal's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        ours.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        theirs.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    with theirs:
        fds = (theirs.fileno(), portal)
        made = subprocess.Popen([*argv, *map(str, fds)], pass_fds=fds, stdin=subprocess.DEVNULL)
    return Node(made, ours)
