"""Wasm modules: from where they are fetched, what is refused, and what happens until they are there."""

import asyncio
import base64
import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import replace

import meshes as mesh
import modules
import pytest
from aiohttp import web
from envoy.extensions.filters.http.wasm.v3 import wasm_pb2
from test_plugins import filters

from lateen.ads.peers import Connection
from lateen.control import pulling
from lateen.control.fetching import Answer, Fetcher, NotFetched
from lateen.control.modules import Modules
from lateen.control.plane import Control
from lateen.control.pulling import Image, Puller
from lateen.control.world import World
from lateen.mesh.model import Mesh
from lateen.mesh.plugins import Module, ModuleSource
from lateen.wire.node import NodeId
from lateen.wire.revision import Revision

CODE = modules.stamping()
OCI = "application/vnd.oci.image.manifest.v1+json"
WASM_LAYER = "application/vnd.module.wasm.content.layer.v1+wasm"
TAR_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def archive(name=pulling.FILE, content=CODE):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def image(layer, kind):
    config = b"{}"
    found = {
        "mediaType": OCI,
        "config": {"digest": digest(config)},
        "layers": [{"mediaType": kind, "digest": digest(layer)}],
    }
    return json.dumps(found).encode()


class Registry:
    """Answers what is in ``content`` by path, to those who have a token; anybody gets ``/files``."""

    def __init__(self, content, account=("me", "secret")):
        self.content, self.account = content, account
        self.asked: list = []

    async def answer(self, request):
        self.asked.append(request.path)
        given = request.headers.get("Authorization", "")
        if request.path == "/token":
            wanted = base64.b64encode(":".join(self.account).encode()).decode()
            return web.json_response({"token": "t"}) if given == f"Basic {wanted}" else web.Response(status=403)
        if request.path.startswith("/v2/") and given != "Bearer t":
            realm = f'Bearer realm="http://{request.host}/token",service="s",scope="pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        if request.path not in self.content:
            return web.Response(status=404)
        return web.Response(body=self.content[request.path])


def pulled(content, url, sha256="", secret="account", auth=("me", "secret")):
    """The module at ``url``, where HOST stands for the server, and what the server was asked for."""

    async def work():
        registry = Registry(content)
        app = web.Application()
        app.router.add_get("/{path:.*}", registry.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host = f"127.0.0.1:{runner.addresses[0][1]}"

        async def secrets(_):
            text = json.dumps({"auths": {f"https://{host}/v1/": {"username": auth[0], "password": auth[1]}}})
            return {"data": {".dockerconfigjson": base64.b64encode(text.encode()).decode()}}

        puller = Puller(Fetcher(lambda _: ""), secrets, frozenset([host]))
        place = ModuleSource(url.replace("HOST", host), sha256, ("default", secret), "")
        try:
            return await puller.module(place, "default"), registry.asked
        finally:
            await runner.cleanup()

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("text", "is_"),
    [
        ("plugin", (pulling.HUB, "library/plugin", "latest")),
        ("oci://me/plugin:1.0", (pulling.HUB, "me/plugin", "1.0")),
        ("docker.io/me/plugin", (pulling.HUB, "me/plugin", "latest")),
        ("ghcr.io/a/b/c:v2", ("ghcr.io", "a/b/c", "v2")),
        ("oci://registry:5000/plugin:1", ("registry:5000", "plugin", "1")),
        (f"localhost/plugin:1@sha256:{'a' * 64}", ("localhost", "plugin", f"sha256:{'a' * 64}")),
    ],
)
def test_references_of_images_are_read_as_container_engines_do(text, is_):
    assert Image.of(text) == Image(*is_)


@pytest.mark.parametrize("text", ["ghcr.io/../x", "ghcr.io/a?b=c", "ghcr.io/a:../../x", "ghcr.io/A", "a@sha1:00", "a:"])
def test_a_reference_that_leads_elsewhere_in_a_url_is_refused(text):
    with pytest.raises(NotFetched, match="not an image reference"):
        Image.of(text)


@pytest.mark.parametrize(
    "body",
    [CODE, gzip.compress(CODE), archive(), archive(f"./{pulling.FILE}")],
    ids=["plain", "compressed", "in an archive", "in an archive below a dot"],
)
def test_a_module_comes_from_a_web_server(body):
    found, _ = pulled({"/files/m": body}, "http://HOST/files/m")
    assert found == Module(hashlib.sha256(CODE).hexdigest(), CODE)
    assert found.code == CODE


