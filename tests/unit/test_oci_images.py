"""OCI images become directories: layers and whiteouts, nothing outside of the image, and refusals that say why."""

import os
import signal
import tarfile

import layouts
import pytest
from layouts import Archive

from lateen.cluster.kubelet import layers, oci
from lateen.cluster.kubelet.accounts import Accounts


def unpacked(tmp_path, *archives, **more):
    layout = layouts.write(tmp_path / "layout", *archives, **more)
    with oci.opened(layout) as found:
        return layers.unpack(found, found.manifest(), tmp_path / "rootfs", owners=False)


def tree(top):
    return sorted(str(p.relative_to(top)) for p in top.rglob("*") if p.is_symlink() or p.is_file())


def test_later_layers_change_and_take_away_files(tmp_path):
    first = Archive().directory("etc").file("etc/a", b"1").file("etc/b", b"1").file("old/x").file("old/y/z")
    second = Archive().file("etc/a", b"2", 0o755).file("etc/.wh.b").file("old/new").file("old/.wh..wh..opq")
    top = unpacked(tmp_path, first, second)
    assert tree(top) == ["etc/a", "old/new"]
    assert (top / "etc" / "a").read_bytes() == b"2"
    assert (top / "etc" / "a").stat().st_mode & 0o777 == 0o755


def test_a_whiteout_leaves_what_its_own_layer_brings(tmp_path):
    top = unpacked(tmp_path, Archive().file("a/x"), Archive().file("a/x", b"new").file("a/.wh.x"))
    assert (top / "a" / "x").read_bytes() == b"new"


def test_kinds_of_files_replace_each_other(tmp_path):
    first = Archive().directory("a").file("a/x").file("b").link("c", "b")
    second = Archive().file("a", b"file").directory("b").file("b/y").file("c", b"c")
    top = unpacked(tmp_path, first, second)
    assert tree(top) == ["a", "b/y", "c"]
    assert not (top / "c").is_symlink()


def test_modes_of_directories_hold_although_their_files_come_later(tmp_path):
    top = unpacked(tmp_path, Archive().directory("closed", 0o500).file("closed/x").directory("tmp", 0o1777))
    assert (top / "closed").stat().st_mode & 0o7777 == 0o500
    assert (top / "tmp").stat().st_mode & 0o7777 == 0o1777
    os.chmod(top / "closed", 0o700)


def test_a_device_hides_the_file_that_an_earlier_layer_has_there(tmp_path):
    assert tree(unpacked(tmp_path, Archive().file("a", b"1").file("b"), Archive().device("a"))) == ["b"]


def test_hard_links_and_devices(tmp_path):
    top = unpacked(tmp_path, Archive().file("a", b"1").hard("b/c", "a").device("dev/sda"), compressed=False)
    assert tree(top) == ["a", "b/c"]
    assert (top / "a").stat().st_ino == (top / "b" / "c").stat().st_ino


def test_a_hard_link_to_a_link_is_the_same_link(tmp_path):
    top = unpacked(
        tmp_path, Archive().link("l", "/etc/passwd").hard("x", "l").link("gone", "nowhere").hard("y", "gone")
    )
    assert (os.readlink(top / "x"), os.readlink(top / "y")) == ("/etc/passwd", "nowhere")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (None, signal.SIGTERM),
        ("SIGQUIT", signal.SIGQUIT),
        ("INT", signal.SIGINT),
        ("9", 9),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX-1", signal.SIGRTMAX - 1),
        ("37", 37),
    ],
)
def test_stop_signals(text, number):
    assert oci.stop_signal(text) == number


@pytest.mark.parametrize("text", ["SIGNOT", "0", "65", "RTMIN+40", "RTMAX-40", "RTMIN+", "-1", "RTMIN-3"])
def test_a_stop_signal_that_there_is_not_is_refused(text):
    with pytest.raises(oci.Unusable, match="stop signal"):
        oci.stop_signal(text)


@pytest.mark.parametrize(
    "layer",
    [
        lambda out: Archive().link("way", str(out)).file("way/x", b"evil"),
        lambda out: Archive().link("way", "../" * 20 + str(out)).file("way/x", b"evil"),
        lambda out: Archive().link("a", str(out)).link("b", "a").file("b/x", b"evil"),
        lambda out: Archive().link("x", f"{out}/x").file("x", b"evil"),
        lambda out: Archive().link("way", str(out)).file("way/.wh.kept"),
        lambda out: Archive().link("way", str(out)).file("way/.wh..wh..opq"),
        lambda out: Archive().directory("a/b", 0o777).file("a/.wh.b").link("a/b", str(out)),
        lambda out: Archive().link("way", str(out)).directory("way", 0o700),
    ],
)
def test_links_of_an_image_do_not_lead_out_of_it(tmp_path, layer):
    out = tmp_path / "outside"
    out.mkdir(mode=0o755)
    (out / "kept").write_text("1")
    unpacked(tmp_path, layer(out), layer(out))
    assert [p.name for p in out.iterdir()] == ["kept"]
    assert out.stat().st_mode & 0o777 == 0o755


