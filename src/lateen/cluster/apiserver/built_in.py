"""The table of Kubernetes' own resources.

Only kinds that something acts upon (or that are plain data) are listed. A kind that is not served is refused by kubectl
with "no matches for kind", which is honest; accepting it and running nothing would not be.
"""

from __future__ import annotations

from lateen.cluster.apiserver.resources import API_SERVICES, METRICS, Resource

_ALL = ("all",)

BUILT_IN: tuple[Resource, ...] = (
    Resource("", "v1", "namespaces", "Namespace", namespaced=False, short=("ns",), status=True),
    Resource(
        "",
        "v1",
        "pods",
        "Pod",
        short=("po",),
        categories=_ALL,
        status=True,
        subresources=(
            ("log", "Pod"),
            ("exec", "PodExecOptions"),
            ("attach", "PodAttachOptions"),
            ("portforward", "PodPortForwardOptions"),
            ("eviction", "Eviction"),
            ("proxy", "PodProxyOptions"),
            ("ephemeralcontainers", "Pod"),
        ),
    ),
    Resource(
        "",
        "v1",
        "services",
        "Service",
        short=("svc",),
        categories=_ALL,
        status=True,
        subresources=(("proxy", "ServiceProxyOptions"),),
    ),
    Resource("", "v1", "endpoints", "Endpoints", short=("ep",)),
    Resource("", "v1", "configmaps", "ConfigMap", short=("cm",)),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",), subresources=(("token", "TokenRequest"),)),
    Resource("", "v1", "nodes", "Node", namespaced=False, short=("no",), status=True),
    Resource("", "v1", "events", "Event", short=("ev",)),
    Resource("events.k8s.io", "v1", "events", "Event", short=("ev",), shares="events"),
    Resource("apps", "v1", "deployments", "Deployment", short=("deploy",), categories=_ALL, status=True, scale=True),
    Resource("apps", "v1", "replicasets", "ReplicaSet", short=("rs",), categories=_ALL, status=True, scale=True),
    Resource("apps", "v1", "statefulsets", "StatefulSet", short=("sts",), categories=_ALL, status=True, scale=True),
    Resource("apps", "v1", "daemonsets", "DaemonSet", short=("ds",), categories=_ALL, status=True),
    Resource("apps", "v1", "controllerrevisions", "ControllerRevision"),
    Resource(
        "",
        "v1",
        "replicationcontrollers",
        "ReplicationController",
        short=("rc",),
        categories=_ALL,
        status=True,
        scale=True,
    ),
    Resource("", "v1", "podtemplates", "PodTemplate"),
    Resource("batch", "v1", "jobs", "Job", categories=_ALL, status=True),
    Resource("batch", "v1", "cronjobs", "CronJob", short=("cj",), categories=_ALL, status=True),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",), status=True),
    Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False, short=("pv",), status=True),
    Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False, short=("sc",)),
    Resource("storage.k8s.io", "v1", "csidrivers", "CSIDriver", namespaced=False),
    Resource(
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        short=("hpa",),
        categories=_ALL,
        status=True,
        versions=("v2", "v1"),
    ),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", short=("pdb",), status=True),
    Resource("", "v1", "limitranges", "LimitRange", short=("limits",)),
    Resource("", "v1", "resourcequotas", "ResourceQuota", short=("quota",), status=True),
    Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False, short=("pc",)),
    Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    Resource(
        "certificates.k8s.io",
        "v1",
        "certificatesigningrequests",
        "CertificateSigningRequest",
        namespaced=False,
        short=("csr",),
        status=True,
        subresources=(("approval", "CertificateSigningRequest"),),
    ),
    Resource("networking.k8s.io", "v1", "ingresses", "Ingress", short=("ing",), status=True),
    Resource("networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short=("netpol",)),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False),
    Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Resource(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        namespaced=False,
        short=("crd", "crds"),
        status=True,
    ),
    Resource(
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        namespaced=False,
        status=True,
    ),
    Resource(
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        namespaced=False,
    ),
    Resource(
        "admissionregistration.k8s.io",
        "v1",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        namespaced=False,
    ),
    Resource(
        "admissionregistration.k8s.io",
        "v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        namespaced=False,
    ),
    *(
        Resource(
            group,
            "v1",
            kind.lower() + "s",
            kind,
            namespaced=kind.startswith("Local"),
            verbs=("create",),
            # kubectl 1.27 and 1.28 ask for one of the earlier versions only.
            versions=("v1", "v1beta1", "v1alpha1") if kind == "SelfSubjectReview" else (),
        )
        for group, kinds in (
            ("authentication.k8s.io", ("TokenReview", "SelfSubjectReview")),
            (
                "authorization.k8s.io",
                (
                    "LocalSubjectAccessReview",
                    "SelfSubjectAccessReview",
                    "SelfSubjectRulesReview",
                    "SubjectAccessReview",
                ),
            ),
        )
        for kind in kinds
    ),
    Resource(API_SERVICES, "v1", "apiservices", "APIService", namespaced=False, verbs=("get", "list")),
    Resource(METRICS, "v1beta1", "nodes", "NodeMetrics", namespaced=False, verbs=("get", "list")),
    Resource(METRICS, "v1beta1", "pods", "PodMetrics", verbs=("get", "list")),
)
