"""Layers and layouts of our own images, from packages and wheels that the tests make."""

import importlib
import importlib.util
import io
import json
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from lateen.cluster.kubelet import layers, oci
from lateen.install import manifests
from lateen.install.operator import resolve
from lateen.install.profiles import PROFILES

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
files = importlib.import_module("image_files")
layout = importlib.import_module("image_layout")
images = importlib.import_module("images")
charts = importlib.import_module("charts")
Entry = files.Entry
EPOCH = 1_700_000_000


def tar(members, compression):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode=f"w:{compression}") as archive:
        for name, data, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname, member.mode = kind, len(data), target, 0o755
            archive.addfile(member, io.BytesIO(data))
    return raw.getvalue()


def package(path, *members, compression="xz"):
    """A .deb, which is an ``ar`` archive."""
    control = tar([("./control", b"Package: p\nVersion: 1\n", tarfile.REGTYPE, "")], "gz")
    parts = [("debian-binary", b"2.0\n"), ("control.tar.gz", control), ("data.tar.xz", tar(members, compression))]
    out = b"!<arch>\n"
    for name, data in parts:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    path.write_bytes(out)
    return path


def names(packed):
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return [m.name for m in archive]


def test_packages_become_files_below_usr_without_documentation(tmp_path):
    found = files.of_packages(
        [
            package(
                tmp_path / "p_1_all.deb",
                ("./", b"", tarfile.DIRTYPE, ""),
                ("./bin/", b"", tarfile.DIRTYPE, ""),
                ("./bin/sh", b"shell", tarfile.REGTYPE, ""),
                ("./lib64/ld.so", b"", tarfile.SYMTYPE, "/lib/x/ld.so"),
                ("./bin/hard", b"", tarfile.LNKTYPE, "./bin/sh"),
                ("./usr/share/man/man1/sh.1.gz", b"x", tarfile.REGTYPE, ""),
                ("./usr/share/doc/p/changelog.gz", b"x", tarfile.REGTYPE, ""),
                ("./usr/share/doc/p/copyright", b"Apache", tarfile.REGTYPE, ""),
            )
        ]
    )
    assert found["usr/bin/sh"].data == b"shell"
    assert (found["usr/bin/hard"].target, found["usr/lib64/ld.so"].target) == ("usr/bin/sh", "/lib/x/ld.so")
    assert (found["bin"].kind, found["bin"].target) == (tarfile.SYMTYPE, "usr/bin")
    assert [n for n in found if "share" in n] == ["usr/share/doc/p/copyright"]
    assert found["var/lib/dpkg/status.d/p"].data.startswith(b"Package: p")


def test_a_layer_depends_on_nothing_but_its_files():
    given = {
        "a/hard": Entry(kind=tarfile.LNKTYPE, target="b/file"),
        "b/file": Entry(b"data", time=EPOCH + 5),
        "a/old": Entry(b"x", time=EPOCH - 5),
    }
    first = files.archive(given, EPOCH)
    assert first == files.archive(dict(reversed(given.items())), EPOCH)
    assert names(first[1]) == ["a/old", "b/file", "a/hard"]
    with tarfile.open(fileobj=io.BytesIO(first[0])) as archive:
        assert [m.mtime for m in archive] == [EPOCH - 5, EPOCH, EPOCH]


def wheel(path, **contents):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o755 if name.endswith("binary") else 0o644) << 16
            archive.writestr(info, data)
    return path


def test_wheels_are_laid_out_as_installed(tmp_path):
    path = wheel(
        tmp_path / "w.whl",
        **{
            "w/__init__.py": "x = 1\n",
            "w/binary": "b",
            "w-1.data/scripts/run": "#!python\nprint()\n",
            "w-1.data/purelib/more.py": "y = 2\n",
            "w-1.data/data/share/w": "z",
        },
    )
    found = files.of_wheel(path, "site")
    assert {n: oct(e.mode) for n, e in found.items()} == {
        "site/w/__init__.py": "0o644",
        "site/w/binary": "0o755",
        "usr/local/bin/run": "0o755",
        "site/more.py": "0o644",
        "usr/local/share/w": "0o644",
    }
    assert found["usr/local/bin/run"].data.startswith(b"#!/usr/bin/python3\n")


