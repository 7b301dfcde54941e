"""Images in the stores of container engines: found by the names that pods have, copied without the engine."""

import asyncio
import base64
import gzip
import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import layouts
import pytest

from lateen.cluster import kernel
from lateen.cluster.kubelet import oci
from lateen.cluster.kubelet.catalogue import Catalogue, NotUnpacked
from lateen.cluster.kubelet.images import UnknownImage
from lateen.cluster.kubelet.stores import Stores, full

CONFIG = {"Entrypoint": ["/app"], "Cmd": ["serve"], "Env": ["A=b=c"], "User": "app", "WorkingDir": "/work"}


def digest_of(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tree(path, files):
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


IMAGE, LOWER, UPPER = ("a" * 64, "1" * 64, "2" * 64)
FILES = (
    {"etc/passwd": "app:x:7:8::/work:/bin/sh\n", "opt/old": "x", "opt/kept": "x", "gone/a": "1", "app": "1"},
    {"app": "2", "opt/.wh.old": "", "gone/.wh..wh..opq": "", "gone/b": "2"},
)


def document(architecture="", **more):
    made = {"os": "linux", "architecture": architecture or oci.architecture(), "config": CONFIG}
    return json.dumps(made | more).encode()


def containers(place, *names, architecture=""):
    """As Podman and Buildah write it, with the driver overlay."""
    config = document(architecture)
    image = place / "overlay-images" / IMAGE
    image.mkdir(parents=True)
    (image / "manifest").write_text(json.dumps({"config": {"digest": digest_of(config)}}))
    key = base64.b64encode(digest_of(config).encode()).decode()
    (image / f"={key}").write_bytes(config)
    listed = [{"id": IMAGE, "names": list(names), "layer": UPPER, "digest": "sha256:" + "d" * 64}, {"id": "no-name"}]
    (place / "overlay-images" / "images.json").write_text(json.dumps(listed))
    (place / "overlay-layers").mkdir()
    layers = [{"id": UPPER, "parent": LOWER}, {"id": LOWER}]
    (place / "overlay-layers" / "layers.json").write_text(json.dumps(layers))
    for name, files in zip((LOWER, UPPER), FILES, strict=True):
        tree(place / "overlay" / name / "diff", files)
    return {"containers": [place]}


def docker(place, *names):
    """As Docker writes it, with the driver overlay2."""
    diffs = ["sha256:" + "1" * 64, "sha256:" + "2" * 64]
    config = document(rootfs={"diff_ids": diffs})
    kept = place / "image" / "overlay2"
    tree(kept, {f"imagedb/content/sha256/{digest_of(config)[7:]}": config.decode()})
    repositories = {n.partition(":")[0]: {n: digest_of(config)} for n in names}
    tree(kept, {"repositories.json": json.dumps({"Repositories": repositories})})
    chain = [diffs[0], digest_of(f"{diffs[0]} {diffs[1]}".encode())]
    for name, files, chained in zip(("one", "two"), FILES, chain, strict=True):
        tree(kept, {f"layerdb/sha256/{chained[7:]}/cache-id": name})
        tree(place / "overlay2" / name / "diff", files)
    return {"docker": [place]}


DATABASE = gzip.decompress((Path(__file__).parent / "containerd.db.gz").read_bytes())
"""Written by bbolt with containerd's buckets: app:1 of the namespace moby has a digest of zeros, and 61 others."""


def containerd(place, layout):
    """As containerd writes it: content like that of a layout, and the names in a database."""
    shutil.copytree(layout / "blobs", place / "io.containerd.content.v1.content" / "blobs")
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    found = place / "io.containerd.metadata.v1.bolt"
    found.mkdir()
    (found / "meta.db").write_bytes(DATABASE.replace(b"sha256:" + b"0" * 64, digest.encode()))
    return {"containerd": [place]}


def test_an_image_of_containerd_is_unpacked_like_a_layout(tmp_path):
    layout = layouts.write(tmp_path / "layout", layouts.Archive().file("app", b"1"), **CONFIG)
    store = Stores(False, containerd(tmp_path / "store", layout))
    found = store.find("app:1")
    assert found.config == CONFIG
    top = found.unpack(tmp_path / "rootfs", found.directory, False)
    assert ((top / "app").read_text(), top.name) == ("1", found.directory)
    assert list(store.all()) == ["docker.io/library/app:1"]
    assert store.find("filler-007") is None


@pytest.mark.parametrize("cut", [0, 8, 4096, 8192, 20_000])
def test_a_database_that_is_cut_off_or_overwritten_is_left_out(tmp_path, cut):
    layout = layouts.write(tmp_path / "layout", layouts.Archive().file("app", b"1"), **CONFIG)
    places = containerd(tmp_path / "store", layout)
    database = tmp_path / "store" / "io.containerd.metadata.v1.bolt" / "meta.db"
    whole = database.read_bytes()
    database.write_bytes(whole[:cut])
    assert Stores(False, places).all() == {}
    random.seed(cut)
    for _ in range(50):
        noise = bytearray(whole)
        for _ in range(200):
            noise[random.randrange(8192, 60_000)] = random.randrange(256)
        database.write_bytes(noise)
        Stores(False, places).all()


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("redis", "docker.io/library/redis:latest"),
        ("redis:7", "docker.io/library/redis:7"),
        ("team/app:1", "docker.io/team/app:1"),
        ("docker.io/redis", "docker.io/library/redis:latest"),
        ("index.docker.io/redis:7", "docker.io/library/redis:7"),
        ("index.docker.io/team/app@sha256:0", "docker.io/team/app@sha256:0"),
        ("localhost/app", "localhost/app:latest"),
        ("mirror.example:5000/app", "mirror.example:5000/app:latest"),
        ("mirror.example:5000/a/app:1@sha256:0", "mirror.example:5000/a/app@sha256:0"),
    ],
)
def test_names_are_completed_as_engines_complete_them(image, name):
    assert full(image) == name


