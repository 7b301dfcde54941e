"""The prerequisites of a control plane: CRDs, permissions and settings."""

from __future__ import annotations

from collections.abc import Sequence

from lateen.api import crds, kinds
from lateen.api.decoding import NETWORK
from lateen.inject import deployment
from lateen.install.control_plane import pilot_env
from lateen.install.objects import NAMESPACE, RBAC, READ, READ_SECRETS, WRITES_ROOTS, bound, meta, source
from lateen.install.operator import Operator
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.wire.revision import Revision


def shared(experimental: bool, network: str = "") -> list[Json]:
    """The objects that all revisions share: the namespace and the custom resource definitions. ``experimental``:
    include the Gateway API's experimental channel; ``network``: the network of the cluster's pods."""
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {
                "istio-injection": "disabled",
                "istio-operator-managed": "Reconcile",
                **({NETWORK: network} if network else {}),
            },
        },
    }
    return [namespace, *crds.crds(experimental)]


def deploys_gateways(spec: Json) -> bool:
    """Whether istiod deploys proxies for the Gateways of the Gateway API."""
    given = pilot_env(spec)
    return all(str(e.get("value", "true")).lower() != "false" for e in given if e.get("name") == deployment.ENABLED)


def is_experimental(spec: Json) -> bool:
    """Whether the Gateway API's experimental channel is enabled."""
    given = pilot_env(spec)
    return any(str(e.get("value")).lower() == "true" for e in given if e.get("name") == crds.EXPERIMENTAL)


