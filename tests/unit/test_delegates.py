"""VirtualServices that are written in several parts."""

import judge
import meshes as mesh

from lateen.mesh.model import Mesh
from lateen.wire import names

ROOT = """
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - name: root
    match: [{uri: {prefix: /a}, headers: {x: {exact: "1"}}}]
    delegate: {name: part, namespace: elsewhere}
    timeout: 3s
  - {route: [{destination: {host: reviews}}]}
---
kind: VirtualService
metadata: {name: part, namespace: elsewhere}
spec:
%s
  http:
  - name: narrower
    match: [{uri: {prefix: /a/b}}]
    route: [{destination: {host: ratings.default.svc.cluster.local}}]
  - match: [{uri: {exact: /z}}]
    route: [{destination: {host: ratings}}]
  - timeout: 1s
    route: [{destination: {host: short}}]
"""


def rule(extra="", host="reviews"):
    found = Mesh(mesh.objects(ROOT % extra)).mesh_rules(f"{host}.default.svc.cluster.local", "default")
    return found[0].spec if found else None


def test_the_delegates_routes_replace_the_roots_route():
    http = rule().http
    assert [r.name for r in http] == ["root-narrower", "root", ""]
    first, second, last = http
    assert first.match[0].uri.prefix == "/a/b"
    assert first.match[0].headers["x"].exact == "1"
    assert first.timeout.seconds == 3
    assert second.match[0].uri.prefix == "/a"
    assert second.timeout.seconds == 1
    assert second.route[0].destination.host == "short.elsewhere.svc.cluster.local"
    assert not last.match


def test_a_delegate_that_is_missing_or_not_exported_has_no_routes():
    assert len(rule("  exportTo: [.]").http) == 1
    assert len(rule("  hosts: [own]").http) == 1


def test_a_change_of_the_delegate_is_a_change_of_the_root(tmp_path):
    before = Mesh(mesh.objects(ROOT % "")).mesh_rules("reviews.default.svc.cluster.local", "default")[0]
    after = Mesh(mesh.objects(ROOT % "  exportTo: ['*']")).mesh_rules("reviews.default.svc.cluster.local", "default")
    assert before != after[0]
    assert before.origins == ("VirtualService default/reviews", "VirtualService elsewhere/part")
    view = mesh.view(mesh.objects(ROOT % ""))
    judge.validate(view, tmp_path)
    hosts = judge.messages(view)[names.VHDS]
    assert any(b"outbound|9080||ratings" in h.SerializeToString() for h in hosts.values())


def test_grpc_faults_and_preflights_are_accepted(tmp_path):
    view = mesh.view(
        mesh.objects("""
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}
    corsPolicy: {allowOrigins: [{exact: "https://a.example"}], unmatchedPreflights: IGNORE}
    route: [{destination: {host: reviews}}]
""")
    )
    judge.validate(view, tmp_path)
