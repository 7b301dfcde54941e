"""The chart of istiod: a control plane, or the way to one in another cluster."""

from __future__ import annotations

import json

from chart_marks import (
    GUARD,
    IF,
    REVISION,
    autoscaled,
    by_revision,
    each,
    image,
    items,
    lacks,
    line,
    mark,
    names,
    optional,
    templated,
    when,
)
from chart_values import PILOT

from lateen.inject import deployment
from lateen.install import absent, control_plane, core, manifests, objects, remote, webhooks
from lateen.install import reader as readers
from lateen.install.objects import NAMESPACE
from lateen.install.operator import Operator
from lateen.kit.jsons import Json
from lateen.wire.revision import DEFAULT, Revision

_OF_POD = (
    "affinity",
    "initContainers",
    "nodeSelector",
    "tolerations",
    "topologySpreadConstraints",
    "volumeMounts",
    "volumes",
)
_CPU = "pilot.cpu.targetAverageUtilization"
SERVES = f'(list (dict "name" "{control_plane.SERVES}" "value" "true"))'
_SERVES = f"(and (not (not .Values.global.externalIstiod)) ({lacks('.Values.pilot.env', control_plane.SERVES)}))"


def _specification(revision: str) -> Json:
    return {
        "hub": mark(".Values.global.hub"),
        "tag": mark(".Values.global.tag"),
        "revision": revision,
        "meshConfig": {"trustDomain": mark('.Values.meshConfig.trustDomain | default "cluster.local"')},
        "components": {
            "pilot": {
                "enabled": True,
                "k8s": {
                    "resources": line(".Values.pilot.resources"),
                    "env": [{"name": each(".Values.pilot.env"), "value": "x"}],
                    "podAnnotations": {each(".Values.pilot.podAnnotations"): "x"},
                    "podLabels": {each(".Values.pilot.podLabels"): "x"},
                    "deploymentLabels": {each(".Values.pilot.deploymentLabels"): "x"},
                    "hpaSpec": autoscaled("pilot.autoscaleMin", "pilot.autoscaleMax", _CPU, "pilot.autoscaleBehavior"),
                    "podDisruptionBudget": {"minAvailable": 1},
                    "strategy": {
                        "rollingUpdate": {
                            "maxSurge": line(".Values.pilot.rollingMaxSurge"),
                            "maxUnavailable": line(".Values.pilot.rollingMaxUnavailable"),
                        }
                    },
                    "imagePullPolicy": optional(".Values.global.imagePullPolicy"),
                    "priorityClassName": optional(".Values.global.priorityClassName"),
                    **{name: optional(f".Values.pilot.{name}") for name in _OF_POD},
                },
            }
        },
        "values": {
            "global": {
                "multiCluster": {"clusterName": mark('.Values.global.multiCluster.clusterName | default "Kubernetes"')},
                "proxy": {"clusterDomain": mark(".Values.global.proxy.clusterDomain")},
                "networkPolicy": {"enabled": True},
            },
            "pilot": {"image": image(".Values.pilot", "pilot")},
        },
    }


def _istiod(revision: str) -> list[Json]:
    operator = Operator(_specification(revision))
    skipped = {operator.revision.installation, operator.revision.config_map, operator.revision.injector}
    found = [
        o
        for part in manifests.render(operator)
        for o in part.objects
        if o["kind"] not in ("Namespace", "CustomResourceDefinition")
        and not (o["kind"] == "ConfigMap" and o["metadata"]["name"] in skipped)
    ]
    for obj in found:
        match obj["kind"]:
            case "Deployment":
                pod = obj["spec"]["template"]["spec"]
                (container,) = pod["containers"]
                obj["spec"]["replicas"] = when("not .Values.pilot.autoscaleEnabled", ".Values.pilot.replicaCount")
                pod["imagePullSecrets"] = names(".Values.global.imagePullSecrets")
                container["env"] += [items(".Values.pilot.envVarFrom")]
                container["env"] += [items(f"(ternary {SERVES} list {_SERVES})")]
                container["securityContext"]["seccompProfile"] = optional(".Values.pilot.seccompProfile")
            case "Service":
                obj["metadata"]["annotations"] = optional(".Values.pilot.serviceAnnotations")
                for name in ("ipFamilyPolicy", "ipFamilies"):
                    obj["spec"][name] = optional(f".Values.pilot.{name}")
            case "ServiceAccount":
                obj["metadata"]["annotations"] = optional(".Values.pilot.serviceAccountAnnotations")
            case "HorizontalPodAutoscaler":
                obj[IF] = ".Values.pilot.autoscaleEnabled"
            case "NetworkPolicy":
                obj[IF] = ".Values.global.networkPolicy.enabled"
            case "PodDisruptionBudget":
                obj[IF] = ".Values.global.defaultPodDisruptionBudget.enabled"
    return found


