"""Files named by a pod's object stay inside of the pod's directory, whatever their names."""

import asyncio
import base64
import os

import pytest

from lateen.cluster.kubelet import limits, names, security, volumes
from lateen.cluster.network import services
from lateen.cluster.runtime.privileges import CAPABILITIES
from lateen.kit import beneath

UID = "0b6f3c8e-5a53-4c5b-9f0e-0123456789ab"
PATHS = ["../x", "../../../../x", "/x", "a/../../x", "..", "", "a\0b"]


def pod(**spec):
    spec.setdefault("containers", [{"name": "main", "image": "x"}])
    return {"metadata": {"name": "p", "namespace": "n", "uid": UID}, "spec": spec}


# --- the directory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out_of_a_directory(tmp_path, path):
    (tmp_path / "in").mkdir()
    with beneath.Directory.open(tmp_path / "in") as d, pytest.raises(beneath.Unsafe):
        d.write(path, b"1")
    assert os.listdir(tmp_path) == ["in"]
    assert os.listdir(tmp_path / "in") == []


def test_links_are_not_followed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in/link").symlink_to("../out")
    (tmp_path / "in/file").symlink_to("../out/file")
    with beneath.Directory.open(tmp_path / "in") as d:
        with pytest.raises(beneath.Unsafe, match=r"symbolic link"):
            d.write("link/x", b"1")
        with pytest.raises(beneath.Unsafe, match=r"symbolic link"):
            d.directory("link/x", make=True)
        with pytest.raises(beneath.Unsafe, match=r"symbolic link"):
            d.read("file")
        d.write("file", b"1")  # the link is replaced, not followed
    assert os.listdir(tmp_path / "out") == []
    assert (tmp_path / "in/file").read_bytes() == b"1"


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "..", "A", "a b", "", None, 3, "-x", "x\n"])
def test_a_name_that_is_a_path_is_refused(name):
    for bad in (
        pod(containers=[{"name": name, "image": "x"}]),
        pod(initContainers=[{"name": name, "image": "x"}]),
        pod(volumes=[{"name": name, "emptyDir": {}}]),
    ):
        with pytest.raises(names.Refused, match=r"name"):
            names.check(bad)


@pytest.mark.parametrize("path", ["..", "../x", "/x", "x/../../y"])
def test_a_sub_path_that_leaves_its_volume_is_refused(path):
    mount = {"name": "v", "mountPath": "/v", "subPath": path}
    container = {"name": "main", "image": "x", "volumeMounts": [mount]}
    with pytest.raises(names.Refused, match=r"subPath"):
        names.check(pod(containers=[container], volumes=[{"name": "v", "emptyDir": {}}]))


@pytest.mark.parametrize(
    "container",
    [
        {"env": [{"name": "A=B", "value": "1"}]},
        {"volumeMounts": [{"name": "absent", "mountPath": "/x"}]},
        {"volumeMounts": [{"name": "v", "mountPath": "/../x"}]},
        {"volumeMounts": [{"name": "v", "mountPath": "/"}]},
        {"command": ["a\0b"]},
        {"terminationMessagePath": "../../x"},
        {"workingDir": "x"},
        {"image": ""},
    ],
)
def test_a_container_that_cannot_be_created_safely_is_refused(container):
    with pytest.raises(names.Refused):
        names.check(
            pod(containers=[{"name": "main", "image": "x"} | container], volumes=[{"name": "v", "emptyDir": {}}])
        )


def test_an_ordinary_pod_is_not_refused():
    mount = {"name": "v", "mountPath": "/var/run/x", "subPath": "a/b..c"}
    container = {"name": "main", "image": "x", "workingDir": "/", "volumeMounts": [mount], "env": [{"name": "a.b"}]}
    names.check(pod(containers=[container], volumes=[{"name": "v", "emptyDir": {}}], hostname="h"))


# --- volumes ---------------------------------------------------------------------------------------------------------


class Api:
    """ConfigMaps and Secrets by name."""

    def __init__(self, objects):
        self.objects = objects

    async def get(self, _, __, name):
        return self.objects.get(name)


def prepare(tmp_path, objects, *found):
    made = volumes.Volumes(Api(objects), tmp_path / "pod", tmp_path / "folders")
    asyncio.run(made.prepare(pod(volumes=list(found))))
    return tmp_path / "pod/volumes"


