"""All controllers of the cluster in one loop."""

from __future__ import annotations

from collections.abc import Callable

from lateen.api import kinds
from lateen.cluster.controllers.account_tokens import AccountTokens, Issue
from lateen.cluster.controllers.aggregation import AggregatedRoles
from lateen.cluster.controllers.autoscaler import Autoscalers, Usage
from lateen.cluster.controllers.certificate_requests import CertificateRequests
from lateen.cluster.controllers.cron_job import CronJobs
from lateen.cluster.controllers.daemon_set import DaemonSets
from lateen.cluster.controllers.deployment import Deployments
from lateen.cluster.controllers.disruption import DisruptionBudgets
from lateen.cluster.controllers.event_expiry import EventExpiry
from lateen.cluster.controllers.garbage import Garbage
from lateen.cluster.controllers.job import Jobs
from lateen.cluster.controllers.loop import Events, Loop
from lateen.cluster.controllers.mirrored import MirroredEndpoints
from lateen.cluster.controllers.namespace import Namespaces
from lateen.cluster.controllers.pod_garbage import EndedPods, PodGarbage
from lateen.cluster.controllers.quota import Quotas
from lateen.cluster.controllers.replica_set import ReplicaSets
from lateen.cluster.controllers.service import Services
from lateen.cluster.controllers.stateful_set import StatefulSets
from lateen.cluster.controllers.taints import TaintEviction
from lateen.cluster.controllers.volumes import Volumes
from lateen.kit.pair import Pair
from lateen.kube.client import Client


def controllers(client: Client, events: Callable[[str], Events], authority: Pair, usage: Usage, issue: Issue) -> Loop:
    """A loop with every controller registered. ``events``: records in the name of a controller, as
    kube-controller-manager calls them; ``authority``: the cluster's CA, whose certificate
    each namespace gets and which signs certificate requests;
    ``usage``: what containers use now; ``issue``: makes tokens."""
    loop = Loop(client)
    for controller in (
        Deployments(client, events("deployment-controller")),
        ReplicaSets(client, events("replicaset-controller")),
        ReplicaSets(client, events("replication-controller"), kinds.REPLICATION_CONTROLLER),
        StatefulSets(client, events("statefulset-controller")),
        DaemonSets(client, loop, events("daemonset-controller")),
        Jobs(client, events("job-controller")),
        CronJobs(client, events("cronjob-controller")),
        Volumes(client, loop, events("persistentvolume-controller")),
        DisruptionBudgets(client, loop, events("controllermanager")),
        TaintEviction(client, loop, events("taint-eviction-controller")),
        PodGarbage(client, loop),
        EndedPods(client, loop),
        Quotas(client, loop),
        Autoscalers(client, events("horizontal-pod-autoscaler"), usage),
        Services(client, loop),
        MirroredEndpoints(client, loop),
        Namespaces(client, authority.certificate),
        CertificateRequests(client, authority),
        AccountTokens(client, loop, authority.certificate, issue),
        AggregatedRoles(client, loop),
        EventExpiry(client, loop),
        Garbage(client, loop),
    ):
        loop.register(controller)
    return loop