@pytest.mark.parametrize("engine", [containers, docker])
def test_an_images_layers_become_one_directory(tmp_path, engine):
    store = Stores(False, engine(tmp_path / "store", "docker.io/library/redis:7"))
    found = store.find("redis:7")
    assert found.config == CONFIG
    top = found.unpack(tmp_path / "rootfs", found.directory, False)
    files = {str(p.relative_to(top)): p.read_text() for p in top.rglob("*") if p.is_file()}
    assert files == {"etc/passwd": FILES[0]["etc/passwd"], "opt/kept": "x", "app": "2", "gone/b": "2"}
    assert (top / "tmp").stat().st_mode & 0o7777 == 0o1777


def test_what_was_built_here_needs_no_registry(tmp_path):
    store = Stores(False, containers(tmp_path, "localhost/app:latest", "localhost/team/app:1"))
    assert all(store.find(name) for name in ("app", "localhost/app", "team/app:1"))
    assert store.find("app:2") is None
    assert store.find("localhost/app@sha256:" + "d" * 64)
    assert not any(store.find(f"{registry}/app") for registry in ("docker.io/library", "docker.io", "index.docker.io"))
    assert sorted(n for n in store.all() if "@" not in n) == ["localhost/app:latest", "localhost/team/app:1"]


def test_links_modes_and_whiteouts_of_overlayfs(tmp_path):
    places = containers(tmp_path / "store", "localhost/app:1")
    lower, upper = (tmp_path / "store" / "overlay" / n / "diff" for n in (LOWER, UPPER))
    os.link(lower / "app", lower / "same")
    (lower / "link").symlink_to("/etc/passwd")
    (lower / "closed").mkdir(mode=0o700)
    (lower / "replaced").symlink_to("/etc")
    tree(upper, {"replaced/x": "inside"})
    tree(lower, {"pipe": "a file below", "read-only/old": "1"})
    (lower / "read-only").chmod(0o555)
    os.mkfifo(upper / "pipe")
    tree(upper, {"read-only/new": "2"})
    (upper / "read-only").chmod(0o555)
    tree(lower, {"replaced-read-only/a/b": "1"})
    (lower / "replaced-read-only" / "a").chmod(0o555)
    tree(upper, {"replaced-read-only": "a file now"})
    if os.geteuid() == 0:
        os.mknod(upper / "link", 0o020000, os.makedev(0, 0))
    found = Stores(False, places).find("app:1")
    top = found.unpack(tmp_path / "rootfs", found.directory, False)
    assert (top / "same").read_text() == "1"
    assert os.path.lexists(top / "link") == (os.geteuid() != 0)
    assert (top / "closed").stat().st_mode & 0o7777 == 0o700
    assert (top / "replaced" / "x").read_text() == "inside"
    assert not (top / "replaced").is_symlink()
    assert not os.path.lexists(top / "pipe")
    assert (top / "replaced-read-only").read_text() == "a file now"
    assert sorted(p.name for p in (top / "read-only").iterdir()) == ["new", "old"]
    assert (top / "read-only").stat().st_mode & 0o7777 == 0o555


@pytest.mark.parametrize(
    "broken", ["overlay-images/images.json", "overlay-layers/layers.json", f"overlay-images/{IMAGE}/manifest"]
)
@pytest.mark.parametrize("text", ["", "{", "[1]", "7"])
def test_a_store_of_another_form_is_left_out(tmp_path, broken, text):
    places = containers(tmp_path, "localhost/app:1")
    (tmp_path / broken).write_text(text)
    assert Stores(False, places).find("app:1") is None
    assert Stores(False, places).all() == {}