@pytest.mark.parametrize(
    ("body", "sha256", "says"),
    [
        (b"<html>", "", "neither a WebAssembly module nor an archive"),
        (CODE[:6], "", "neither a WebAssembly module"),
        (CODE, "0" * 64, "another checksum"),
        (archive("other.wasm"), "", "has no plugin.wasm"),
        (archive(content=b"x"), "", "is not a WebAssembly module"),
        (gzip.compress(bytes(pulling.MAX_UNPACKED + 1)), "", "when it is decompressed"),
        (gzip.compress(CODE)[:40], "", "neither a WebAssembly module"),
        (b"\x1f\x8bxxxxxxxxxxxx", "", "cannot be decompressed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "body",
)
def test_what_is_no_module_is_refused_with_the_reason(body, sha256, says):
    with pytest.raises(NotFetched, match=says):
        pulled({"/files/m": body}, "http://HOST/files/m", sha256)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [(CODE, WASM_LAYER), (CODE, "application/wasm"), (archive(), TAR_LAYER)],
    ids=["Istio's type", "the CNCF's type", "a file system"],
)
def test_an_image_comes_from_a_registry_with_an_account(layer, kind):
    manifest = image(layer, kind)
    content = {"/v2/a/b/manifests/1": manifest, f"/v2/a/b/blobs/{digest(layer)}": layer}
    found, asked = pulled(content, "oci://HOST/a/b:1", digest(manifest).removeprefix("sha256:"))
    assert found.code == CODE
    assert asked[:3] == ["/v2/a/b/manifests/1", "/token", "/v2/a/b/manifests/1"]


def test_of_an_index_the_usual_platform_is_taken():
    manifest = image(CODE, WASM_LAYER)
    other = {"digest": digest(b"other"), "platform": {"os": "linux", "architecture": "s390x"}}
    mine = {"digest": digest(manifest), "platform": {"os": "linux", "architecture": "amd64"}}
    content = {
        "/v2/a/manifests/latest": json.dumps({"manifests": [other, mine]}).encode(),
        f"/v2/a/manifests/{digest(manifest)}": manifest,
        f"/v2/a/blobs/{digest(CODE)}": CODE,
    }
    assert pulled(content, "HOST/a")[0].code == CODE


@pytest.mark.parametrize(
    ("change", "url", "says"),
    [
        ({}, "HOST/a:2", "answers with status 404"),
        ({f"/v2/a/blobs/{digest(CODE)}": modules.closing()}, "HOST/a:1", "another checksum"),
        ({"/v2/a/manifests/1": b"[]"}, "HOST/a:1", "not JSON"),
        ({"/v2/a/manifests/1": b'{"layers": [{"digest": "../x"}]}'}, "HOST/a:1", "not an image"),
        ({"/v2/a/manifests/1": b'{"manifests": 3}'}, "HOST/a:1", "lists no image"),
        ({}, f"HOST/a@{digest(b'other')}", "404"),
        ({f"/v2/a/manifests/{digest(b'other')}": image(CODE, WASM_LAYER)}, f"HOST/a@{digest(b'other')}", "checksum"),
    ],
)
def test_a_registry_that_answers_wrongly_is_refused_with_the_reason(change, url, says):
    content = {"/v2/a/manifests/1": image(CODE, WASM_LAYER), f"/v2/a/blobs/{digest(CODE)}": CODE}
    with pytest.raises(NotFetched, match=says):
        pulled({**content, **change}, url)


def test_a_wrong_account_and_none_are_told_apart():
    content = {"/v2/a/manifests/1": image(CODE, WASM_LAYER)}
    with pytest.raises(NotFetched, match="status 403"):
        pulled(content, "HOST/a:1", auth=("me", "wrong"))
    with pytest.raises(NotFetched, match="status 403"):
        pulled(content, "HOST/a:1", secret="")


# --- until it is there --------------------------------------------------------------------------------------------

PLUGIN = """
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {{name: one, namespace: default}}
spec: {{url: "{url}", pluginConfig: {{a: 1}}{more}}}
"""
URL = "https://modules.example/m.wasm"


def known(text, module):
    found = mesh.objects(text)
    return replace(found, modules=dict.fromkeys(Mesh(found).module_sources(), module) if module else {})


def slot(module, more=""):
    """(whether the filter is there, what its slot holds)"""
    order, slots = filters(known(PLUGIN.format(url=URL, more=more), module))
    return any(n.endswith("/default.one") for n in order), next(iter(slots.values()), None)


def test_a_plugin_runs_once_its_module_is_there():
    there, content = slot(Module("d", CODE))
    config = wasm_pb2.Wasm()
    content.typed_config.Unpack(config)
    assert there
    assert config.config.vm_config.code.local.inline_bytes == CODE
    assert b'{"a":1}' in config.config.configuration.value
    assert slot(None) == (False, None)


def test_a_module_that_cannot_be_fetched_denies_everything_unless_the_plugin_fails_open():
    there, content = slot(Module())
    assert there
    assert content.typed_config.type_url.endswith("RBAC")
    assert slot(Module(), ", failStrategy: FAIL_OPEN") == (False, None)


def test_a_file_in_the_proxy_is_not_fetched():
    text = PLUGIN.format(url="file:///opt/my%20plugin.wasm", more="")
    assert Mesh(mesh.objects(text)).module_sources() == {}
    _, slots = filters(mesh.objects(text))
    config = wasm_pb2.Wasm()
    next(iter(slots.values())).typed_config.Unpack(config)
    assert config.config.vm_config.code.local.filename == "/opt/my plugin.wasm"


def test_until_a_new_version_is_fetched_the_one_before_stays_and_the_status_says_why():
    async def work():
        answers = {URL: Module("one", CODE)}

        async def fetch(place, _):
            if place.url not in answers:
                raise NotFetched(f"{place.url} answers with status 404")
            return answers[place.url]

        world = World("istio-system", lambda: None)
        followed = Modules(world, fetch)
        before = Mesh(mesh.objects(PLUGIN.format(url=URL, more="")))
        after = mesh.objects(PLUGIN.format(url=f"{URL}.new", more=""))
        followed.follow(before.module_sources())
        await followed.first(5)
        followed.follow(Mesh(after).module_sources())
        assert [m.digest for m in world.objects.modules.values()] == ["one"]
        for _ in range(100):
            await asyncio.sleep(0)
            if followed.problems:
                break
        said = followed.missing(after.wasm_plugins["default", "one"])
        assert said is not None
        assert said[0].endswith("answers with status 404; the previous one stays in use")
        followed.follow({})
        assert world.objects.modules == {}

    asyncio.run(work())


def test_of_two_plugins_with_one_module_the_one_that_changes_keeps_it_meanwhile():
    async def work():
        async def fetch(place, _):
            if place.url != URL:
                raise NotFetched("not there")
            return Module("one", CODE)

        world = World("istio-system", lambda: None)
        followed = Modules(world, fetch)
        two = PLUGIN.replace("name: one", "name: two")
        both = [PLUGIN.format(url=URL, more=""), two.format(url=URL, more="")]
        followed.follow(Mesh(mesh.objects("---".join(both))).module_sources())
        await followed.first(5)
        for i in range(2):
            changed = list(both)
            changed[i] = (PLUGIN, two)[i].format(url=f"{URL}.{i}", more="")
            followed.follow(Mesh(mesh.objects("---".join(changed))).module_sources())
            assert [m.digest for m in world.objects.modules.values()] == ["one", "one"]
        followed.follow({})

    asyncio.run(work())


@pytest.mark.parametrize("fails", [False, True])
def test_after_a_restart_a_proxy_keeps_its_plugin_until_there_is_a_first_answer_about_the_module(fails):
    """And a plugin that is applied later, or is to fail open, keeps nothing from anybody."""

    async def work():
        answer = asyncio.Event()

        async def fetch(place, _):
            if not place.url.startswith(URL):
                await asyncio.Event().wait()
            await answer.wait()
            if fails:
                raise NotFetched("not there")
            return Module("one", CODE)

        control = Control(None, "istio-system", Revision())
        control.modules = Modules(control.world, fetch)
        mine = PLUGIN.format(url=URL, more="")
        other = PLUGIN.replace("name: one", "name: later")
        opens = PLUGIN.replace("name: one", "name: opens").format(url="http://b/m", more=", failStrategy: FAIL_OPEN")

        def know(*texts):
            found = mesh.objects("---".join(texts))
            control.world.objects = replace(found, modules=control.world.objects.modules)

        async def settled():
            async with asyncio.timeout(10):
                await control._settled()

        pod = mesh.objects().pods["default", "productpage-v1"]
        own = f"spiffe://cluster.local/ns/default/sa/{pod.service_account}"
        connection = Connection(NodeId("sidecar", pod.address, pod.name, "default", ""), own, "")
        know(mine, opens)
        await control.fetch(0.01)
        await settled()
        assert control.offering.to(connection) == {}
        changed = PLUGIN.format(url=f"{URL}.new", more="")
        know(changed, opens)
        await settled()
        assert control.offering.to(connection) == {}
        answer.set()
        while control.modules.awaited and len(control.world.objects.modules) < 1:
            await asyncio.sleep(0)
        assert control.offering.to(connection) == {}  # the mesh that is pushed is still without it
        await settled()
        assert control.offering.to(connection)
        know(changed, opens, other.format(url="http://a/m", more=""))
        await settled()
        assert control.offering.to(connection)
        control.modules.follow({})

    asyncio.run(work())


def test_a_new_version_is_pushed_with_the_module_that_it_keeps():
    async def work():
        async def fetch(place, _):
            if place.url != URL:
                raise NotFetched("not there")
            return Module("one", CODE)

        control = Control(None, "istio-system", Revision())
        control.modules = Modules(control.world, fetch)
        control.world.objects = mesh.objects(PLUGIN.format(url=URL, more=""))
        await control.fetch(5)
        await control._settled()
        after = mesh.objects(PLUGIN.format(url=f"{URL}.new", more=""))
        control.world.objects = replace(after, modules=control.world.objects.modules)
        await control._settled()
        pod = after.pods["default", "productpage-v1"]
        assert [p.module.digest for p in control.mesh().plugins("default", pod.label_map)] == ["one"]
        control.modules.follow({})

    asyncio.run(work())


def test_only_a_few_modules_are_fetched_at_once(monkeypatch):
    monkeypatch.setattr(pulling, "TIMEOUT_S", 0.2)

    async def work():
        asked, most = set(), []

        class Slow(Fetcher):
            async def get(self, _session, url, *_, **__):
                asked.add(url)
                most.append(len(asked))
                try:
                    await asyncio.sleep(0.05)
                finally:
                    asked.discard(url)
                return Answer(url, 200, {}, CODE)

        puller = Puller(Slow(), None)
        places = [ModuleSource(f"http://a/{n}", "", ("default", ""), "") for n in range(5 * pulling.AT_ONCE)]
        found = await asyncio.gather(*(puller.module(place, str(n % 5)) for n, place in enumerate(places)))
        assert {m.code for m in found} == {CODE}
        assert max(most) == pulling.AT_ONCE

    asyncio.run(work())


def test_all_modules_together_are_bounded(monkeypatch):
    monkeypatch.setattr("lateen.control.modules.MAX_TOTAL", len(CODE) * 2)

    async def work():
        async def fetch(place, _):
            return Module(place.url, CODE)

        followed = Modules(World("istio-system", lambda: None), fetch)
        ref = mesh.objects(PLUGIN.format(url=URL, more="")).wasm_plugins["default", "one"].ref
        followed.follow({ModuleSource(str(n), "", ("default", ""), ""): (ref,) for n in range(3)})
        await followed.first(5)
        assert len(followed.problems) == 1
        followed.follow({})

    asyncio.run(work())


@pytest.mark.parametrize(
    ("url", "again"),
    [
        ("oci://r.example/a", True),
        ("r.example:5000/a:latest", True),
        ("oci://r.example/a:1", False),
        (f"oci://r.example/a@sha256:{'a' * 64}", False),
        ("https://r.example/a", False),
    ],
)
def test_an_image_of_the_latest_tag_is_fetched_again_with_each_change(url, again):
    (place,) = Mesh(mesh.objects(PLUGIN.format(url=url, more=""))).module_sources()
    assert bool(place.version) is again
