"""nc, as Istio's tasks about TCP use it: ``nc [-w SECONDS] HOST PORT`` sends its input and prints what comes back.

When the input ends, it says so to the server and goes on until the server has nothing more to say, as nc of
curlimages/curl does.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading


def main() -> int:
    parser = argparse.ArgumentParser(prog="nc")
    parser.add_argument("-w", type=float, default=None, help="seconds to wait for an answer")
    parser.add_argument("-z", action="store_true", help="only try to connect")
    parser.add_argument("-v", action="store_true", help="say what happens")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    given = parser.parse_args()
    try:
        with socket.create_connection((given.host, given.port), given.w) as connection:
            if given.v:
                print(f"{given.host} ({given.host}:{given.port}) open", file=sys.stderr)
            if not given.z:
                threading.Thread(target=_send, args=(connection,), daemon=True).start()
                while data := connection.recv(65536):
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()
    except OSError as e:
        print(f"nc: {given.host} ({given.host}:{given.port}): {e.strerror or e}", file=sys.stderr)
        return 1
    return 0


def _send(connection: socket.socket) -> None:
    try:
        while data := os.read(0, 65536):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the server has closed the connection, which the reader sees


if __name__ == "__main__":
    sys.exit(main())
