"""Ownership, namespaces, accounts, storage, certificate requests, taints."""

import base64

from both import now
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from scenarios.objects import WORKLOADS, template, workload


def config(name, *owners, **meta):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **meta}}


def garbage(b):
    b.create(
        workload("Deployment", "a", replicas=1), workload("Deployment", "b", replicas=1), workload("Deployment", "c")
    )
    b.delete("Deployment", "a", "Foreground")
    b.delete("Deployment", "b", "Orphan")
    b.delete("Deployment", "c", "Background")
    b.create(workload("Deployment", "d", replicas=1))
    b.patch("Pod", "d-HASH1-#1", {"metadata": {"finalizers": ["a.b/c"]}})
    b.delete("Deployment", "d", "Foreground")
    b.patch("Pod", "d-HASH1-#1", {"metadata": {"finalizers": None}})


def accounts(b):
    token = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token",
    }
    b.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}})
    b.create(token)
    b.delete("ServiceAccount", "robot")
    b.delete("ServiceAccount", "default")
    b.delete("ConfigMap", "kube-root-ca.crt")


def storage(b):
    ns = b.namespace

    def claim(name, of_class, size="1Gi", **spec):
        wanted = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": of_class,
            "resources": {"requests": {"storage": size}},
        }
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": wanted | spec}

    def volume(name, of_class, size="1Gi", policy="Retain", **spec):
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": size},
            "storageClassName": of_class,
            "persistentVolumeReclaimPolicy": policy,
            "hostPath": {"path": "/x"},
        } | spec
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{ns}-{name}"},
            "spec": spec,
            "cluster": True,
        }

    b.create(volume("big", ns, "9Gi"), volume("small", ns, "2Gi"))
    b.create(claim("early", ns))
    b.create(claim("named", ns, volumeName=f"{ns}-big"))
    b.create(claim("absent", ns, volumeName=f"{ns}-none"))
    b.create(claim("nowhere", ""), claim("huge", ns, "99Gi"))
    b.delete("PersistentVolumeClaim", "early")
    b.create(volume("gone", ns, "3Gi", "Delete"))
    b.create(claim("lost", ns, "3Gi"))
    for side in b.sides:
        side.api.ask("DELETE", f"/api/v1/persistentvolumes/{ns}-gone")
    b.same("a volume in use is to be deleted")
    for side in b.sides:
        side.api.ask(
            "PATCH",
            f"/api/v1/persistentvolumes/{ns}-gone",
            {"metadata": {"finalizers": None}},
            "application/merge-patch+json",
        )
    b.same("a volume is lost")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user"}}
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "named"}}]
    b.create(pod | {"spec": template("user", volumes=volumes)["spec"]})
    b.delete("PersistentVolumeClaim", "named")
    b.delete("Pod", "user")


def namespace_ends(b):
    b.create(config("kept", finalizers=["a.b/c"]), config("other"))
    for side in b.sides:
        side.api.ask("DELETE", f"/api/v1/namespaces/{b.namespace}")
    b.same("the namespace waits for a finalizer")
    b.patch("ConfigMap", "kept", {"metadata": {"finalizers": None}})


def requests(b):
    def request(name, signer, *usages):
        key = ec.generate_private_key(ec.SECP256R1())
        name_ = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "someone")])
        made = x509.CertificateSigningRequestBuilder().subject_name(name_).sign(key, hashes.SHA256())
        pem = base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()
        spec = {"request": pem, "signerName": signer, "usages": usages}
        meta = {"name": f"{b.namespace}-{name}"}
        return {"kind": "CertificateSigningRequest", "metadata": meta, "spec": spec, "cluster": True}

    def decide(name, kind):
        decision = {"type": kind, "status": "True", "reason": "Test", "message": "by a test", "lastUpdateTime": now()}
        b.patch(
            "CertificateSigningRequest",
            f"{b.namespace}-{name}",
            {"status": {"conditions": [decision | {"lastTransitionTime": now()}]}},
            "approval",
            cluster=True,
        )

    b.create(
        request("client", "kubernetes.io/kube-apiserver-client", "client auth"),
        request("server", "kubernetes.io/kube-apiserver-client", "server auth"),
        request("denied", "kubernetes.io/kube-apiserver-client", "client auth"),
        request("strange", "example.com/signer", "client auth"),
        request("kubelet", "kubernetes.io/kubelet-serving", "server auth"),
    )
    decide("client", "Approved")
    decide("server", "Approved")
    decide("denied", "Denied")
    decide("strange", "Approved")
    decide("kubelet", "Approved")


def taints(b):
    node = b.node()

    def pod(name, *tolerations):
        spec = template(name, nodeName=node, tolerations=list(tolerations), terminationGracePeriodSeconds=0)["spec"]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}

    stays = {"key": "out", "operator": "Exists", "effect": "NoExecute"}
    b.create(pod("goes"), pod("stays", stays), pod("waits", stays | {"tolerationSeconds": 3}))
    b.ready()
    taint = {"key": "out", "effect": "NoExecute"}
    b.patch("Node", node, {"spec": {"taints": [taint]}}, cluster=True, step="the node is tainted")
    b.wait(4, "the toleration is over")


SCENARIOS = {
    garbage: ("Deployment", "ReplicaSet", *WORKLOADS),
    accounts: ("ServiceAccount", "Secret", "ConfigMap"),
    storage: ("PersistentVolumeClaim", "PersistentVolume", "Event"),
    requests: ("CertificateSigningRequest",),
    taints: ("Pod", "Event"),
    namespace_ends: ("ConfigMap", "Namespace"),
}
