"""Which fields of an IstioOperator have an effect, which of them are refused, and why the others have none."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from lateen.api.config import Config, fields, unwrap
from lateen.api.crds import EXPERIMENTAL
from lateen.api.effective import general, leaves
from lateen.inject import settings as injection
from lateen.inject.deployment import ENABLED as DEPLOYS_GATEWAYS
from lateen.install import absent, features
from lateen.install.k8s import SERVICE
from lateen.install.objects import NAMESPACE
from lateen.install.options import COMPONENTS, Operator
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig

VARIABLES = (
    "BLOCKED_CIDRS_IN_JWKS_URIS",
    "CERT_SIGNER_DOMAIN",
    "CITADEL_ENABLE_JITTER_FOR_ROOT_CERT_ROTATOR",
    "CITADEL_SELF_SIGNED_CA_CERT_TTL",
    "CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL",
    "CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE",
    "DEFAULT_WORKLOAD_CERT_TTL",
    "ENABLE_NATIVE_SIDECARS",
    "EXTERNAL_CA",
    "EXTERNAL_ISTIOD",
    EXPERIMENTAL,
    "K8S_SIGNER",
    "LATEEN_ROOT_ANNOUNCED_FOR",
    "MAX_WORKLOAD_CERT_TTL",
    DEPLOYS_GATEWAYS,
    "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG",
    "PILOT_HTTP10",
    "PILOT_INSECURE_MULTICLUSTER_KUBECONFIG_OPTIONS",
    "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL",
    "PILOT_SCOPE_GATEWAY_TO_NAMESPACE",
    "PROXY_IMAGE",
    "TRUST_DOMAIN",
    "WASM_INSECURE_REGISTRIES",
)
"""istiod's environment variables that have an effect."""
OF_PLUGIN = (
    "CNI_NET_DIR",
    "EXCLUDE_NAMESPACES",
    "KUBERNETES_NODE_NAME",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "MOUNTED_CNI_BIN_DIR",
    "MOUNTED_CNI_NET_DIR",
    "REPAIR_ENABLED",
)
"""Those of the CNI plugin's daemon."""
LISTS = {"pilot": VARIABLES, "cni": OF_PLUGIN}
"""Component -> the variables of its ``env``."""

_POD = (
    "affinity.**",
    "deploymentAnnotations{}",
    "imagePullPolicy",
    "nodeSelector{}",
    "podAnnotations{}",
    "priorityClassName",
    "readinessProbe.**",
    "resources{}",
    "securityContext{}",
    "tolerations",
    "topologySpreadConstraints",
    "volumeMounts",
    "volumes",
)
"""Of ``k8s``: what has an effect on each component with pods."""
_OVERLAYS = {"k8s.overlays[].**": "patches of the component's objects; one that fits no object is refused"}
_IMAGE = {"hub": "of this component's image", "tag": "of this component's image"}
_DEPLOYMENT = {
    **dict.fromkeys(_POD, ""),
    "hpaSpec{}": "a HorizontalPodAutoscaler; `metrics` default to 80 % of the requested CPU",
    "podDisruptionBudget{}": "`selector` defaults to the Deployment's",
    "replicaCount": "",
    "serviceAnnotations{}": "",
    "strategy{}": "",
    "service.ports[].**": "",
    "service.selector{}": "beside the labels of the pods",
    "service.sessionAffinityConfig.**": "",
    **{f"service.{name}": "" for name in SERVICE if name != "sessionAffinityConfig"},
}
_GATEWAY = {
    "name": "",
    "enabled": "",
    "namespace": "",
    "label{}": "labels and selector of its pods",
    **_IMAGE,
    **_OVERLAYS,
    "k8s.env[].**": "",
    **{f"k8s.{name}": note for name, note in _DEPLOYMENT.items()},
    "k8s.service.ports[].**": "instead of the default ones; `targetPort` defaults to `port`",
}


