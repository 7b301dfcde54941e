"""What strangers leave behind at istiod's HTTPS ports, who fail the handshake or send what is no request."""

import subprocess
import sys

STORY = """
import asyncio, os, socket, ssl
from concurrent.futures import ThreadPoolExecutor
from aiohttp import web
from lateen.ca.authority import Authority, Identity
from lateen.control import serving
from lateen.kit import memory, times

LOOSE = ssl.create_default_context()
LOOSE.check_hostname, LOOSE.verify_mode = False, ssl.CERT_NONE

def send(port, tls):
    with socket.create_connection(("127.0.0.1", port), 5) as s:
        try:
            s = LOOSE.wrap_socket(s) if tls else s
            s.sendall(b"nonsense" * 500)
            while s.recv(65536):
                pass
        except OSError:
            pass

def kilobytes():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

async def main():
    authority = Authority.create(times.now(), "cluster.local")
    certificate = serving.Certificate(authority, ["localhost"], Identity("cluster.local", "a", "istiod"))
    memory.settle()
    memory.bound_connections()
    runner = await serving.http([], 0, certificate.asking, "127.0.0.1")
    loop, port = asyncio.get_running_loop(), runner.addresses[0][1]
    with ThreadPoolExecutor(8) as pool:
        async def many(count):
            await asyncio.gather(*(loop.run_in_executor(pool, send, port, i % 2) for i in range(count)))
        await many(200)
        before = kilobytes()
        await many(1000)
        print(kilobytes() - before)

asyncio.run(main())
"""


def test_a_thousand_connections_that_fail_leave_little_memory_behind():
    done = subprocess.run([sys.executable, "-c", STORY], capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 80_000, "kB, of more than 300,000 if every connection kept its buffers"