@pytest.mark.parametrize("key", ["../../../x", "/x", "..", "a/b"])
def test_a_key_that_is_a_path_is_refused(tmp_path, key):
    with pytest.raises(volumes.NotReady, match="key"):
        prepare(tmp_path, {"c": {"data": {key: "1"}}}, {"name": "v", "configMap": {"name": "c"}})
    secret = {"data": {key: base64.b64encode(b"1").decode()}}
    with pytest.raises(volumes.NotReady, match="key"):
        prepare(tmp_path, {"c": secret}, {"name": "v", "secret": {"secretName": "c"}})
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("path", ["../../../x", "/x", "a/../../x"])
def test_an_items_path_that_leaves_its_volume_is_refused(tmp_path, path):
    for source in (
        {"configMap": {"name": "c", "items": [{"key": "k", "path": path}]}},
        {"downwardAPI": {"items": [{"path": path, "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"projected": {"sources": [{"configMap": {"name": "c", "items": [{"key": "k", "path": path}]}}]}},
    ):
        with pytest.raises(OSError, match=r"relative path"):
            prepare(tmp_path, {"c": {"data": {"k": "1"}}}, {"name": "v", **source})
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_volume_has_the_files_of_its_config_map_and_no_others(tmp_path):
    volume = {"name": "v", "configMap": {"name": "c", "defaultMode": 0o400}}
    found = prepare(tmp_path, {"c": {"data": {"a": "1", "b": "2"}}}, volume)
    assert texts(found / "v") == {"a": "1", "b": "2"}
    assert (found / "v/a").stat().st_mode & 0o777 == 0o400
    prepare(tmp_path, {"c": {"data": {"b": "3"}}}, volume)
    assert texts(found / "v") == {"b": "3"}


def texts(volume):
    """The files that a user sees in a volume."""
    return {p.name: p.read_text() for p in volume.iterdir() if not p.name.startswith("..")}


def test_all_files_of_a_config_map_change_at_once(tmp_path):
    """Programs that reload their configuration wait for another ..data, and find all files of one version there."""
    volume = {
        "name": "v",
        "configMap": {"name": "c", "items": [{"key": "a", "path": "x/a"}, {"key": "b", "path": "b"}]},
    }
    found = prepare(tmp_path, {"c": {"data": {"a": "1", "b": "1"}}}, volume) / "v"
    assert (os.readlink(found / "x"), os.readlink(found / "b")) == ("..data/x", "..data/b")
    first = os.readlink(found / "..data")
    prepare(tmp_path, {"c": {"data": {"a": "1", "b": "1"}}}, volume)
    assert os.readlink(found / "..data") == first  # nothing has changed
    prepare(tmp_path, {"c": {"data": {"a": "2", "b": "1"}}}, volume)
    assert os.readlink(found / "..data") != first
    assert ((found / "x/a").read_text(), (found / "b").read_text()) == ("2", "1")
    assert sorted(p.name for p in found.iterdir()) == [os.readlink(found / "..data"), "..data", "b", "x"]


def test_a_volume_of_an_earlier_version_gets_the_layout_of_this_one(tmp_path):
    old = tmp_path / "pod/volumes/v"
    (old / "x").mkdir(parents=True)
    (old / "x/a").write_text("0")
    (old / "b").write_text("0")
    items = [{"key": "a", "path": "x/a"}, {"key": "b", "path": "b"}]
    prepare(tmp_path, {"c": {"data": {"a": "1", "b": "2"}}}, {"name": "v", "configMap": {"name": "c", "items": items}})
    assert ((old / "x/a").read_text(), (old / "b").read_text()) == ("1", "2")


def test_a_directory_keeps_the_mode_that_a_container_has_given_it(tmp_path):
    """A database refuses a directory of its data that everybody may read."""
    volume = {"name": "v", "emptyDir": {}}
    found = prepare(tmp_path, {}, volume) / "v"
    assert found.stat().st_mode & 0o7777 == 0o777
    found.chmod(0o700)
    prepare(tmp_path, {}, volume)
    assert found.stat().st_mode & 0o7777 == 0o700


# --- what containers know about their pods ---------------------------------------------------------------------------


def test_a_variable_may_be_about_another_container_and_about_the_node():
    side = {"name": "side", "resources": {"limits": {"cpu": "250m"}, "requests": {"memory": "1Mi"}}}

    def env(**ref):
        container = {"name": "main", "env": [{"name": "A", "valueFrom": {"resourceFieldRef": ref}}]}
        made = volumes.environment(Api({}), pod(containers=[container, side]), container, {})
        return asyncio.run(made)["A"]

    assert env(containerName="side", resource="limits.cpu", divisor="1m") == "250"
    assert env(resource="limits.cpu") == str(os.cpu_count())  # as much as the node has
    assert env(containerName="side", resource="limits.memory", divisor="1Ki") == limits.capacity()["memory"][:-2]
    assert env(resource="requests.memory") == "0"


def test_a_variable_has_the_addresses_of_the_pod():
    item = {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}}
    container, known = {"name": "main", "env": [item]}, {"status": {"podIP": "10.244.0.7", "podIPs": []}}
    made = volumes.environment(Api({}), {**pod(containers=[container]), **known}, container, {})
    assert asyncio.run(made) == {"A": "10.244.0.7"}


def test_what_a_pod_wants_of_the_machine_and_does_not_get_is_named():
    assert security.unsupported(pod(hostNetwork=True, hostPID=False, hostIPC=True)).startswith(
        "hostNetwork, hostIPC: no"
    )
    assert security.unsupported(pod(hostNetwork=False)) == ""


# --- rules -----------------------------------------------------------------------------------------------------------


def test_an_invalid_endpoint_address_does_not_reach_the_nat_rules():
    good = ("10.244.0.9", 80)
    bad = [("10.244.0.9\n-A INPUT -j DROP", 80), ("::1", 80), ("10.244.0.9", "80 -j ACCEPT"), ("x", 80)]
    text = services.rules([services.ServicePort("10.96.0.9", "TCP", 80, (good, *bad))])
    assert text.count("--to-destination") == 1
    assert "DROP" not in text
    assert "ACCEPT [" in text
    assert "10.96" not in services.rules([services.ServicePort("10.96.0.9", "TCP -j X", 80, (good,))])


def test_a_client_of_a_service_with_affinity_stays_with_its_endpoint():
    ends = (("10.244.0.9", 80), ("10.244.0.10", 80))
    plain, sticky = (services.rules([services.ServicePort("10.96.0.9", "TCP", 80, ends, s)]) for s in (0, 300))
    assert "recent" not in plain
    remembered = [x for x in sticky.splitlines() if "--rcheck --seconds 300 --reap" in x]
    noted = [x for x in sticky.splitlines() if "--set" in x and "DNAT" in x]
    assert len(remembered) == len(noted) == 2
    assert sticky.index(remembered[-1]) < sticky.index("--mode random")
    names = {x.partition("--name ")[2].split()[0] for x in noted}
    assert names == {x.rpartition("-j ")[2] for x in remembered}


def test_the_same_address_and_port_twice_is_the_first_ones():
    one, two = (services.ServicePort("192.0.2.7", "TCP", 80, ((f"10.244.0.{n}", 80),)) for n in (8, 9))
    text = services.rules([one, two])
    assert "10.244.0.8" in text
    assert "10.244.0.9" not in text


# --- privileges ------------------------------------------------------------------------------------------------------


def decide(container=None, rootless=False, image=None, marks=False, **shared):
    container = {"name": "main", "image": "x", "securityContext": container or {}}
    return security.decide(
        pod(securityContext=shared, containers=[container]),
        container,
        image,
        frozenset(CAPABILITIES),
        lambda uid: security.Account("root", 0, "/root") if uid == 0 else None,
        rootless,
        marks,
    )


def test_capabilities_are_the_default_ones_and_those_asked_for():
    assert "NET_RAW" not in decide().capabilities
    assert "NET_ADMIN" not in decide().capabilities
    assert "CHOWN" in decide().capabilities
    assert "NET_RAW" in decide({"capabilities": {"add": ["NET_RAW"]}}).capabilities
    assert "CHOWN" not in decide({"capabilities": {"drop": ["CHOWN"]}}).capabilities
    assert decide({"capabilities": {"drop": ["ALL"]}}).capabilities == ()
    assert decide({"capabilities": {"drop": ["ALL"], "add": ["CAP_NET_ADMIN"]}}).capabilities == ("NET_ADMIN",)
    assert set(decide({"privileged": True}).capabilities) == set(CAPABILITIES)
    with pytest.raises(security.Misconfigured, match="CAP_NOPE"):
        decide({"capabilities": {"add": ["NOPE"]}})


def test_the_container_overrides_the_pod_and_the_pod_overrides_the_image():
    assert decide(image=(7, 8)).uid == 7
    assert decide(image=(7, 8)).gid == 8
    assert decide(image=(7, 8), runAsUser=9).uid == 9
    assert decide({"runAsUser": 10, "runAsGroup": 11}, runAsUser=9).uid == 10
    assert decide({"runAsUser": 10, "runAsGroup": 11}).gid == 11
    assert decide(fsGroup=5, supplementalGroups=[6]).groups == (6, 5)
    assert decide().home == "/root"
    assert decide(runAsUser=9).home == "/"


def test_a_container_that_must_not_be_root_is_not():
    with pytest.raises(security.Misconfigured, match="image will run as root"):
        decide(runAsNonRoot=True)
    with pytest.raises(security.Misconfigured, match="non-root policy"):
        decide({"runAsUser": 0}, runAsNonRoot=True)
    assert decide(runAsNonRoot=True, runAsUser=5).uid == 5


def test_without_root_on_the_host_another_user_is_a_namespace_of_its_own():
    assert decide(rootless=True, runAsUser=999).nested
    assert not decide(rootless=True).nested
    proxy = decide(rootless=True, runAsUser=1337, marks=True)
    assert (proxy.uid, proxy.nested, proxy.capabilities) == (0, False, ("NET_ADMIN",))
    assert decide(rootless=True, supplementalGroups=[5]).notes


def test_sysctls_that_affect_the_whole_machine_are_refused():
    safe = {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]}
    assert security.sysctls(pod(securityContext=safe), False)["net/ipv4/ip_unprivileged_port_start"] == "80"
    for name in ("kernel.core_pattern", "net.ipv4.ip_forward", "../../x"):
        with pytest.raises(security.Misconfigured, match="forbidden"):
            security.sysctls(pod(securityContext={"sysctls": [{"name": name, "value": "1"}]}), False)