def _declared(kind: type[Config], at: str) -> Iterator[str]:
    """The paths of a type of values; free maps with what is below them."""
    for name, declared in fields(kind).items():
        inner = unwrap(declared)
        if isinstance(inner, type) and issubclass(inner, Config):
            yield from _declared(inner, f"{at}.{name}")
        else:
            yield f"{at}.{name}.**" if typing.get_origin(inner) is dict else f"{at}.{name}"


GATEWAYS = ("gateways.istio-ingressgateway", "gateways.istio-egressgateway")
_LISTED = ("values.pilot.env.**", "values.cni.env.**")
"""Maps of variables, of which only some have an effect."""
EFFECTIVE: dict[str, str] = {
    "hub": "registry and path of the images",
    "tag": "the images' tag",
    "profile": "",
    "revision": "a control plane alongside others, see *Revisions*",
    "components.base.enabled": "whether definitions are installed",
    "components.base.k8s.overlays[].**": _OVERLAYS["k8s.overlays[].**"],
    "components.pilot.enabled": "",
    **{f"components.pilot.{name}": note for name, note in (_IMAGE | _OVERLAYS).items()},
    "components.cni.enabled": "the CNI plugin, instead of istio-init",
    "components.cni.namespace": "",
    **{f"components.cni.{name}": note for name, note in (_IMAGE | _OVERLAYS).items()},
    "components.cni.k8s.env[].**": f"only {', '.join(OF_PLUGIN)}",
    **{f"components.cni.k8s.{name}": "" for name in _POD},
    "components.istiodRemote.enabled": "the control plane is in another cluster, see *Several clusters*",
    "components.istiodRemote.k8s.overlays[].**": _OVERLAYS["k8s.overlays[].**"],
    "values.istiodRemote.injectionPath": "path of the webhook; by default it contains the cluster's name and network",
    "values.istiodRemote.injectionURL": "URL of the webhook, instead of the Service `istiod`",
    "values.global.remotePilotAddress": "the address of the other cluster's control plane",
    "values.global.externalIstiod": "also serve the proxies of other clusters",
    "values.cni.cniBinDir": "",
    "values.cni.cniConfDir": "",
    "values.cni.excludeNamespaces[]": "",
    "values.cni.repair.enabled": "delete pods that have started without redirection",
    "components.pilot.k8s.env[].**": f"only {', '.join(VARIABLES)}",
    **{f"components.pilot.k8s.{name}": note for name, note in _DEPLOYMENT.items()},
    **{f"components.{k}[].{f}": note for k in ("ingressGateways", "egressGateways") for f, note in _GATEWAY.items()},
    **{f"values.{component}.env.{name}": "" for component, names in LISTS.items() for name in names},
    **{
        path: ""
        for name, kind in COMPONENTS.items()
        for path in _declared(kind, f"values.{name}")
        if path not in _LISTED
    },
    "values.global.defaultPodDisruptionBudget.enabled": "of istiod and of each gateway",
    "values.global.networkPolicy.enabled": "NetworkPolicies for the ports of istiod and of gateways",
    "values.global.priorityClassName": "of istiod's pods and of gateways",
    **{f"values.{name}": "" for name in injection.EFFECTIVE},
    "values.gatewayClasses.**": "parameters for all Gateways of a class",
    "values.global.meshNetworks.**": "MeshNetworks: the networks of clusters, and their gateways",
}
"""Field -> remark."""