def _config_maps(revision: str) -> list[Json]:
    operator = Operator(_specification(revision))
    names = {operator.revision.config_map: "@mesh@", operator.revision.injector: "@injector@"}
    out = []
    for part in manifests.render(operator):
        for obj in part.objects:
            if obj["kind"] == "ConfigMap" and (data := names.get(obj["metadata"]["name"])):
                out.append({**obj, "data": data})
    return out


_NOTHING = {at.removeprefix("pilot.").partition(".")[0] for at in absent.VALUES["istiod"]}
_ELSEWHERE = " ".join(
    json.dumps(name)
    for name in sorted(
        (_NOTHING | {"meshConfig", "revision", "revisionTags", "istiodRemote", "gatewayClasses"})
        - {"global", "sidecarInjectorWebhook"}
    )
)
"""What is not for the injector."""
_TOP = " ".join(json.dumps(name) for name in PILOT)
_INJECTOR = (
    "templates",
    "defaultTemplates",
    "aliases",
    "neverInjectSelector",
    "alwaysInjectSelector",
    "injectedAnnotations",
)
DATA = {
    "@mesh@": "\n  mesh: {{ .Values.meshConfig | toJson | quote }}\n"
    '  meshNetworks: {{ dict "networks" .Values.global.meshNetworks | toJson | quote }}',
    "@injector@": "\n  config: |-\n    policy: {{ .Values.global.proxy.autoInject }}\n"
    + "\n".join(f"    {name}: {{{{ .Values.sidecarInjectorWebhook.{name} | toJson }}}}" for name in _INJECTOR)
    + f"\n  values: {{{{ omit .Values {_ELSEWHERE} {_TOP} | toJson | quote }}}}",
}
REFUSED = (
    '{{- if hasKey .Values.pilot.env "EXTERNAL_CA" }}'
    '{{ fail "pilot.env.EXTERNAL_CA needs permissions that this chart does not grant; use lateen install" }}'
    "{{- end }}\n"
)


_NAME, _NETWORK = (f'(.Values.global.{at} | replace "/" "--slash--")' for at in ("multiCluster.clusterName", "network"))
_INJECTION = (
    "(.Values.istiodRemote.injectionPath | default "
    f'(printf "/inject/cluster/%s%s" {_NAME} '
    f'(ternary (printf "/net/%s" {_NETWORK}) "" (ne .Values.global.network ""))))'
)
_URL = ".Values.istiodRemote.injectionURL"
_ADDRESS = ".Values.global.remotePilotAddress"
_IS_IP = f'(regexMatch "^([0-9]+([.][0-9]+){{3}}|.*:.*)$" {_ADDRESS})'
INCOMPLETE = (
    f"{{{{- if not {_ADDRESS} }}}}"
    '{{ fail "global.remotePilotAddress: say where the control plane is reached, as at the east-west gateway of its '
    'cluster" }}{{- end }}\n'
    f"{{{{- if not (or {_URL} .Values.istiodRemote.injectionPath .Values.global.multiCluster.clusterName) }}}}"
    '{{ fail "global.multiCluster.clusterName: name this cluster, as its Secret does in the cluster of the control '
    'plane" }}{{- end }}\n'
)