def _deploying(reader: str) -> list[Json]:
    """Permissions for deploying proxies: applying and watching three kinds of objects wherever there is a Gateway
    (Services are watched anyway), and two that come and go with parameters; and binding this role where a Gateway
    refers to Secrets, to be able to read them."""
    on_demand = ["get", "create", "patch", "delete"]
    return [
        {"apiGroups": [""], "resources": ["serviceaccounts", "services"], "verbs": ["get", "create", "patch"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": [*READ, "create", "patch"]},
        {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": on_demand},
        {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": on_demand},
        {"apiGroups": [RBAC], "resources": ["rolebindings"], "verbs": ["get", "create", "patch"]},
        {"apiGroups": [RBAC], "resources": ["clusterroles"], "resourceNames": [reader], "verbs": ["bind"]},
    ]


def _issuing(writer: str) -> list[Json]:
    """Permissions for certificates: creating the Certificates that Gateways and Ingresses ask for, writing their
    status, and binding this role to be able to write Secrets in their namespaces. A Certificate blocks the deletion of
    its owner, which takes the right to set the owner's finalizers where the API server enforces that (OpenShift's does;
    admission plugin OwnerReferencesPermissionEnforcement)."""
    return [
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/finalizers"], "verbs": ["update"]},
        {"apiGroups": [kinds.CERT_MANAGER], "resources": ["certificates"], "verbs": ["create", "patch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
        {"apiGroups": [RBAC], "resources": ["rolebindings"], "verbs": ["get", "create", "patch"]},
        {"apiGroups": [RBAC], "resources": ["clusterroles"], "resourceNames": [writer], "verbs": ["bind"]},
    ]


def signers(spec: Json) -> list[str]:
    """The names of the Kubernetes signers that istiod delegates signing to; empty if it signs itself."""
    given = {e["name"]: str(e.get("value") or "") for e in pilot_env(spec)}
    if not given.get("EXTERNAL_CA"):
        return []
    domain = given.get("CERT_SIGNER_DOMAIN")
    return [s for s in (given.get("K8S_SIGNER"), f"{domain}/*" if domain else "") if s]


def _requesting(names: list[str]) -> list[Json]:
    """Permissions for delegated signing: creating CertificateSigningRequests, and approving those for these signers."""
    group = "certificates.k8s.io"
    return [
        {"apiGroups": [group], "resources": ["certificatesigningrequests"], "verbs": ["create", "get", "delete"]},
        {"apiGroups": [group], "resources": ["certificatesigningrequests/approval"], "verbs": ["update"]},
        {"apiGroups": [group], "resources": ["signers"], "resourceNames": names, "verbs": ["approve"]},
    ]


def permissions(revision: Revision, deploys: bool = True, external: Sequence[str] = ()) -> list[Json]:
    """istiod's service account and its permissions; ``deploys``: those for proxies of Gateways; ``external``: the
    signers that it delegates signing to."""
    reader, writer = deployment.reader(revision), deployment.writer(revision)
    rules = [
        {"apiGroups": kinds.groups(), "resources": ["*"], "verbs": READ},
        {"apiGroups": kinds.groups(), "resources": ["*/status", "*/finalizers"], "verbs": ["update", "patch"]},
        *({"apiGroups": [group], "resources": plurals, "verbs": READ} for group, plurals in _watched().items()),
        {
            "apiGroups": ["networking.istio.io"],
            "resources": ["workloadentries"],
            "verbs": ["create", "patch", "delete"],
        },
        {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["gatewayclasses"], "verbs": ["create"]},
        {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["get"]},
        *WRITES_ROOTS,
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["update", "patch"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
            "verbs": [*READ, "patch", "update"],
        },
        *(_deploying(reader) if deploys else ()),
        *_issuing(writer),
        *(_requesting(list(external)) if external else ()),
    ]
    own = [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["istio-ca-secret", "lateen-ca", "lateen-jwks", "lateen-acme"],
            "verbs": ["update"],
        },
        READ_SECRETS,
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [revision.accepted_config_map],
            "verbs": ["update", "patch"],
        },
        {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": [revision.istiod], "verbs": ["get"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "create", "update", "patch"],
        },
    ]
    name = revision.istiod
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(name, revision)},
        *bound("ClusterRole", meta(f"{name}-{NAMESPACE}", revision, None), rules, name),
        *bound("Role", meta(name, revision), own, name),
        *([_unbound(reader, revision, READ)] if deploys else []),
        _unbound(writer, revision, ["get", "create", "update"]),
    ]


def _unbound(name: str, revision: Revision, verbs: list[str]) -> Json:
    """The role that istiod binds in namespaces whose Gateways refer to Secrets, or where certificates are kept."""
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": verbs}]
    return {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": meta(name, revision, None), "rules": rules}


def _watched() -> dict[str, list[str]]:
    """API group -> resources of other projects that istiod watches in all namespaces."""
    out: dict[str, list[str]] = {}
    for kind in kinds.watched():
        if not kind.owned:
            out.setdefault(kind.group, []).append(kind.plural)
    return out


def settings(operator: Operator) -> list[Json]:
    """ConfigMaps with the mesh configuration, the injector's values, and the settings of the installation."""
    spec, revision = operator.spec, operator.revision
    networks = dig(spec, "values", "global", "meshNetworks", default={})
    return [
        _config_map(
            revision.config_map,
            revision,
            {"mesh": yamldoc.dump(spec.get("meshConfig") or {}), "meshNetworks": yamldoc.dump({"networks": networks})},
        ),
        _config_map(revision.injector, revision, _injector(spec)),
        *classes(dig(spec, "values", "gatewayClasses", default={}), revision),
        recorded(operator),
    ]


def classes(given: Json, revision: Revision) -> list[Json]:
    """ConfigMaps with parameters for all Gateways of a class. ``given``: class -> key (``OVERLAYS``) -> what is merged
    over that object."""
    out = []
    for name, overlays in sorted(given.items()):
        made = _config_map(
            f"istio-{revision.name}-gatewayclass-{name}",
            revision,
            {kind: jsons.canonical(overlay).decode() for kind, overlay in sorted((overlays or {}).items())},
        )
        made["metadata"]["labels"] |= {"app": "istiod", deployment.CLASS_DEFAULTS: name}
        out.append(made)
    return out


def recorded(operator: Operator) -> Json:
    """The ConfigMap that records the settings of the installation."""
    return _config_map(operator.revision.installation, operator.revision, record(operator))


def _injector(spec: Json) -> dict[str, str]:
    """The settings that istiod and kube-inject use, with Istio's keys."""
    values = {k: v for k, v in jsons.copy(spec.get("values") or {}).items() if k != "gatewayClasses"}
    webhook = dict(values.get("sidecarInjectorWebhook") or {})
    names = ("templates", "defaultTemplates", "aliases", "neverInjectSelector", "alwaysInjectSelector")
    policy = dig(values, "global", "proxy", "autoInject", default="enabled")
    config = {"policy": policy} | {k: webhook.pop(k) for k in (*names, "injectedAnnotations") if k in webhook}
    return {"config": yamldoc.dump(config), "values": jsons.canonical(_for_istioctl(values, *source(spec))).decode()}


def _for_istioctl(values: Json, hub: str, tag: str) -> Json:
    """Add the values that istioctl expects (analyze, injector list); the user's nulls are kept."""
    out = filled(values, {"global": {"proxy": {"image": "proxyv2"}}})
    out = filled(out, {"sidecarInjectorWebhook": {"enableNamespacesByDefault": False, "rewriteAppHTTPProbe": True}})
    out["global"] |= {"hub": hub, "tag": tag}
    return out


def filled(values: Json, defaults: Json) -> Json:
    """``values`` completed from ``defaults``."""
    out = dict(values)
    for key, default in defaults.items():
        given = out.get(key)
        out[key] = filled(given or {}, default) if isinstance(default, dict) else default if given is None else given
    return out


def _config_map(name: str, revision: Revision, data: dict[str, str]) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(name, revision), "data": data}


def record(operator: Operator) -> dict[str, str]:
    """The settings that ``upgrade`` starts from."""
    return {
        "profile": operator.profile,
        "overlays": yamldoc.dump(operator.overlays),
        "settings": yamldoc.dump(operator.settings),
    }
