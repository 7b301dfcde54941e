"""Golden pairs: objects in, Envoy resources out, each accepted by the real Envoy; and no field without an effect.

``golden/NAME.yaml`` are the objects, ``golden/NAME.json`` what they change in the resources of three proxies (by proxy,
type and name; null where they remove one). LATEEN_GOLDEN=write writes the second.
"""

import base64
import copy
import json
import os
from dataclasses import replace
from pathlib import Path

import judge
import meshes as mesh
import modules
import pytest
from google.protobuf import json_format
from test_validate import paths

from lateen.api import kinds, validate
from lateen.api import objects as o
from lateen.api.config import decode
from lateen.api.effective import reason
from lateen.api.mesh import ExtensionProvider
from lateen.kit import yamldoc
from lateen.mesh.authentication import KeySource
from lateen.mesh.model import Mesh
from lateen.mesh.observability import Reporting
from lateen.mesh.plugins import NO_MODULE, Module
from lateen.mesh.settings import Cluster, MeshConfig, Trust
from lateen.mesh.views import Views
from lateen.wire import names
from lateen.xds.generate import generate
from lateen.xds.patches.apply import apply

FOLDER = Path(__file__).parent / "golden"
NAMES = sorted(p.stem for p in FOLDER.glob("*.yaml"))
PROXIES = (("default", "productpage-v1"), ("default", "reviews-v1"), ("istio-system", "ingress"))
METADATA = {"ISTIO_VERSION": "1.32.0", "COLOR": "red", **mesh.AGENT}
PLACES = {"productpage-v1": "west/a", "reviews-v1": "west/a", "reviews-v2": "east/b", "reviews-v3": "east/c"}
PROVIDER = {"name": "ext", "envoyExtAuthzHttp": {"service": "ratings.default.svc.cluster.local", "port": 9080}}
RATINGS = {"service": "ratings.default.svc.cluster.local", "port": 9080}
REPORTS = [
    {"name": "file", "envoyFileAccessLog": {"path": "/dev/stderr", "logFormat": {"text": "%PROTOCOL%"}}},
    {"name": "json", "envoyFileAccessLog": {"logFormat": {"labels": {"id": "%REQ(X-REQUEST-ID)%", "n": {"a": 1}}}}},
    {"name": "otel-log", "envoyOtelAls": {**RATINGS, "logFormat": {"labels": {"code": "%RESPONSE_CODE%"}}}},
    {"name": "http-log", "envoyHttpAls": {**RATINGS, "additionalRequestHeadersToLog": ["x-id"]}},
    {"name": "tcp-log", "envoyTcpAls": {**RATINGS, "logName": "connections"}},
    {"name": "nowhere", "envoyOtelAls": {"service": "collector.nowhere.example", "port": 4317}},
    {"name": "zipkin", "zipkin": {**RATINGS, "maxTagLength": 64}},
    {"name": "zipkin-http", "zipkin": {**RATINGS, "path": "/v2", "headers": [{"name": "key", "envName": "KEY"}]}},
    {"name": "otel", "opentelemetry": {**RATINGS, "resourceDetectors": {"environment": {}}}},
    {
        "name": "otel-http",
        "opentelemetry": {
            **RATINGS,
            "http": {"path": "/v1/traces", "timeout": "3s", "headers": [{"name": "a", "value": "100%"}]},
        },
    },
    {"name": "datadog", "datadog": RATINGS},
    {"name": "skywalking", "skywalking": {**RATINGS, "accessToken": "t"}},
]
KEY = {
    "kty": "EC",
    "crv": "P-256",
    "x": "G4hxwft6VGZXmsxJr0HvZtxtJ3aeEosscpH_6KXKuBk",
    "y": "C5X24O64HlpedM65l7LPti3bK-BrlrDrYgVlt0hAVRo",
}
TOKEN_KEYS = {
    KeySource("https://keys.example/jwks", False): json.dumps({"keys": [{**KEY, "kid": "keys"}]}),
    KeySource("https://keys.examplex/jwks", False): json.dumps({"keys": [{**KEY, "kid": "others"}]}),
    KeySource("https://old.example/jwks", False): json.dumps({"keys": [{**KEY, "kid": "old"}]}),
    KeySource("https://discovered.example/.well-known/openid-configuration", True): json.dumps(
        {"keys": [{**KEY, "kid": "discovered"}]}
    ),
    KeySource("https://unreachable.example/jwks", False): "",
    **{
        KeySource(f"https://accounts.test{x}/.well-known/openid-configuration", True, endpoints=True): json.dumps(
            {
                "authorization_endpoint": f"https://accounts.test/{x}authorize",
                "token_endpoint": f"https://tokens.accounts.test/{x}token",
                "end_session_endpoint": "https://accounts.test/logout",
            }
        )
        for x in ("", "x")
    },
}
"""As if istiod had fetched them."""
STAMP = Module("stamp", modules.stamping())
MODULES = {
    ("oci://registry.example/stamp:1.0", "1" * 64, "account", True): STAMP,
    ("https://modules.example/stamp.wasm", "", "", False): STAMP,
    ("registry.example/closing", "", "", True): Module("closing", modules.closing()),
    ("https://unreachable.example/stamp.wasm", "", "", False): NO_MODULE,
}
"""(URL, checksum, Secret, whether it is fetched again with each change) -> the module."""
OPAQUE = {
    ("default", "clients"): {"alice": "key-of-alice", "bob": "key-of-bob"},
    ("default", "users"): {".htpasswd": "alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="},
    ("default", "client"): {"client-secret": "of-the-client"},
    ("istio-system", "lateen-oidc"): {"hmac-secret": "of-all-cookies"},
    ("istio-system", "lateen-acme"): {
        "http.token-of-an-order": '{"host": "shop.test", "proof": "token-of-an-order.me"}'
    },
}
CONFIG = MeshConfig(
    # What rules do to clusters shall be seen at a gateway that does not call them, too.
    cluster=Cluster(filtered=False),
    reporting=Reporting("/dev/stdout", providers=tuple(decode(ExtensionProvider, p) for p in REPORTS)),
    trust=Trust(providers=(decode(ExtensionProvider, PROVIDER),)),
)