_AMBIENT = "the ambient mode is not there"
_PODLESS = "it has no pods and no Service; only `k8s.overlays`"
_EVERYWHERE = "the plugin runs on every node, and has no Service"
_OF_NODES = ("hpaSpec", "podDisruptionBudget", "replicaCount", "service", "serviceAnnotations", "strategy")
_WHERE = {"gateways.istio-ingressgateway": "ingressGateways", "gateways.istio-egressgateway": "egressGateways"}
_OF_GATEWAYS = {
    "enabled": "use `components.{0}[].enabled`",
    "name": "use `components.{0}[].name`",
    "labels": "use `components.{0}[].label`",
    "configVolumes": "use `components.{0}[].k8s.volumes` and `volumeMounts`",
    "secretVolumes": "use `components.{0}[].k8s.volumes` and `volumeMounts`",
    "memory": "an autoscaler goes by the CPU; use `components.{0}[].k8s.hpaSpec` for another metric",
    "podAntiAffinityLabelSelector": "use `components.{0}[].k8s.affinity`",
    "podAntiAffinityTermLabelSelector": "use `components.{0}[].k8s.affinity`",
    "ingressPorts": "use `components.{0}[].k8s.service.ports`",
    "additionalContainers": "use `components.{0}[].k8s.overlays`",
    "customService": "use `components.{0}[].k8s.overlays`",
    "injectionTemplate": "its pods have the containers of the installation; use `components.{0}[].k8s.overlays`",
    "runAsRoot": "gateways run without privileges; use `components.{0}[].k8s.securityContext`",
}
_REMOTE = "use `values.istiodRemote`"
_VALUES_ELSEWHERE = {
    "base.validateGateway": "istiod validates every kind",
    "cni.enabled": "use `components.cni.enabled`",
    "cni.repair": "`values.cni.repair.enabled` deletes pods that are broken, or leaves them",
    "cni.resource_quotas": "write a ResourceQuota",
    "gateways.enabled": "use `components.ingressGateways[].enabled`",
    "global.agentgateway": "there is no such proxy",
    "global.arch": "use `k8s.affinity` of the components",
    "global.defaultNodeSelector": "use `k8s.nodeSelector` of the components",
    "global.defaultTolerations": "use `k8s.tolerations` of the components",
    "global.enableReaderRBAC": "the rights of a remote control plane come with the profile remote",
    "global.ipFamilies": "use `values.pilot.ipFamilies`",
    "global.ipFamilyPolicy": "use `values.pilot.ipFamilyPolicy`",
    "global.jwtPolicy": "tokens are always made for istiod",
    "global.multiCluster": "only `clusterName`; every mesh may have several clusters",
    "global.proxy_init.resources": "it is set with `values.global.proxy.resources`",
    "global.readerServiceAccount": "the rights of a remote control plane come with the profile remote",
    "global.revision": "use `revision`",
    "global.tracer": "use `meshConfig.extensionProviders`, and a Telemetry",
    "istio_cni": "use `values.pilot.cni`",
    "istiodRemote.enabled": "use `components.istiodRemote.enabled`",
    "pilot.cni.chained": "the plugin always comes after the one that connects pods",
    "pilot.crlConfigMapName": "revocation lists are those of the CA's Secret",
    "pilot.enabled": "use `components.pilot.enabled`",
    "pilot.istiodRemote": _REMOTE,
    "sidecarInjectorWebhook.injectionURL": _REMOTE,
    **{f"{at}.{name}": why.format(kind) for at, kind in _WHERE.items() for name, why in _OF_GATEWAYS.items()},
}
IDLE: dict[str, str] = {
    "installPackagePath": "the objects come from this program; there are no charts to read",
    "compatibilityVersion": "there is one behaviour, that of this version",
    "unvalidatedValues": "there are no charts of yours that could read them; patch objects with `k8s.overlays`",
    **{f"components.{name}.{field}": _PODLESS for name in ("base", "istiodRemote") for field in ("hub", "tag", "k8s")},
    "components.ztunnel": _AMBIENT,
    "values.ztunnel": _AMBIENT,
    **{f"values.{name}": why for name, why in _VALUES_ELSEWHERE.items()},
    "values.revision": "use `revision`",
    "values.profile": "use `profile`",
    "values.compatibilityVersion": "there is one behaviour, that of this version",
    "values.defaultRevision": "use `lateen tag set default --revision NAME`",
    "values.revisionTags": "use `lateen tag set TAG --revision NAME`",
    "values.meshConfig": "use `meshConfig`",
    **{f"components.cni.k8s.{field}": _EVERYWHERE for field in _OF_NODES},
    **{
        f"components.{component}.k8s.service.externalName": "these Services have pods"
        for component in ("pilot", "ingressGateways[]", "egressGateways[]")
    },
}
"""Field -> why it, and what is below it, has no effect; so do values of Istio's charts that are not in ``EFFECTIVE``
(``absent``). They are accepted with a warning."""
ONLY: dict[str, tuple[Any, str]] = {
    "namespace": (NAMESPACE, f"the control plane's namespace is {NAMESPACE}"),
    "components.base.namespace": (NAMESPACE, f"the control plane's namespace is {NAMESPACE}"),
    "components.pilot.namespace": (NAMESPACE, f"the control plane's namespace is {NAMESPACE}"),
    "components.istiodRemote.namespace": (NAMESPACE, f"the control plane's namespace is {NAMESPACE}"),
    "values.global.istioNamespace": (NAMESPACE, f"the control plane's namespace is {NAMESPACE}"),
    "components.ztunnel.enabled": (False, _AMBIENT),
}
"""Field -> the only value that it may have, and why: another one would ask for a mesh that is not there."""


