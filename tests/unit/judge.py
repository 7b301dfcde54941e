"""Resources of a view as a static configuration, validated by the real Envoy."""

import json
import subprocess
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.http.composite.v3 import composite_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2 as _  # noqa: F401
from envoy.extensions.transport_sockets.proxy_protocol.v3 import upstream_proxy_protocol_pb2 as proxy_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format

from lateen.agent.certificates import Trusted, write_secrets
from lateen.cluster.kubelet.images import envoy_binary
from lateen.kit import certs, times
from lateen.wire import names
from lateen.xds.generate import generate

KINDS = {
    names.CDS: cluster_pb2.Cluster,
    names.EDS: endpoint_pb2.ClusterLoadAssignment,
    names.LDS: listener_pb2.Listener,
    names.RDS: route_pb2.RouteConfiguration,
    names.SDS: secret_pb2.Secret,
    names.ECDS: extension_pb2.TypedExtensionConfig,
    names.VHDS: route_components_pb2.VirtualHost,
}


def messages(view):
    """Type -> name -> message."""
    return decoded(generate(view))


def decoded(all_sets):
    out = {}
    for type_url, sets in all_sets.items():
        found = {}
        for s in sets:
            for r in s.resources.values():
                message = KINDS[type_url]()
                message.ParseFromString(discovery_pb2.Resource.FromString(r.wrapped).resource.value)
                found[r.name] = message
        out[type_url] = found
    return out


def inside(slot):
    """The filters in a slot that may have several."""
    whole, action = extension_matcher_pb2.ExtensionWithMatcher(), composite_pb2.ExecuteFilterAction()
    if not slot.typed_config.Unpack(whole):
        return []
    assert whole.xds_matcher.on_no_match.action.typed_config.Unpack(action)
    return list(action.filter_chain.typed_config)


def waited_for(found):
    """What an Envoy would request and wait for without end: resources that nobody sends, and endpoints of two clusters
    (Envoy does not request again what it has)."""
    asked = []

    def look(node):
        if isinstance(node, dict):
            if "eds_cluster_config" in node:
                asked.append((names.EDS, node["eds_cluster_config"].get("service_name") or node["name"]))
            if "ads" in node.get("sds_config", {}) and not node["name"].startswith("kubernetes://"):
                asked.append((names.SDS, node["name"]))
            if "route_config_name" in node:
                asked.append((names.RDS, node["route_config_name"]))
            for child in node.values():
                look(child)
        elif isinstance(node, list):
            for child in node:
                look(child)

    for kind in (names.CDS, names.LDS):
        for message in found.get(kind, {}).values():
            look(json_format.MessageToDict(message, preserving_proto_field_name=True))
    endpoints = [name for kind, name in asked if kind == names.EDS]
    return {(kind, name) for kind, name in asked if name not in found.get(kind, {})} | {
        (names.EDS, name) for name in endpoints if endpoints.count(name) > 1
    }


def routes(found, name):
    """A route configuration with its virtual hosts inside."""
    out = route_pb2.RouteConfiguration()
    out.CopyFrom(found[names.RDS][name])
    out.ClearField("vhds")
    own = [h for n, h in found.get(names.VHDS, {}).items() if n.startswith(f"{name}/")]
    rest = list(out.virtual_hosts)
    del out.virtual_hosts[:]
    out.virtual_hosts.extend([*own, *rest])
    return out


def _inline(socket, secrets):
    """Secrets that come by SDS stand in the context itself; those that nobody sends are left out."""
    if socket.name == "envoy.transport_sockets.upstream_proxy_protocol":
        outer = proxy_pb2.ProxyProtocolUpstreamTransport()
        socket.typed_config.Unpack(outer)
        _inline(outer.transport_socket, secrets)
        socket.typed_config.Pack(outer)
    if socket.name != "envoy.transport_sockets.tls":
        return
    upstream = socket.typed_config.Is(tls_pb2.UpstreamTlsContext.DESCRIPTOR)
    context = tls_pb2.UpstreamTlsContext() if upstream else tls_pb2.DownstreamTlsContext()
    socket.typed_config.Unpack(context)
    common = context.common_tls_context
    for sds in [s for s in common.tls_certificate_sds_secret_configs if s.sds_config.HasField("ads")]:
        if sds.name in secrets:
            common.tls_certificates.append(secrets[sds.name].tls_certificate)
            common.tls_certificates[-1].ClearField("watched_directory")
        common.tls_certificate_sds_secret_configs.remove(sds)
    combined = common.combined_validation_context
    if combined.validation_context_sds_secret_config.sds_config.HasField("ads"):
        name = combined.validation_context_sds_secret_config.name
        if name in secrets:
            ca = secrets[name].validation_context
            ca.ClearField("watched_directory")
            ca.MergeFrom(combined.default_validation_context)
            common.validation_context.CopyFrom(ca)
        else:
            common.ClearField("combined_validation_context")
    socket.typed_config.Pack(context)