@pytest.fixture(scope="session")
def pem():
    return judge.certificates()


def world(documents, pem, config=CONFIG):
    out = mesh.objects("", config)
    pods = {k: replace(p, locality=PLACES.get(p.name, "")) for k, p in out.pods.items()}
    out = out.replaced(kinds.POD, pods)
    known = [("istio-system", n) for n in ("sds", "sds2", "client-credential")] + [("default", "of-sidecar")]
    for namespace, name in known:
        found = o.Credential(namespace, name, pem["cert"], pem["key"], pem["ca"], pem["crl"])
        out = out.put(kinds.SECRET, (namespace, name), found)
    shown = json.dumps({"chain": pem["cert"], "key": pem["key"]})
    opaque = {k: v | ({"tls.shop.test": shown} if k[1] == "lateen-acme" else {}) for k, v in OPAQUE.items()}
    for (namespace, name), entries in opaque.items():
        out = out.put(kinds.SECRET, (namespace, name), o.Credential(namespace, name, entries=tuple(entries.items())))
    out = replace(out, token_keys=TOKEN_KEYS)
    out = out.put(kinds.SECRET, ("istio-system", "other-ca"), o.Credential("istio-system", "other-ca", ca=pem["other"]))
    for i, doc in enumerate(documents):
        out = mesh.add(out, doc, i)
    maps = dict.fromkeys(out.of(kinds.CONFIG_MAP), pem["other"])
    wanted = {s: (s.url, s.sha256, s.secret[1], bool(s.version)) for s in Mesh(out).module_sources()}
    out = replace(out, modules={s: MODULES[key] for s, key in wanted.items() if key in MODULES})
    return out.replaced(kinds.CONFIG_MAP, maps)


def resources(objects):
    """Proxy -> type -> name -> resource."""
    views = Views(Mesh(objects))
    out = {}
    for key in PROXIES:
        kind = "router" if key[1] == "ingress" else "sidecar"
        view = views.of(objects.pods[key], kind, METADATA)
        out[key[1]] = apply(generate(view), view.patches, kind == "router").sets
    return out


def flat(found):
    return {
        (proxy, names.SHORT[t], n): r
        for proxy, types in found.items()
        for t, ss in types.items()
        for s in ss
        for n, r in s.resources.items()
    }


