"""The samples of Istio's tasks: their manifests are valid, their images known, and their programs do as theirs."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from envoy.service.auth.v3 import external_auth_pb2 as auth

from lateen.api import validate
from lateen.cluster.kubelet.catalogue import Catalogue
from lateen.kit import yamldoc
from lateen.kit.jsons import dig
from lateen.samples.bookinfo import ext_authz, httpbin
from lateen.samples.bookinfo.http import Request

SAMPLES = Path(__file__).parents[2] / "samples"
FILES = sorted(p.relative_to(SAMPLES) for p in SAMPLES.glob("**/*.yaml") if p.parent.name not in ("addons", "operator"))
OF_TASKS = [
    "bookinfo/networking/virtual-service-all-v1.yaml",
    "bookinfo/networking/virtual-service-ratings-test-abort.yaml",
    "bookinfo/networking/virtual-service-ratings-test-delay.yaml",
    "curl/curl.yaml",
    "extauthz/ext-authz.yaml",
    "helloworld/helloworld-gateway.yaml",
    "helloworld/helloworld.yaml",
    "httpbin/httpbin-gateway.yaml",
    "tcp-echo/tcp-echo-20-v2.yaml",
    "tcp-echo/tcp-echo-all-v1.yaml",
    "tcp-echo/tcp-echo.yaml",
]


def test_the_files_that_istios_tasks_name_are_there():
    assert not set(OF_TASKS) - {str(f) for f in FILES}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_sample_is_valid_and_its_images_are_known(file, tmp_path):
    catalogue = Catalogue(tmp_path / "images.json", tmp_path, tmp_path / "rootfs", False)
    for obj in yamldoc.objects((SAMPLES / file).read_text()):
        assert validate.findings(obj) == []
        for container in dig(obj, "spec", "template", "spec", "containers", default=[]):
            if file.parent.name != "kiali":  # its image is the user's own
                catalogue.find(container["image"])


@pytest.mark.parametrize(("said", "word", "status"), [("allow", "allowed", 0), ("deny", "denied", 7)])
def test_the_authorizer_decides_by_the_header_over_grpc(said, word, status):
    asked = auth.CheckRequest()
    asked.attributes.request.http.headers["x-ext-authz"] = said
    answer = auth.CheckResponse.FromString(ext_authz.over_grpc(asked.SerializeToString(), None))
    assert answer.status.code == status
    (header,) = (answer.denied_response if status else answer.ok_response).headers
    assert (header.header.key, header.header.value) == ("x-ext-authz-check-result", word)


@pytest.mark.parametrize(("said", "status"), [("allow", 200), ("deny", 403)])
def test_the_authorizer_decides_by_the_header_over_http(said, status):
    answer = asyncio.run(ext_authz.over_http(Request("GET", "/headers", {"x-ext-authz": said}, b"")))
    assert answer.status == status
    assert (b"denied by ext_authz" in answer.body) is (status == 403)


def test_headers_are_lists_as_in_go_httpbin(monkeypatch):
    monkeypatch.setattr(httpbin, "LISTS", True)
    answer = asyncio.run(httpbin.handle(Request("GET", "/headers", {"x-a": "b"}, b"")))
    assert json.loads(answer.body) == {"headers": {"X-A": ["b"]}}


def test_httpbin_decodes_base64():
    for text, wanted in (("cm91dGUtYWxsb3c=", b"route-allow"), ("x", b"not base64")):
        assert asyncio.run(httpbin.handle(Request("GET", f"/base64/{text}", {}, b""))).body == wanted


def test_nc_sends_its_input_and_prints_what_comes_back_until_the_server_ends():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    while data := connection.recv(99):
                        connection.sendall(b"hello " + data)

        threading.Thread(target=serve, daemon=True).start()
        done = subprocess.run(
            [sys.executable, "-m", "lateen.samples.bookinfo.netcat", "127.0.0.1", str(server.getsockname()[1])],
            input=b"port 9000\n",
            capture_output=True,
            timeout=20,
            check=False,
        )
    assert (done.stdout, done.returncode) == (b"hello port 9000\n", 0)