def _remote(revision: str) -> list[Json]:
    """What a cluster has whose control plane is in another one; the chart ``base`` has the reader's account."""
    chosen = Revision(revision)
    about = objects.meta(f"{chosen.istiod}-remote-{NAMESPACE}", chosen, None)
    found = [{**o, IF: _IS_IP} for o in remote.way("192.0.2.1", chosen)]
    found += [{**o, IF: f"not {_IS_IP}"} for o in remote.way("a.test", chosen)]
    for obj in found:
        if obj["kind"] == "Endpoints":
            obj["subsets"][0]["addresses"] = [{"ip": mark(_ADDRESS)}]
        elif "externalName" in obj["spec"]:
            obj["spec"]["externalName"] = mark(_ADDRESS)
    for by_url in (True, False):
        config = webhooks.injector(chosen.injector, chosen)
        for hook in config["webhooks"]:
            if by_url:
                hook["clientConfig"] = {"url": mark(_URL)}
            else:
                hook["clientConfig"]["service"]["path"] = mark(_INJECTION)
        found.append({**config, IF: _URL if by_url else f"not {_URL}"})
    return [
        *objects.bound("ClusterRole", about, readers.SERVING, readers.ACCOUNT),
        *manifests.labelled(found, "IstiodRemote"),
    ]


def _tags() -> str:
    """The injectors of tags for this revision; ``defaultRevision`` of the chart ``base`` is the tag ``default``."""
    refused = (
        f'{{{{- if eq $tag "{DEFAULT}" }}}}{{{{ fail "the tag default is defaultRevision of the chart base" }}}}'
        "{{- end }}\n"
    )
    made = templated(webhooks.tagged("xtagx", Revision(REVISION))).replace("xtagx", "{{ $tag }}")
    own = made.replace("istiod-{{ .Values.revision }}", f"{{{{ {_ISTIOD} }}}}").replace(".Values", "$.Values")
    return f"{{{{- range $tag := .Values.revisionTags }}}}\n{refused}---\n{own}{{{{- end }}}}\n"


def _classes() -> str:
    """The ConfigMaps of GatewayClasses."""
    (made,) = core.classes({"xclassx": {"xkindx": {}}}, Revision(REVISION))
    (made,) = manifests.labelled([made], "Pilot")
    text = templated([made]).replace(": xclassx\n", ': "xclassx"\n')  # a class may be named like a number
    text = text.replace("xclassx", "{{ $class }}").replace(".Values", "$.Values")
    given = "{{- range $kind, $given := $overlays }}\n  {{ $kind }}: {{ $given | toJson | quote }}\n  {{- end }}"
    one = text.replace("xkindx: '{}'", given)
    unknown = (
        f"{{{{- range $kind, $_ := $overlays }}}}{{{{- if not (has $kind (list {_OVERLAYS})) }}}}"
        '{{ fail (printf "gatewayClasses.%s.%s: there is no such object" $class $kind) }}{{- end }}{{- end }}\n'
    )
    return f"{{{{- range $class, $overlays := .Values.gatewayClasses }}}}\n{unknown}---\n{one}{{{{- end }}}}\n"


_OVERLAYS = " ".join(map(json.dumps, deployment.OVERLAYS))
_ISTIOD = f'ternary "istiod" (printf "istiod-%s" .Values.revision) (eq .Values.revision "{DEFAULT}")'


FLAT = (
    f"{{{{- range $name := list {_TOP} }}}}{{{{- if hasKey $.Values $name }}}}"
    "{{- $given := get $.Values $name }}{{- $default := get $.Values.pilot $name }}"
    '{{- if and (kindIs "map" $given) (kindIs "map" $default) }}'
    "{{- $given = merge (deepCopy $given) $default }}{{- end }}"
    "{{- $_ := set $.Values.pilot $name $given }}{{- end }}{{- end }}\n"
)
"""What is below ``pilot`` may be at the top, as in Istio's chart. Each template has this: their order is not known."""


def istiod() -> dict[str, str]:
    maps = by_revision(_config_maps)
    for key, text in DATA.items():
        maps = maps.replace(f" '{key}'", text)
    elsewhere = "{{- if .Values.istiodRemote.enabled }}\n"
    own = "{{- if not .Values.istiodRemote.enabled }}\n"
    return {
        "templates/istiod.yaml": f"{FLAT}{GUARD}{REFUSED}{own}{by_revision(_istiod)}{{{{- end }}}}\n",
        "templates/settings.yaml": f"{FLAT}{own}{maps}{{{{- end }}}}\n",
        "templates/classes.yaml": f"{own}{_classes()}{{{{- end }}}}\n",
        "templates/remote.yaml": f"{elsewhere}{INCOMPLETE}{by_revision(_remote)}{{{{- end }}}}\n",
        "templates/tags.yaml": _tags(),
    }
