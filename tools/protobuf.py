"""Write the field numbers of Kubernetes' own kinds in protobuf to src/lateen/cluster/data/protobuf.json.gz.

The input is the Go source of k8s.io/api, k8s.io/apimachinery and k8s.io/apiextensions-apiserver, whose structure tags
say for each field its number, its JSON name, and (a pointer, or not) whether a zero was meant. Download them with
``go mod download`` and give the folders:

    python tools/protobuf.py API APIMACHINERY APIEXTENSIONS

A message is ``{number: [json name, type, flags]}``; a type is string, int, bool, bytes, double, or another message;
flags: ``r`` repeated, ``m`` a map from strings, ``p`` a pointer (a zero counts), ``i`` inlined into its parent.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path

ROOTS = {
    "core/v1": (
        "Namespace Pod Service Endpoints ConfigMap Secret ServiceAccount Node Event PersistentVolume "
        "PersistentVolumeClaim ReplicationController PodTemplate LimitRange ResourceQuota Binding"
    ),
    "apps/v1": "Deployment ReplicaSet StatefulSet DaemonSet ControllerRevision",
    "batch/v1": "Job CronJob",
    "autoscaling/v1": "Scale HorizontalPodAutoscaler",
    "autoscaling/v2": "HorizontalPodAutoscaler",
    "policy/v1": "Eviction PodDisruptionBudget",
    "discovery/v1": "EndpointSlice",
    "networking/v1": "Ingress IngressClass NetworkPolicy",
    "coordination/v1": "Lease",
    "scheduling/v1": "PriorityClass",
    "storage/v1": "StorageClass CSIDriver",
    "events/v1": "Event",
    "rbac/v1": "Role RoleBinding ClusterRole ClusterRoleBinding",
    "admissionregistration/v1": (
        "MutatingWebhookConfiguration ValidatingWebhookConfiguration ValidatingAdmissionPolicy "
        "ValidatingAdmissionPolicyBinding"
    ),
    "certificates/v1": "CertificateSigningRequest",
    "authentication/v1": "TokenReview TokenRequest SelfSubjectReview",
    "authorization/v1": ("SubjectAccessReview LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview"),
    "apiextensions/v1": "CustomResourceDefinition",
    "meta/v1": "DeleteOptions",
}
"""Kinds whose bodies are read; also some that are not served yet: they cost a few bytes."""

# Types with a JSON form of their own; the decoder knows them by these names.
SPECIAL = {
    "meta/v1.Time": "time",
    "meta/v1.MicroTime": "microTime",
    "resource.Quantity": "quantity",
    "intstr.IntOrString": "intOrString",
    "meta/v1.FieldsV1": "raw",
    "runtime.RawExtension": "raw",
    "apiextensions/v1.JSON": "raw",
    "apiextensions/v1.JSONSchemaPropsOrArray": "schemaOrArray",
    "apiextensions/v1.JSONSchemaPropsOrBool": "schemaOrBool",
    "apiextensions/v1.JSONSchemaPropsOrStringArray": "schemaOrStrings",
}
PLAIN = {"string": "string", "bool": "bool", "[]byte": "bytes", "float64": "double"} | dict.fromkeys(
    ("int", "int32", "int64", "uint32", "uint8"), "int"
)
_ALIASES = {"metav1": "meta/v1", "v1": "core/v1", "corev1": "core/v1", "apiv1": "core/v1", "types": "types"}
_STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_EMPTY = re.compile(r"^type (\w+) struct ?\{\}", re.MULTILINE)
_NAMED = re.compile(r"^type (\w+) (map\[\w+\][\w.]+|\[\]\w+|\w+)$", re.MULTILINE)
_FIELD = re.compile(r"^\t(?:(\w+)\s+)?([\w.*\[\]]+)\s+`([^`]*)`", re.MULTILINE)


class Source:
    def __init__(self, api: Path, machinery: Path, extensions: Path) -> None:
        self.structs: dict[str, str] = {}
        self.named: dict[str, str] = {}
        folders = {f"{p.parent.name}/{p.name}": p for p in api.glob("*/v*")}
        folders["meta/v1"] = machinery / "pkg/apis/meta/v1"
        folders["apiextensions/v1"] = extensions / "pkg/apis/apiextensions/v1"
        for package, folder in folders.items():
            for file in folder.glob("types*.go"):
                text = file.read_text()
                self.structs |= {f"{package}.{name}": body for name, body in _STRUCT.findall(text)}
                self.structs |= {f"{package}.{name}": "" for name in _EMPTY.findall(text)}
                self.named |= {f"{package}.{name}": target for name, target in _NAMED.findall(text)}

    def resolve(self, package: str, name: str) -> tuple[str, str]:
        """(plain or special type or message, flags) of a Go type."""
        flags = ""
        if name.startswith("*"):
            name, flags = name[1:], "p"
        if name in PLAIN:
            return PLAIN[name], flags
        if name.startswith("[]"):
            inner, _ = self.resolve(package, name[2:])
            return inner, "r"
        if m := re.match(r"map\[[\w.]+\](.+)", name):
            inner, more = self.resolve(package, m[1])
            return inner, "m" if more != "r" else "mr"
        prefix, _, short = name.rpartition(".")
        if prefix in ("resource", "intstr", "runtime"):
            return SPECIAL[name], flags
        if prefix == "types":
            return "string", flags
        full = f"{_ALIASES.get(prefix, prefix) if prefix else package}.{short}"
        if full in SPECIAL:
            return SPECIAL[full], flags
        if full in self.named:
            inner, more = self.resolve(full.rpartition(".")[0], self.named[full])
            return (f"list:{inner}", flags) if more == "r" else (inner, more or flags)
        if full not in self.structs:
            raise KeyError(f"{full} (from {name} in {package})")
        return full, flags

    def message(self, full: str) -> dict[str, list[str]]:
        out = {}
        package = full.rpartition(".")[0]
        for _, type_, tags in _FIELD.findall(self.structs[full]):
            protobuf, found = re.search(r'protobuf:"([^"]+)"', tags), re.search(r'json:"([^"]*)"', tags)
            if protobuf is None:
                continue
            number = protobuf[1].split(",")[1]
            json_name = found[1].split(",")[0] if found else ""
            inner, flags = self.resolve(package, type_)
            out[number] = [json_name, inner, flags + ("i" if found and not json_name else "")]
        return out


def main() -> None:
    source = Source(*map(Path, sys.argv[1:4]))
    todo = [f"{package}.{kind}" for package, kinds in ROOTS.items() for kind in kinds.split()]
    todo.append("apiextensions/v1.JSONSchemaProps")
    kinds, messages = {}, {}
    plain = ("apps", "batch", "autoscaling", "policy")
    for full in todo[:-1]:
        package, _, kind = full.rpartition(".")
        group, version = package.split("/")
        named = "" if group in ("core", "meta") else group if group in plain else f"{group}.k8s.io"
        named = named.replace("rbac.k8s.io", "rbac.authorization.k8s.io")
        kinds[f"{named}/{version}/{kind}"] = full
    while todo:
        full = todo.pop()
        if full in messages:
            continue
        messages[full] = source.message(full)
        for _, inner, _ in messages[full].values():
            if "." in inner.removeprefix("list:"):
                todo.append(inner.removeprefix("list:"))
    target = Path(__file__).parents[1] / "src/lateen/cluster/data/protobuf.json.gz"
    raw = json.dumps({"kinds": kinds, "messages": messages}, sort_keys=True, separators=(",", ":")).encode()
    target.write_bytes(gzip.compress(raw, mtime=0))
    print(f"{len(messages)} messages, {len(raw)} bytes, {target.stat().st_size} compressed: {target}")


if __name__ == "__main__":
    main()