def documents(name):
    return list(yamldoc.objects((FOLDER / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("name", NAMES)
def test_goldens_are_unchanged_and_envoy_accepts_them(name, pem, tmp_path):
    docs = documents(name)
    for doc in docs:
        assert validate.problems({"apiVersion": mesh.kind_of(doc).api_version, **doc}) == []
    made = resources(world(docs, pem))
    plain, got = flat(resources(world([], pem))), flat(made)
    out: dict = {}
    for key in sorted(plain.keys() | got.keys()):
        old, new = plain.get(key), got.get(key)
        if (old and old.version) != (new and new.version):
            proxy, short, n = key
            message = judge.message(short, new) if new else None
            out.setdefault(proxy, {}).setdefault(short, {})[n] = (
                json_format.MessageToDict(message, preserving_proto_field_name=True) if message else None
            )
    text = json.dumps(_without_keys(out), indent=1, sort_keys=True)
    file = FOLDER / f"{name}.json"
    if os.environ.get("LATEEN_GOLDEN") == "write":
        file.write_text(text + "\n")
    assert json.loads(file.read_text()) == json.loads(text)
    for proxy, sets in made.items():
        directory = tmp_path / proxy
        directory.mkdir()
        decoded = judge.decoded(sets)
        assert judge.waited_for(decoded) == set()
        judge.validate_messages(decoded, directory, pem)


PEM = {"inline_string": "-----BEGIN", "inline_bytes": base64.b64encode(b"-----BEGIN C").decode()[:14]}
"""Where certificates and keys stand, and how they begin."""


def _without_keys(node):
    """Certificates are made for each run; the log of each connection says the same everywhere."""
    if isinstance(node, dict):
        return {
            k: "…" if (k in PEM and str(v).startswith(PEM[k])) else _without_keys(v)
            for k, v in node.items()
            if k != "access_log"
        }
    return [_without_keys(v) for v in node] if isinstance(node, list) else node


def leaves(node, path=()):
    if isinstance(node, dict) and node and path[-1:] != ("value",):
        for k, v in node.items():
            yield from leaves(v, (*path, k))
    elif isinstance(node, list) and any(isinstance(v, dict) for v in node):
        for i, v in enumerate(node):
            yield from leaves(v, (*path, i))
    else:
        yield path


def without(spec, path):
    out = copy.deepcopy(spec)
    at = out
    for part in path[:-1]:
        at = at[part]
    del at[path[-1]]
    return out


def changed(spec, path):
    """With another value, where the field must be there."""
    out = copy.deepcopy(spec)
    at = out
    for part in path[:-1]:
        at = at[part]
    old = at[path[-1]]
    at[path[-1]] = (
        not old
        if isinstance(old, bool)
        else old + 1
        if isinstance(old, int | float)
        else f"{old}x"
        if isinstance(old, str)
        else [f"{v}x" for v in old]
    )
    return out


def general(path):
    out = ""
    for part in path:
        out += "[]" if isinstance(part, int) else f".{part}"
    return out.lstrip(".")


def missed(name, pem):
    """(kind, field) -> whether the proxies or the validation notice where it is taken away or changed.

    A translator that crashes on what the validation accepts is a failure of the test, not a field that is noticed.
    """
    docs = documents(name)
    before = {k: r.version for k, r in flat(resources(world(docs, pem))).items()}
    out: dict = {}
    for i, doc in enumerate(docs):
        kind = mesh.kind_of(doc)
        for path in leaves(doc["spec"]) if (kind.owned or kind.spec) and kind not in OF_ISTIOD else ():
            key = (str(kind.id), _normal(general(path)))
            if reason(kind, general(path)) is not None:
                continue
            for change in (without, changed):
                if out.get(key):
                    break
                mutant = copy.deepcopy(docs)
                mutant[i]["spec"] = change(doc["spec"], path)
                mutant[i]["metadata"]["mutation"] = f"{path} {change.__name__}"
                obj = {"apiVersion": kind.api_version, **mutant[i]}
                refused = bool(validate.problems(obj))
                if change is without and refused:
                    out[key] = True
                    continue
                try:
                    after = {k: r.version for k, r in flat(resources(world(mutant, pem))).items()}
                except (ValueError, TypeError, KeyError, AssertionError):
                    if not refused:
                        raise
                    out.setdefault(key, False)
                    continue
                out[key] = out.get(key, False) or after != before
    return out


OF_ISTIOD = (kinds.ISSUER, kinds.CLUSTER_ISSUER, kinds.CERTIFICATE)
"""Their fields say what istiod orders; proxies get the Secrets (test_acme, test_issuing)."""
CONNECTIONS = ("TLSRoute", "TCPRoute", "UDPRoute")
_SECRETS = ("apiKeyAuth.credentialRefs[]", "basicAuth.users", "oidc.clientSecret")
_ASKED = tuple(f"extAuth.{of}.{at}" for of in ("grpc", "http") for at in ("backendRef", "backendRefs[]"))
NEUTRAL = {
    **{
        ("SecurityPolicy", f"{at}.{field}"): "only one kind, and the policy's namespace, are admitted"
        for at in (*_SECRETS, *_ASKED)
        for field in ("group", "kind", "namespace")
    },
    ("VirtualService", "gateways"): "mesh is where a rule without gateways applies",
    ("VirtualService", "http[].match[].gateways"): "as above",
    ("VirtualService", "tls[].match[].gateways"): "as above",
    ("VirtualService", "tcp[].match[].gateways"): "as above",
    (
        "Gateway.gateway.networking.k8s.io",
        "listeners[].tls.mode",
    ): "Terminate is the default, and the only mode of HTTPS",
    **{(route, "rules[].name"): "of connections, nothing tells which rule they took" for route in CONNECTIONS},
    ("RequestAuthentication", "jwtRules[].timeout"): "it limits what istiod does, not proxies",
}


@pytest.mark.timeout(1200)  # every field of every golden pair, each translated anew
def test_removing_any_field_changes_the_result(pem):
    seen: dict = {}
    for name in NAMES:
        for key, hit in missed(name, pem).items():
            seen[key] = seen.get(key, False) or hit
    idle = sorted(f"{kind}: {path}" for (kind, path), hit in seen.items() if not hit and (kind, path) not in NEUTRAL)
    assert idle == [], "\n".join(idle)


REFUSED = {
    ("VirtualService", "http[].fault.delay.exponentialDelay"),
    ("VirtualService", "http[].fault.abort.http2Error"),
    ("BackendTrafficPolicy", "rateLimit.type"),  # says what must be there
    ("BackendTrafficPolicy", "rateLimit.global.rules[].clientSelectors[].sourceCIDR.type"),
} | {
    ("Sidecar", f"ingress[].tls.{field}")
    for field in (
        "subjectAltNames",
        "verifyCertificateSpki",
        "verifyCertificateHash",
        "tlsCertificates[].serverCertificate",
        "tlsCertificates[].privateKey",
        "tlsCertificates[].caCertificates",
    )
}
"""The validation has an error for them, as Istio's."""


def _normal(path):
    """Traffic policies are read by the same code at every level."""
    for at in ("subsets[].trafficPolicy.portLevelSettings[]", "trafficPolicy.portLevelSettings[]"):
        if path.startswith(f"{at}.") and not path.startswith(f"{at}.port"):
            return "trafficPolicy" + path.removeprefix(at)
    return path.removeprefix("subsets[].") if path.startswith("subsets[].trafficPolicy") else path


@pytest.mark.parametrize(
    "row",
    [k for k in kinds.owned() if not k.idle and k not in (kinds.PROXY_CONFIG, kinds.WORKLOAD_GROUP, *OF_ISTIOD)],
    ids=lambda k: k.kind,
)
def test_every_field_is_in_a_golden_or_has_a_reason(row):
    kind = str(row.id)
    used = set()
    for name in NAMES:
        for doc in documents(name):
            if mesh.kind_of(doc) is row:
                for path in leaves(doc["spec"]):
                    for end in range(1, len(path) + 1):
                        used.add(_normal(general(path[:end])))
    every = {p for p in paths(row.spec) if reason(row, p) is None}
    leafs = {p for p in every if not any(q.startswith((f"{p}.", f"{p}[]", f"{p}{{}}")) for q in every)}
    texts = {p.rpartition(".")[0] for p in used if p.endswith((".exact", ".prefix", ".regex"))}
    unknown = {
        p
        for p in leafs
        if _normal(p) not in used
        and (kind, p) not in REFUSED
        and p not in ("endpoints[].network", "network")  # of several networks: test_clusters
        and not (row is kinds.KUBERNETES_GATEWAY and p.startswith("infrastructure."))  # of deployments: test_deployment
        and "{}" not in p
        and reason(row, f"{p}.x") is None
        and reason(row, f"{p}[].x") is None
        and p.rpartition(".")[0] not in texts  # one of the three is enough: they are one type
    }
    assert sorted(unknown) == []