def invariants(found):
    """What Envoy refuses, and what static validation cannot see: spellings of hosts that two virtual hosts have, chains
    that match the same, routes to route configurations that are not there."""
    for name in found.get(names.RDS, {}):
        seen = set()
        for host in routes(found, name).virtual_hosts:
            for domain in host.domains:
                assert domain not in seen, f"{name}: two hosts have {domain}"
                seen.add(domain)
    for listener in found[names.LDS].values():
        matches = [c.filter_chain_match.SerializeToString(deterministic=True) for c in listener.filter_chains]
        assert len(set(matches)) == len(matches), f"{listener.name}: two chains match the same"
        for chain in (*listener.filter_chains, listener.default_filter_chain):
            for f in chain.filters:
                if f.HasField("config_discovery"):
                    held = found[names.ECDS][f.name].typed_config.type_url
                    assert held in f.config_discovery.type_urls, f"{listener.name}: {f.name} holds {held}"
                if f.name == "envoy.filters.network.http_connection_manager":
                    hcm = http_connection_manager_pb2.HttpConnectionManager()
                    f.typed_config.Unpack(hcm)
                    for g in hcm.http_filters:
                        if g.HasField("config_discovery"):
                            held = found[names.ECDS][g.name].typed_config.type_url
                            assert held in g.config_discovery.type_urls, f"{listener.name}: {g.name} holds {held}"
                    if hcm.HasField("rds"):
                        assert hcm.rds.route_config_name in found[names.RDS], f"{listener.name}: no {hcm.rds}"


def validate(view, directory):
    """Raises AssertionError with Envoy's own words."""
    validate_messages(messages(view), directory)


def message(short, resource):
    """A resource's message."""
    type_url = next(t for t, s in names.SHORT.items() if s == short)
    out = KINDS[type_url]()
    out.ParseFromString(discovery_pb2.Resource.FromString(resource.wrapped).resource.value)
    return out


def certificates():
    """PEM texts: cert, key, ca, another ca, crl."""
    ca, other = certs.authority("test", times.now()), certs.authority("other", times.now())
    leaf = certs.issue(ca, ["spiffe://cluster.local/ns/a/sa/b"], times.now(), timedelta(hours=1))
    authority = x509.load_pem_x509_certificate(ca.certificate.encode())
    key = serialization.load_pem_private_key(ca.key.encode(), None)
    crl = x509.CertificateRevocationListBuilder().issuer_name(authority.subject).last_update(times.now())
    signed = crl.next_update(times.now() + timedelta(hours=1)).sign(key, hashes.SHA256())
    return {
        "cert": leaf.certificate,
        "key": leaf.key,
        "ca": ca.certificate,
        "other": other.certificate,
        "crl": signed.public_bytes(serialization.Encoding.PEM).decode(),
    }


FILES = {"privateKey": "key", "trustedCa": "ca", "crl": "crl", "certificateChain": "cert"}


def _with_files(node, directory, pem):
    """Files that pods would have."""
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key in FILES and isinstance(child, dict) and str(directory) not in child.get("filename", str(directory)):
            kind = FILES[key]
            own = directory / f"{kind}.pem"
            own.write_text(pem[kind] + (pem["ca"] if kind == "crl" else ""))
            child["filename"] = str(own)
        else:
            _with_files(child, directory, pem)


def bootstrap(found, directory, pem=None, change=None):
    """A file with messages (as ``decoded`` gives them) as static configuration; ``pem``: what to put into files that
    they name; ``change`` may alter the whole before it is written."""
    out = bootstrap_pb2.Bootstrap()
    for c in found[names.CDS].values():
        if c.type == cluster_pb2.Cluster.EDS:
            c.type = cluster_pb2.Cluster.STATIC
            c.ClearField("eds_cluster_config")
            c.load_assignment.CopyFrom(
                found[names.EDS].get(c.name, endpoint_pb2.ClusterLoadAssignment(cluster_name=c.name))
            )
        _inline(c.transport_socket, found.get(names.SDS, {}))
        out.static_resources.clusters.append(c)
    for listener in found[names.LDS].values():
        for chain in (*listener.filter_chains, listener.default_filter_chain):
            _inline(chain.transport_socket, found.get(names.SDS, {}))
            for f in chain.filters:
                if f.HasField("config_discovery"):
                    f.typed_config.CopyFrom(found[names.ECDS][f.name].typed_config)
                if f.name == "envoy.filters.network.http_connection_manager":
                    hcm = http_connection_manager_pb2.HttpConnectionManager()
                    f.typed_config.Unpack(hcm)
                    for g in hcm.http_filters:
                        if g.HasField("config_discovery"):
                            g.typed_config.CopyFrom(found[names.ECDS][g.name].typed_config)
                    if hcm.HasField("rds"):
                        hcm.route_config.CopyFrom(routes(found, hcm.rds.route_config_name))
                    f.typed_config.Pack(hcm)
        out.static_resources.listeners.append(listener)
    out.node.id, out.node.cluster = "test", "test"
    # as the bootstrap of proxies
    out.layered_runtime.layers.add(name="static").static_layer.update({"re2.max_program_size.error_level": 32768})
    if change:
        change(out)
    ca = certs.authority("test", times.now())
    leaf = certs.issue(ca, ["spiffe://cluster.local/ns/a/sa/b"], times.now(), timedelta(hours=1))
    write_secrets(directory, leaf.certificate, leaf.key, Trusted(ca.certificate))
    made = json_format.MessageToDict(out)
    if pem:
        _with_files(made, directory, pem)
    path = directory / "envoy.json"
    path.write_text(json.dumps(made).replace("/etc/istio/proxy", str(directory)))
    return path


def validate_messages(found, directory, pem=None):
    """As ``validate``, of messages as ``decoded`` gives them."""
    path = bootstrap(found, directory, pem)
    done = subprocess.run(
        [envoy_binary(), "--mode", "validate", "-c", str(path), "--log-level", "error"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-500:]
