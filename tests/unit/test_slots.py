"""Slots: what a proxy of an earlier version has in its listeners goes on taking what istiod sends."""

import json
import subprocess
import time

import judge
import meshes as mesh
from envoy.config.core.v3 import extension_pb2
from google.protobuf import json_format

from lateen.cluster.kubelet.images import envoy_binary
from lateen.wire import names
from lateen.xds.filters import slots
from lateen.xds.filters.several import several

MATCHED = "envoy.extensions.common.matching.v3.ExtensionWithMatcher"
RBAC, LIMIT, JWT = (
    f"envoy.extensions.filters.http.{t}"
    for t in ("rbac.v3.RBAC", "local_ratelimit.v3.LocalRateLimit", "jwt_authn.v3.JwtAuthentication")
)
PUBLISHED = {
    "istio.authorization.custom": {MATCHED, RBAC},
    "lateen.security": {MATCHED, RBAC},
    "lateen.rate_limit": {MATCHED, RBAC},
    "lateen.rate_limiting": {MATCHED, RBAC, LIMIT},
    "istio.authentication": {JWT},
    "istio.authorization.deny": {MATCHED, RBAC},
    "istio.authorization.allow": {RBAC},
}
"""Every slot that proxies may have, of earlier versions as well. A row may be added, but none may change."""
POLICY = """
kind: BackendTrafficPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: "", kind: Service, name: productpage}]
  rateLimit: {type: Local, local: {rules: [{limit: {requests: 2, unit: Minute}}]}}
"""


def test_a_slot_takes_what_it_has_always_taken():
    found = {name: {t.partition("/")[2] for t in types} for name, types in slots.TYPES.items()}
    assert found == {name: PUBLISHED[name] for name in found}


def listener(name, types, path):
    discovery = {
        "config_source": {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"},
        "type_urls": [f"type.googleapis.com/{t}" for t in sorted(types)],
    }
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {"virtual_hosts": []},
        "http_filters": [
            {"name": name, "config_discovery": discovery},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"name": f"{name} {len(types)}", "address": address, "filter_chains": [{"filters": filters}]}


def written(directory, resource):
    """The file with a slot's configuration, as istiod sends it."""
    path = directory / f"{resource.name.replace('/', '_')}.json"
    message = {"@type": names.ECDS, **json_format.MessageToDict(resource)}
    path.write_text(json.dumps({"version_info": "1", "resources": [message]}))
    return path


def test_a_listener_of_an_earlier_version_takes_the_limit_of_the_new_one(tmp_path):
    """Envoy asks all listeners that name a slot, whichever version of istiod they are from."""
    sent = next(
        m
        for m in judge.messages(mesh.view(mesh.objects(POLICY), "productpage-v1"))[names.ECDS].values()
        if m.typed_config.TypeName() == LIMIT
    )
    slot, _, at = sent.name.partition("/")
    before = extension_pb2.TypedExtensionConfig(name=f"lateen.rate_limit/{at}", typed_config=several([]))
    paths = {r.name: written(tmp_path, r) for r in (before, sent)}
    listeners = [
        listener(r.name, types, paths[r.name])
        for r, types in ((before, PUBLISHED["lateen.rate_limit"]), (sent, PUBLISHED[slot]))
    ]
    bootstrap, log = tmp_path / "envoy.json", tmp_path / "log"
    node = {"id": "test", "cluster": "test"}
    bootstrap.write_text(json.dumps({"node": node, "static_resources": {"listeners": listeners}}))
    command = [envoy_binary(), "-c", str(bootstrap), "--use-dynamic-base-id", "--concurrency", "1"]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            while "starting workers" not in log.read_text():
                assert process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.02)
        finally:
            process.terminate()
            process.wait(10)
    assert "type URL" not in log.read_text(), log.read_text()[-2000:]