def test_bytecode_is_what_python_would_load(tmp_path):
    source = b"names = {'a', 'b'}\ndef f(x):\n    return x in {'c', 'd', 'e'}\n"
    found = files.compiled({"site/m.py": Entry(source), "site/broken.py": Entry(b"def ("), "site/data": Entry(b"")})
    (name,) = found
    (tmp_path / "m.py").write_bytes(source)
    cached = Path(importlib.util.cache_from_source(str(tmp_path / "m.py")))
    assert cached.name == name.rpartition("/")[2]
    cached.parent.mkdir()
    cached.write_bytes(found[name].data)
    (tmp_path / "m.py").write_bytes(b"raise SystemExit\n")  # unchecked bytecode is used whatever the source says
    spec = importlib.util.spec_from_file_location("m", tmp_path / "m.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.f("d"), module.f("x"), module.names) == (True, False, {"a", "b"})


def test_the_layout_is_one_that_the_embedded_cluster_runs(tmp_path):
    here = oci.architecture()
    made = layout.Layout(tmp_path / "images", EPOCH)
    base = made.layer(
        files.archive({"etc": files.directory(), "etc/a": Entry(b"1"), "bin": files.link("usr/bin")}, EPOCH), "a"
    )
    top = made.layer(files.archive({"etc/a": Entry(b"2"), "usr/bin/run": Entry(b"#!", 0o755)}, EPOCH), "b")
    config = {"Entrypoint": ["run"], "User": "1337:1337"}
    images = [made.image(a, [base, top], config) for a in (here, "riscv64")]
    digest = made.add("example.com/x/pilot:v1", images)
    made.finish()
    assert digest.startswith("sha256:")
    with oci.opened(tmp_path / "images") as found:
        manifest = found.manifest("example.com/x/pilot:v1")
        assert (manifest.digest, manifest.config) == (images[0]["digest"], config)
        root = layers.unpack(found, manifest, tmp_path / "rootfs", owners=False)
    assert (root / "etc/a").read_text() == "2"
    assert (root / "bin/run").stat().st_mode & 0o777 == 0o755


def named(found):
    """Names of our images, without hub and tag, in objects or in a chart's templates."""
    own = re.compile(r'^(?:(?:docker\.io/lateen|\{\{.*\}\})/|\{\{.*?\.image \| default ")([a-z0-9-]+)[:"]')
    if isinstance(found, dict):
        return {n for v in found.values() for n in named(v)}
    if isinstance(found, list | tuple):
        return {n for v in found for n in named(v)}
    return set(own.findall(found)) if isinstance(found, str) else set()


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_image_that_the_manifests_name_is_built(profile):
    primary = {"values.global.remotePilotAddress": "192.0.2.1", "values.global.multiCluster.clusterName": "west"}
    elsewhere = [f"{k}={v}" for k, v in primary.items()] if profile == "remote" else []
    rendered = manifests.render(resolve(profile, [], ["components.cni.enabled=true", *elsewhere]))
    found = named([o for part in rendered for o in part.objects])
    assert "install-cni" in found
    assert found <= set(images.IMAGES)


def test_every_image_that_the_charts_and_addons_name_is_built():
    texts = [*charts.charts().values(), *(p.read_text() for p in (TOOLS.parent / "samples/addons").glob("*.yaml"))]
    lines = [m for t in texts for m in re.findall(r"""image: *["']?(\S.*?)["']?$""", t, re.MULTILINE)]
    found = named(lines)
    assert {"pilot", "console", "install-cni"} <= found
    assert found <= set(images.IMAGES)


def test_programs_and_entry_points_of_images_are_modules_of_the_package():
    for image in images.IMAGES.values():
        entry = [image.entry[2]] if image.entry[:2] == ("python3", "-m") else []
        modules = [*image.programs.values(), *entry]
        assert modules
        for module in modules:
            assert importlib.util.find_spec(module), module


def test_each_image_has_a_dockerfile_with_the_same_entry_point_and_user():
    for name, image in images.IMAGES.items():
        lines = (TOOLS.parent / "images" / name / "Dockerfile").read_text().splitlines()
        assert f"ENTRYPOINT {json.dumps(image.entry)}" in lines, name
        assert f"USER {image.user}:{image.user}" in lines, name
