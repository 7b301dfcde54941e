"""Many patches over a few plain connections, against servers of our own on the loopback interface."""

import asyncio
import ssl

from yarl import URL

from lateen.api import kinds
from lateen.kit import http, jsons
from lateen.kube import bulk
from lateen.kube.bulk import Change


class Server:
    """Answers as ``answer`` says (status, whether the connection goes on, whether in chunks), and keeps connections."""

    def __init__(self, answer=lambda _: (200, True, False)):
        self.answer, self.seen, self.connections = answer, [], 0
        self.tasks = []

    async def __call__(self, reader, writer):
        self.connections += 1
        self.tasks.append(asyncio.current_task())
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
                body = await reader.readexactly(length)
                self.seen.append((head.split(" ")[1], head, jsons.loads(body)))
                status, goes_on, chunked = self.answer(len(self.seen))
                if status == 0:
                    return
                end = "" if goes_on else "connection: close\r\n"
                if chunked:
                    writer.write(f"HTTP/1.1 {status} X\r\n{end}transfer-encoding: chunked\r\n\r\n".encode())
                    writer.write(b"2\r\n{}\r\n0\r\n\r\n")
                else:
                    writer.write(f"HTTP/1.1 {status} X\r\n{end}content-length: 2\r\n\r\n{{}}".encode())
                if not goes_on:
                    return
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def patched(server, number, base="", still=bulk.always):
    async def main():
        listening = await asyncio.start_server(server, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        changes = [Change(kinds.VIRTUAL_SERVICE, "shop", f"v{i}", {"status": {"n": i}}) for i in range(number)]
        url = URL(f"http://127.0.0.1:{port}{base}")
        try:
            headers = {"Authorization": "Bearer t"}
            return await bulk.patch_all(url, ssl.create_default_context(), "", headers, changes, "status", still)
        finally:
            listening.close()
            await asyncio.gather(*server.tasks)

    return asyncio.run(main())


def test_every_object_is_patched_once_over_a_few_connections():
    server = Server()
    assert patched(server, 40, base="/k8s/clusters/c-1") == []
    assert server.connections <= bulk.CONNECTIONS
    assert sorted(body["status"]["n"] for _, _, body in server.seen) == list(range(40))
    path, head, _ = server.seen[0]
    assert path.startswith("/k8s/clusters/c-1/apis/networking.istio.io/v1/namespaces/shop/virtualservices/v")
    assert path.endswith("/status")
    assert "Authorization: Bearer t" in head


def test_what_is_left_when_it_is_no_longer_ours_is_not_sent():
    """An istiod that was stopped while it wrote the statuses of a large cluster."""
    server = Server()
    assert patched(server, 40, still=lambda: len(server.seen) < 10) == []
    assert 10 <= len(server.seen) < 10 + bulk.CONNECTIONS


def test_answers_in_chunks_and_connections_that_end_are_read_too():
    server = Server(lambda n: (200, n % 3 != 0, n % 2 == 0))
    assert patched(server, 30) == []
    assert len(server.seen) == 30


def test_a_connection_that_ended_while_it_was_idle_is_opened_again():
    server = Server(lambda n: (0 if n == 20 else 200, True, False))
    assert patched(server, 30) == []
    assert len({path for path, _, _ in server.seen}) == 30


def test_what_the_api_refuses_is_returned_with_its_answer():
    failed = patched(Server(lambda n: (409 if n == 2 else 200, True, False)), 20)
    assert [answer.status for _, answer in failed] == [409]
    assert isinstance(failed[0][0], Change)


def test_an_api_that_is_away_is_returned_as_why_for_each_change():
    changes = [Change(kinds.VIRTUAL_SERVICE, "shop", "v", {})] * 3
    url = URL("http://127.0.0.1:9")
    failed = asyncio.run(bulk.patch_all(url, ssl.create_default_context(), "", {}, changes, "status"))
    assert [isinstance(e, OSError) for _, e in failed] == [True] * 3


def test_one_request_on_a_connection_of_its_own_is_as_before():
    async def main():
        listening = await http.serve(handler, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        try:
            return await http.fetch("127.0.0.1", port, "/x", method="POST", body=b"hello")
        finally:
            listening.close()

    async def handler(request):
        return http.Response(200, request.body + request.path.encode())

    assert asyncio.run(main()).body == b"hello/x"
