"""Short commands in running containers: exec probes and lifecycle hooks."""

from __future__ import annotations

import asyncio
import os

from lateen.cluster.kubelet import recipe
from lateen.cluster.kubelet.container import Container
from lateen.cluster.kubelet.sandbox import Sandbox
from lateen.kit.jsons import Json

OUTPUT_LIMIT = 10 * 1024


def finish(done: asyncio.Future[int], message: Json) -> None:
    """A command in a container has exited."""
    if not done.done():
        done.set_result(int(message["code"]))


async def execute(sandbox: Sandbox, c: Container, command: list[str], timeout: float) -> tuple[int, str]:
    """Returns the exit code and the beginning of the output. Raises OSError, TimeoutError."""
    if c.running is None:
        raise OSError(f'container "{c.name}" is not running')
    runtime = sandbox.node.runtime
    key = f"exec/{sandbox.uid}/{sandbox.node.next_exec()}"
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    spec = await recipe.of_command(sandbox, c, command)
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY)
    runtime.on_exit[key] = lambda m: finish(done, m)
    try:
        await runtime.call("exec", [null, write], **{"in": c.running.id, "id": key, "spec": spec})
    except (OSError, TimeoutError):
        runtime.on_exit.pop(key, None)
        os.close(read)
        raise
    finally:
        os.close(write)
        os.close(null)
    try:
        async with asyncio.timeout(timeout):
            code, output = await _drained(done, read)
        return code, output.decode(errors="replace").strip()
    except TimeoutError:
        await runtime.call("kill", id=key, signal=9)
        raise
    finally:
        os.close(read)


async def _drained(done: asyncio.Future[int], read: int) -> tuple[int, bytes]:
    """Keep reading while the command runs, so that it never blocks on a full pipe; only the beginning is kept."""
    os.set_blocking(read, False)
    output = bytearray()
    while True:
        ended = done.done()
        try:
            data = os.read(read, 65536)
        except BlockingIOError:
            data = b""
        output += data[: max(OUTPUT_LIMIT - len(output), 0)]
        if data:
            continue
        if ended:
            return done.result(), bytes(output)
        await asyncio.wait([done], timeout=0.05)
