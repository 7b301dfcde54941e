"""Certificates that Gateways and Ingresses ask for by cert-manager's annotations."""

import meshes as mesh
import pytest

from lateen.analysis import Source
from lateen.api import crds, kinds, validate
from lateen.cli.analyze import foreign
from lateen.control.asking import certificates

OBJECTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: web
  annotations: {cert-manager.io/cluster-issuer: public}
spec:
  gatewayClassName: istio
  listeners:
  - {name: plain, port: 80, protocol: HTTP, hostname: a.test}
  - {name: a, port: 443, protocol: HTTPS, hostname: a.test, tls: {certificateRefs: [{name: one}]}}
  - {name: b, port: 8443, protocol: HTTPS, hostname: b.test, tls: {certificateRefs: [{name: one}]}}
  - {name: c, port: 9443, protocol: HTTPS, hostname: c.test, tls: {certificateRefs: [{name: two, namespace: other}]}}
  - {name: d, port: 9444, protocol: HTTPS, tls: {certificateRefs: [{name: three}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, annotations: {cert-manager.io/issuer: own}}
spec: {tls: [{hosts: [shop.test], secretName: shop}, {secretName: nameless}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: silent}
spec: {tls: [{hosts: [silent.test], secretName: silent}]}
"""


def test_each_secret_that_is_named_for_a_host_gets_a_certificate_owned_by_the_object():
    made = list(certificates(mesh.objects(OBJECTS), lambda _: True))
    assert [(c["metadata"]["name"], c["spec"]["dnsNames"]) for c in made] == [
        ("one", ["a.test", "b.test"]),
        ("shop", ["shop.test"]),
    ]
    assert [(c["spec"]["issuerRef"]["kind"], c["spec"]["issuerRef"]["name"]) for c in made] == [
        ("ClusterIssuer", "public"),
        ("Issuer", "own"),
    ]
    assert [c["metadata"]["ownerReferences"][0]["kind"] for c in made] == ["Gateway", "Ingress"]
    for cert in made:
        assert list(validate.problems(cert)) == []


def test_objects_of_another_revision_are_left_to_it():
    made = certificates(mesh.objects(OBJECTS), lambda r: r.ref.kind == kinds.INGRESS.kind)
    assert [c["metadata"]["name"] for c in made] == ["shop"]


@pytest.mark.parametrize("labels", [{crds.OURS: "true"}, {}, None])
def test_objects_of_cert_manager_itself_are_not_analyzed(labels):
    crd = crds.crd(kinds.CERTIFICATE)
    crd["metadata"] = {"name": crd["metadata"]["name"], **({"labels": labels} if labels is not None else {})}
    assert foreign([Source(crd)]) == (set() if labels else {kinds.CERTIFICATE.id})