def refused(spec: Json, path: str = "spec") -> Iterator[str]:
    """One sentence for each field that has a value that cannot be, which begins with its path."""
    for at, (only, why) in ONLY.items():
        value = dig(spec, *at.split("."))
        if value not in (None, "", only):
            yield f"{path}.{at}: {jsons.dumps(value).decode()} is not possible: {why}"
    for at, given in _variables(spec):
        for name, says in features.wrong(given):
            yield f"{path}.{at.format(name)}: {says}"


def _variables(spec: Json) -> Iterator[tuple[str, Json]]:
    """istiod's variables as an installation gives them: (their path, with a place for the name; name -> value)."""
    values = dig(spec, "values", "pilot", "env", default={})
    listed = dig(spec, "components", "pilot", "k8s", "env", default=[])
    yield "values.pilot.env.{}", values if isinstance(values, dict) else {}
    yield "components.pilot.k8s.env[{}]", {e["name"]: e.get("value", "") for e in listed}


def has_effect(path: str) -> bool:
    form = general(path)
    return any(form == e or (e.endswith(".**") and f"{form}.".startswith(e[:-2])) for e in EFFECTIVE)


def ineffective(spec: Json) -> list[str]:
    """A sentence for each field of a valid specification that is set and has no effect, ``meshConfig`` apart."""
    typed = {k: v for k, v in spec.items() if k not in ("meshConfig", "values", "unvalidatedValues")}
    untyped = {k: v for k, v in spec.items() if k in ("values", "unvalidatedValues") and v}
    found = [*leaves(Operator, typed), *untyped.items()]
    out = {
        at: reason(at)
        for path, value in found
        for at, _ in _plain(path, value)
        if not has_effect(at) and general(at) not in ONLY and not at.startswith("values.pilot.env.")
    }
    for e in dig(spec, "components", "cni", "k8s", "env", default=[]):
        if e["name"] not in OF_PLUGIN:
            out[f"components.cni.k8s.env[{e['name']}]"] = ""
    for at, given in _variables(spec):
        for name, value in given.items():
            if name not in VARIABLES and (why := features.reason(name, value, VARIABLES)) is not None:
                out[at.format(name)] = why
    return [
        f"the field spec.{at} has no effect in this version of Lateen" + (f": {why}" if why else "")
        for at, why in out.items()
    ]


def reason(path: str) -> str:
    """Why a field has no effect; empty for values that Istio's charts do not have either."""
    form = general(path)
    for at, why in IDLE.items():
        if form == at or form.startswith((f"{at}.", f"{at}[", f"{at}{{")):
            return why
    return absent.of_value(form.removeprefix("values.")) if form.startswith("values.") else ""


def _plain(path: str, value: Any) -> list[tuple[str, Any]]:
    """The leaf paths of untyped values."""
    if isinstance(value, dict) and value and not has_effect(path):
        return [leaf for k, v in value.items() for leaf in _plain(f"{path}.{k}", v)]
    return [(path, value)]
