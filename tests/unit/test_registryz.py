"""The services of the mesh in Istio's JSON, as Kiali reads them."""

from meshes import objects

from lateen.control import registryz
from lateen.mesh.model import Mesh

ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payments, labels: {team: money}}
spec:
  hosts: [pay.example.com]
  addresses: [10.1.2.3]
  location: MESH_EXTERNAL
  resolution: DNS
  exportTo: ["."]
  ports: [{number: 443, name: tls, protocol: TLS}, {number: 9000, name: raw}]
  workloadSelector: {labels: {app: pay}}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: default}
spec:
  clusterIP: None
  selector: {app: headless}
  ports: [{port: 27017, name: mongo}]
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: default}
spec: {type: ExternalName, externalName: reviews.default.svc.cluster.local}
"""


def found(documents=ENTRY):
    return {s["hostname"]: s for s in registryz.services(Mesh(objects(documents)), "west")}


def test_a_kubernetes_service_has_its_name_selector_ports_and_address_in_its_cluster():
    one = found()["reviews.default.svc.cluster.local"]
    about = one["Attributes"]
    assert (about["ServiceRegistry"], about["Name"], about["Namespace"]) == ("Kubernetes", "reviews", "default")
    assert about["LabelSelectors"] == {"app": "reviews"}
    assert one["ports"] == [{"name": "http", "port": 9080, "protocol": "HTTP"}]
    assert one["clusterVIPs"] == {"Addresses": {"west": ["10.96.0.2"]}}
    assert (one["Resolution"], one["MeshExternal"]) == (0, False)


def test_an_entry_is_external_and_named_by_its_host():
    one = found()["pay.example.com"]
    about = one["Attributes"]
    assert (about["ServiceRegistry"], about["Name"], about["ObjectName"]) == ("External", "pay.example.com", "payments")
    assert (about["Labels"], about["LabelSelectors"]) == ({"team": "money"}, {"app": "pay"})
    assert about["ExportTo"] == {".": {}}
    assert [p["protocol"] for p in one["ports"]] == ["TLS", "UnsupportedProtocol"]
    assert (one["defaultAddress"], one["Resolution"], one["MeshExternal"]) == ("10.1.2.3", 1, True)


def test_services_without_an_address_have_istios_placeholder():
    services = found()
    headless = services["headless.default.svc.cluster.local"]
    assert headless["clusterVIPs"] == {"Addresses": {"west": ["0.0.0.0"]}}
    assert (headless["Resolution"], headless["ports"][0]["protocol"]) == (2, "Mongo")
    assert services["alias.default.svc.cluster.local"]["Resolution"] == 4