def test_a_link_in_the_place_of_a_directory_does_not_change_the_mode_of_another(tmp_path):
    out = tmp_path / "outside"
    (out / "b").mkdir(parents=True, mode=0o755)
    first = Archive().directory("a").directory("a/b", 0o700)
    unpacked(tmp_path, first, Archive().file(".wh.a"), Archive().link("a", str(out)))
    assert (out / "b").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (Archive().file("../x"), "is outside of the image"),
        (Archive().file("a/../../x"), "is outside of the image"),
        (Archive().hard("x", "../../etc/passwd"), "which is not a file of the image"),
        (Archive().directory("d").hard("x", "d"), "which is not a file of the image"),
        (Archive().link("a", "b").link("b", "a").file("a/x"), "too many symbolic links"),
        (Archive().file("a").file("a/b"), "a part of this path is a file"),
        (Archive().link("etc", "/tmp"), "/etc of the image is not a directory"),
        (Archive().file("a/.wh."), "names nothing"),
    ],
)
def test_what_cannot_be_right_is_refused_and_leaves_nothing(tmp_path, layer, says):
    with pytest.raises(oci.Unusable, match=says):
        unpacked(tmp_path, layer)
    assert list((tmp_path / "rootfs").iterdir()) == []


def test_images_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "MAX_BYTES", 10)
    with pytest.raises(oci.Unusable, match="together"):
        unpacked(tmp_path, Archive().file("a", b"x" * 11))


def test_a_blob_that_was_changed_is_refused(tmp_path):
    layout = layouts.write(tmp_path / "layout", Archive().file("a", b"1"), compressed=False)
    for blob in (layout / "blobs" / "sha256").iterdir():
        if blob.stat().st_size > 5000:
            raw = bytearray(blob.read_bytes())
            raw[-1] ^= 1
            blob.write_bytes(raw)
    with oci.opened(layout) as found, pytest.raises(oci.Unusable, match="does not match its digest"):
        layers.unpack(found, found.manifest(), tmp_path / "rootfs", owners=False)


def test_a_layout_may_be_a_tar_archive_and_have_several_images(tmp_path):
    layouts.write(tmp_path / "l", Archive().file("a"), name="one:1", Cmd=["/a"])
    layouts.write(tmp_path / "l", Archive().file("b"), name="two:1", Cmd=["/b"])
    with tarfile.open(tmp_path / "l.tar", "w") as tar:
        tar.add(tmp_path / "l", ".")
        for path in (tmp_path / "l").rglob("*"):
            tar.add(path, str(path.relative_to(tmp_path / "l")), recursive=False)
    with oci.opened(tmp_path / "l.tar") as found:
        assert found.manifest("two:1").config == {"Cmd": ["/b"]}
        with pytest.raises(oci.Unusable, match="choose one with --ref: one:1, two:1"):
            found.manifest()
        with pytest.raises(oci.Unusable, match="no image 'three'; it has: one:1, two:1"):
            found.manifest("three")


def test_what_is_no_image_for_this_machine_is_told(tmp_path):
    foreign = layouts.write(tmp_path / "a", Archive(), architecture="sparc")
    with oci.opened(foreign) as found, pytest.raises(oci.Unusable, match="the image is for linux/sparc"):
        found.manifest()
    (tmp_path / "empty").mkdir()
    with oci.opened(tmp_path / "empty") as found, pytest.raises(oci.Unusable, match="not an OCI layout"):
        found.manifest()
    (tmp_path / "text").write_text("x")
    with pytest.raises(oci.Unusable, match="neither a directory nor a tar archive"), oci.opened(tmp_path / "text"):
        pass


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("", None), ("7", (7, None)), ("7:8", (7, 8)), ("app", (5, 6)), ("app:staff", (5, 50)), ("7:staff", (7, 50))],
)
def test_the_user_of_an_image_is_one_of_its_own(tmp_path, text, wanted):
    files = Archive().file("etc/passwd", b"app:x:5:6::/home/app:/bin/sh\n").file("etc/group", b"staff:x:50:\n")
    accounts = Accounts(str(unpacked(tmp_path, files)))
    assert accounts.user(text) == wanted
    assert accounts.of(5).home == "/home/app"
    with pytest.raises(LookupError, match="no user 'joe'"):
        accounts.user("joe")


def test_accounts_are_not_read_through_a_link_out_of_the_image(tmp_path):
    (tmp_path / "secret").write_text("x:x:5:6::/:/bin/sh\n")
    top = unpacked(tmp_path, Archive().link("etc/passwd", str(tmp_path / "secret")))
    assert Accounts(str(top)).passwd == ""