def test_images_for_other_machines_are_left_out(tmp_path):
    assert Stores(False, containers(tmp_path, "localhost/app:1", architecture="s390x")).find("app:1") is None


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    """Of a machine with an empty store of Podman at ``tmp_path / "store"``."""
    settings = tmp_path / "storage.conf"
    settings.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{tmp_path / "store"}"\n')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(settings))
    return Catalogue(tmp_path / "images.json", tmp_path / "bin", tmp_path / "rootfs", False)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"User": "nobody-knows"}, "the image has no user 'nobody-knows'"),
        ({"StopSignal": "SIGFOO"}, "SIGFOO"),
        ({"Env": 7}, "not iterable"),
        ({"Entrypoint": 7}, "not iterable"),
    ],
)
def test_an_image_whose_configuration_makes_no_sense_is_refused_with_its_name(
    tmp_path, catalogue, monkeypatch, wrong, says
):
    monkeypatch.setitem(globals(), "CONFIG", CONFIG | wrong)
    containers(tmp_path / "store", "localhost/app:1", "docker.io/library/debian:latest")
    for _ in range(2):
        with pytest.raises(UnknownImage, match=f'the image "app:1" in the store of podman cannot be used: .*{says}'):
            asyncio.run(catalogue.provide("app:1"))
    with pytest.raises(UnknownImage, match=says):
        catalogue.entry("app:1")
    assert "bash of this machine runs in its place" in asyncio.run(catalogue.provide("debian"))


def test_an_image_of_a_shell_whose_files_cannot_be_read_is_this_machines_shell_as_without_the_store(
    tmp_path, catalogue, monkeypatch
):
    containers(tmp_path / "store", "docker.io/library/debian:latest", "localhost/app:1")
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("/diff/opt"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UnknownImage, match="diff/opt belongs to another user; export the image"):
        asyncio.run(catalogue.provide("app:1"))
    said = asyncio.run(catalogue.provide("debian"))
    assert said.startswith('the image "debian" in the store of podman cannot be used')
    assert said.endswith("bash of this machine runs in its place")
    assert catalogue.find("debian").arguments[0].endswith("bash")
    assert asyncio.run(catalogue.provide("debian")) == said


def test_an_image_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a power failure leaves a complete directory of empty files."""
    found = Stores(False, containers(tmp_path / "store", "localhost/app:1")).find("app:1")
    synced = []
    monkeypatch.setattr(
        kernel, "sync", lambda path: synced.append(((path / "app").read_text(), (tmp_path / found.directory).exists()))
    )
    for _ in range(2):
        found.unpack(tmp_path, found.directory, False)
    assert synced == [("2", False)]


def test_pods_get_images_of_a_store_and_keep_them_when_it_forgets_them(tmp_path, catalogue):
    containers(tmp_path / "store", "localhost/app:1")
    with pytest.raises(NotUnpacked, match="podman"):
        catalogue.find("app:1")

    async def together():
        await asyncio.gather(catalogue.provide("app:1"), catalogue.provide("app:1"))

    asyncio.run(together())
    found = catalogue.find("app:1")
    assert (found.entrypoint, found.arguments, found.env) == (("/app",), ("serve",), (("A", "b=c"),))
    assert (found.user, found.directory) == ((7, 8), "/work")
    (directory,) = (tmp_path / "rootfs").iterdir()
    (directory / "opt").chmod(0o500)
    os.utime(directory, (0, 0))
    catalogue.sweep()
    assert directory.exists()
    (tmp_path / "store" / "overlay-images" / "images.json").write_text("[]")
    assert catalogue.find("app:1") == found
    catalogue.sweep()
    assert not directory.exists()
    with pytest.raises(UnknownImage, match="no local command"):
        asyncio.run(catalogue.provide("another"))


@pytest.mark.parametrize("given", [IMAGE, UPPER, LOWER])
@pytest.mark.parametrize("name", ["../../outside", "..", ".", "a" * 63, "A" * 64, 7, ["x"]])
def test_an_id_that_is_a_path_leads_nowhere(tmp_path, given, name):
    places = containers(tmp_path / "store", "docker.io/library/redis:7")
    shutil.copytree(tmp_path / "store" / "overlay-images" / IMAGE, tmp_path / "outside")
    tree(tmp_path / "outside" / "diff", {"secret": "x"})
    assert Stores(False, places).find("redis:7")
    for listed in ("overlay-images/images.json", "overlay-layers/layers.json"):
        kept = tmp_path / "store" / listed
        kept.write_text(kept.read_text().replace(json.dumps(given), json.dumps(name)))
    assert Stores(False, places).find("redis:7") is None


@pytest.mark.parametrize("name", ["../../outside", "/outside", "..", "a/b", "", "one-", "One"])
def test_a_cache_id_that_is_a_path_leads_nowhere(tmp_path, name):
    tree(tmp_path / "outside" / "diff", {"secret": "x"})
    places = docker(tmp_path / "store", "docker.io/library/redis:7")
    assert Stores(False, places).find("redis:7")
    for kept in (tmp_path / "store").rglob("cache-id"):
        kept.write_text(name)
    assert Stores(False, places).find("redis:7") is None
