"""What is shipped beside the mesh."""

from lateen import __version__
from lateen.cli import addons


def images(path, image):
    return {
        c["image"]
        for o in addons.objects(path, image)
        if o["kind"] == "Deployment"
        for c in o["spec"]["template"]["spec"]["containers"]
    }


def test_the_addons_written_for_kubectl_name_this_version():
    for path in addons.known().values():
        assert f"image: {addons.IMAGE}:{__version__}\n" in path.read_text()


def test_the_addons_take_the_registry_and_tag_of_the_installation():
    for path in addons.known().values():
        assert images(path, "registry.example/mesh/console:7") == {"registry.example/mesh/console:7"}


def test_the_console_may_read_every_kind_of_the_mesh():
    from lateen.api import kinds

    roles = [o for o in addons.objects(addons.known()["kiali"], "") if o["kind"] == "ClusterRole"]
    assert set(kinds.groups()) <= {g for role in roles for rule in role["rules"] for g in rule["apiGroups"]}


def test_an_installation_uses_images_from_its_own_registry():
    from lateen.install import manifests
    from lateen.install.operator import resolve

    spec = resolve("demo", [], ["hub=registry.example/mesh", "tag=7"])
    text = str([o for part in manifests.render(spec) for o in part.objects if o["kind"] == "Deployment"])
    assert text.count("registry.example/mesh/pilot:7") == 1
    assert text.count("registry.example/mesh/proxyv2:7") == 3  # istiod's environment and two gateways
    assert "docker.io/lateen" not in text


def test_ephemeral_addons_claim_no_volumes():
    found = [o for path in addons.known().values() for o in addons.objects(path, "i")]
    assert any(o["kind"] == "PersistentVolumeClaim" for o in found)
    kept = addons.ephemeral(found)
    assert not any(o["kind"] == "PersistentVolumeClaim" or "persistentVolumeClaim" in str(o) for o in kept)
    deployments = [o for o in kept if o["kind"] == "Deployment"]
    data = [v for o in deployments for v in o["spec"]["template"]["spec"].get("volumes", []) if v["name"] == "data"]
    assert data == [{"name": "data", "emptyDir": {"sizeLimit": "400Mi"}}] * 2
