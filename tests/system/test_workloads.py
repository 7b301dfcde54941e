"""Kubernetes' other workloads, run with kubectl: Jobs, DaemonSets, StatefulSets."""

import glob
import json

import pytest
import yaml

pytestmark = pytest.mark.system

NAMESPACE = "workloads"


@pytest.fixture(scope="module")
def work(mesh):
    mesh.kubectl("create", "namespace", NAMESPACE)
    yield Work(mesh)
    mesh.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


class Work:
    def __init__(self, mesh, namespace=NAMESPACE):
        self.mesh, self.namespace = mesh, namespace

    def kubectl(self, *argv, **more):
        return self.mesh.kubectl("-n", self.namespace, *argv, **more)

    def apply(self, api, kind, name, spec, ok=True, **meta):
        obj = {"apiVersion": api, "kind": kind, "metadata": {"name": name, **meta}, "spec": spec}
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(obj), ok=ok)

    def get(self, kind, name):
        return json.loads(self.kubectl("get", kind, name, "-o", "json").stdout)

    def wait(self, what, condition):
        self.kubectl("wait", what, f"--for={condition}", "--timeout=60s")

    def rolled_out(self, what):
        self.kubectl("rollout", "status", what, "--timeout=60s")

    def names(self, *argv):
        return self.kubectl("get", "pods", "-o", "name", *argv).stdout.split()


def shell(script, **more):
    return {"name": "main", "image": "lateen/sleep", "command": ["sh", "-c", script], **more}


def template(app, script="exec sleep 1000", annotations=None, container=None, **spec):
    spec.setdefault("terminationGracePeriodSeconds", 1)
    meta = {"labels": {"app": app}, "annotations": annotations or {}}
    return {"metadata": meta, "spec": {"containers": [shell(script) | (container or {})], **spec}}


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_a_job_completes_and_keeps_its_words(work):
    work.kubectl("create", "job", "hello", "--image=lateen/sleep", "--", "sh", "-c", "echo hello")
    work.wait("job/hello", "condition=complete")
    assert work.kubectl("logs", "job/hello").stdout == "hello\n"
    assert work.kubectl("get", "job", "hello", "--no-headers").stdout.split()[1:3] == ["Complete", "1/1"]
    work.mesh.until(lambda: "Job completed" in work.kubectl("describe", "job", "hello").stdout, what="the event")
    work.kubectl("delete", "job", "hello")
    assert not work.names("-l", "job-name=hello")


def test_every_index_of_a_job_has_a_pod_that_knows_it(work):
    script = "echo $JOB_COMPLETION_INDEX $(hostname)"
    spec = {"completions": 3, "parallelism": 3, "completionMode": "Indexed"}
    work.apply("batch/v1", "Job", "indexed", spec | {"template": template("indexed", script, restartPolicy="Never")})
    work.wait("job/indexed", "condition=complete")
    said = work.kubectl("logs", "-l", "job-name=indexed").stdout.splitlines()
    assert sorted(said) == [f"{i} indexed-{i}" for i in range(3)]
    assert work.get("job", "indexed")["status"]["completedIndexes"] == "0-2"


def test_a_job_that_fails_says_why(work):
    spec = {"backoffLimit": 0, "template": template("fails", "exit 3", restartPolicy="Never")}
    work.apply("batch/v1", "Job", "fails", spec)
    work.wait("job/fails", "condition=failed")
    work.mesh.until(lambda: "BackoffLimitExceeded" in work.kubectl("describe", "job", "fails").stdout, what="the event")


def test_a_job_in_the_mesh_completes_when_its_application_has(work):
    """The sidecar starts before the application and ends after it."""
    labels = {"sidecar.istio.io/inject": "true"}
    pod = template(
        "meshed",
        "curl -s -o /dev/null -w '%{http_code}' http://details.default:9080/details/0",
        annotations={"sidecar.istio.io/nativeSidecar": "true"},
        restartPolicy="Never",
    )
    pod["metadata"]["labels"] |= labels
    work.apply("batch/v1", "Job", "meshed", {"backoffLimit": 0, "template": pod})
    work.wait("job/meshed", "condition=complete")
    assert work.kubectl("logs", "job/meshed", "-c", "main").stdout.strip() == "200"
    (name,) = work.names("-l", "job-name=meshed")
    sidecars = json.loads(work.kubectl("get", name, "-o", "json").stdout)["spec"]["initContainers"]
    assert "istio-proxy" in [c["name"] for c in sidecars]


def test_a_cron_job_can_be_run_by_hand_and_by_its_schedule(work):
    work.kubectl("create", "cronjob", "nightly", "--image=lateen/sleep", "--schedule=0 3 * * *", "--", "echo", "night")
    work.kubectl("create", "job", "tonight", "--from=cronjob/nightly")
    work.wait("job/tonight", "condition=complete")
    assert work.kubectl("logs", "job/tonight").stdout == "night\n"
    work.kubectl("create", "cronjob", "often", "--image=lateen/sleep", "--schedule=@every 1s", "--", "echo", "tick")
    work.mesh.until(
        lambda: [j for j in work.kubectl("get", "jobs", "-o", "name").stdout.split() if "often-" in j],
        what="a job of the schedule",
    )
    work.kubectl("delete", "cronjob", "nightly", "often")


# --- pods that are kept ----------------------------------------------------------------------------------------------


def test_a_daemon_runs_on_the_node_and_is_replaced_when_its_template_changes(work):
    spec = {"selector": {"matchLabels": {"app": "daemon"}}, "template": template("daemon")}
    work.apply("apps/v1", "DaemonSet", "daemon", spec)
    work.rolled_out("ds/daemon")
    (first,) = work.names("-l", "app=daemon")
    work.kubectl("set", "env", "ds/daemon", "A=1")
    work.rolled_out("ds/daemon")
    assert first not in work.names("-l", "app=daemon")
    assert len(work.kubectl("rollout", "history", "ds/daemon").stdout.splitlines()) >= 4
    work.kubectl("delete", "ds", "daemon", "--cascade=orphan")
    (orphan,) = work.names("-l", "app=daemon")
    spec["template"] = work_template = template("daemon")
    work_template["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}]
    work.apply("apps/v1", "DaemonSet", "daemon", spec)
    work.rolled_out("ds/daemon")
    assert work.names("-l", "app=daemon") == [orphan]


def test_a_replication_controller_is_scaled(work):
    work.apply("v1", "ReplicationController", "old", {"replicas": 1, "template": template("old")})
    work.kubectl("scale", "rc/old", "--replicas=2")
    work.mesh.until(lambda: work.get("rc", "old")["status"].get("readyReplicas") == 2, what="two pods")
    work.kubectl("delete", "rc", "old")


# --- pods with names and data of their own ---------------------------------------------------------------------------

POSTGRES = next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin"))), "")
INITDB = f"{POSTGRES}/initdb -A trust -D /data/pg --no-sync && echo 'host all all all trust' >> /data/pg/pg_hba.conf"
SERVE = f"exec {POSTGRES}/postgres -D /data/pg -c listen_addresses='*' -k /data"


def claim(size="1Gi", **more):
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **more}


def stateful(work, name, script, replicas, container=None, **spec):
    work.apply("v1", "Service", name, {"clusterIP": "None", "selector": {"app": name}, "ports": [{"port": 5432}]})
    mounted = {"volumeMounts": [{"name": "data", "mountPath": "/data"}], **(container or {})}
    pod = template(name, script, container=mounted, **spec)
    body = {"replicas": replicas, "serviceName": name, "selector": {"matchLabels": {"app": name}}, "template": pod}
    body["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim()}]
    work.apply("apps/v1", "StatefulSet", name, body)
    work.rolled_out(f"sts/{name}")


def test_the_pods_of_a_set_find_each_other_and_keep_their_data(work):
    stateful(work, "peers", "hostname >> /data/log; exec sleep 1000", 2)
    assert work.names("-l", "app=peers") == ["pod/peers-0", "pod/peers-1"]
    addresses = work.kubectl("get", "pods", "-l", "app=peers", "-o", "jsonpath={.items[*].status.podIP}").stdout.split()
    found = work.kubectl("exec", "peers-0", "--", "getent", "hosts", "peers-1.peers").stdout.split()
    assert found == [addresses[1], f"peers-1.peers.{NAMESPACE}.svc.cluster.local"]
    work.kubectl("delete", "pod", "peers-0")
    work.rolled_out("sts/peers")
    assert work.kubectl("exec", "peers-0", "--", "cat", "/data/log").stdout == "peers-0\npeers-0\n"
    claims = work.kubectl("get", "pvc", "--no-headers").stdout
    assert [row.split()[:2] for row in claims.splitlines()] == [["data-peers-0", "Bound"], ["data-peers-1", "Bound"]]
    volume = work.get("pvc", "data-peers-1")["spec"]["volumeName"]
    folder = work.mesh.home / "volumes" / volume
    assert (folder / "log").read_text() == "peers-1\n"
    work.kubectl("scale", "sts/peers", "--replicas=1")
    work.mesh.until(lambda: work.names("-l", "app=peers") == ["pod/peers-0"], what="one pod")
    work.kubectl("set", "env", "sts/peers", "A=1")
    work.rolled_out("sts/peers")
    assert "REVISION" in work.kubectl("rollout", "history", "sts/peers").stdout
    work.kubectl("delete", "pvc", "data-peers-1")
    work.mesh.until(lambda: not folder.exists(), what="the removal of its folder")
    work.mesh.until(lambda: work.kubectl("get", "pv", volume, ok=False).returncode, what="the removal of the volume")


@pytest.mark.skipif(not POSTGRES, reason="PostgreSQL is not installed")
def test_a_database_keeps_its_rows_when_its_pod_is_deleted(work):
    """PostgreSQL of this machine, as in the sample of the documentation."""
    probe = {"exec": {"command": [f"{POSTGRES}/pg_isready", "-h", "/data"]}, "periodSeconds": 1}
    script = f"test -e /data/pg || ({INITDB}); {SERVE}"
    user = {"runAsUser": 999, "fsGroup": 999}
    stateful(work, "sql", script, 1, {"readinessProbe": probe}, securityContext=user, terminationGracePeriodSeconds=10)

    def query(text):
        return work.kubectl("exec", "sql-0", "--", f"{POSTGRES}/psql", "-h", "sql-0.sql", "-At", "postgres", "-c", text)

    query("create table t (x int); insert into t values (42)")
    work.kubectl("delete", "pod", "sql-0")
    work.rolled_out("sts/sql")
    assert query("select x from t").stdout == "42\n"
    work.kubectl("delete", "sts", "sql")


def test_a_pod_waits_for_its_claim(work):
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "late"}}]
    pod = template("waits", container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, volumes=volumes)
    work.apply("v1", "Pod", "waits", pod["spec"], labels={"app": "waits"})
    why = 'persistentvolumeclaim "late" not found'
    work.mesh.until(lambda: why in work.kubectl("describe", "pod", "waits").stdout, what="the reason")
    work.apply("v1", "PersistentVolumeClaim", "late", claim())
    work.wait("pod/waits", "condition=Ready")
    work.kubectl("delete", "pvc", "late", "--wait=false")
    assert work.kubectl("get", "pvc", "late", "--no-headers").stdout.split()[1] == "Terminating"
    work.kubectl("delete", "pod", "waits")
    work.mesh.until(lambda: work.kubectl("get", "pvc", "late", ok=False).returncode == 1, what="the end of the claim")


# --- the node and what a namespace allows ----------------------------------------------------------------------------


def test_draining_the_node_respects_a_budget_and_leaves_daemons(work):
    """Only pods of this test: it must not touch others of the cluster."""
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template("web")}
    work.apply("apps/v1", "Deployment", "web", spec)
    work.rolled_out("deploy/web")
    before = work.names("-l", "app=web")
    budget = {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}
    work.apply("policy/v1", "PodDisruptionBudget", "web", budget)
    work.mesh.until(lambda: work.get("pdb", "web").get("status", {}).get("currentHealthy") == 2, what="the count")
    chosen = ("drain", "lateen", "--pod-selector=app=web", "--ignore-daemonsets")
    try:
        refused = work.kubectl(*chosen, "--timeout=4s", ok=False)
        assert refused.returncode == 1
        assert "Cannot evict pod as it would violate the pod's disruption budget." in refused.stderr
        assert "SchedulingDisabled" in work.kubectl("get", "node").stdout
        work.kubectl("patch", "pdb", "web", "--type=merge", "-p", '{"spec": {"minAvailable": 0}}')
        work.mesh.until(lambda: work.get("pdb", "web")["status"]["disruptionsAllowed"] == 2, what="the permission")
        work.kubectl(*chosen, "--timeout=60s")
        assert not set(before) & set(work.names("-l", "app=web"))
        why = "1 node(s) were unschedulable"
        work.mesh.until(lambda: why in work.kubectl("describe", "pods", "-l", "app=web").stdout, what="the reason")
    finally:
        work.kubectl("uncordon", "lateen")
    work.rolled_out("deploy/web")
    work.kubectl("delete", "deploy,pdb", "web")


def test_a_quota_and_a_limit_range_hold_for_what_is_created(work):
    name = f"{NAMESPACE}-small"
    work.mesh.kubectl("create", "namespace", name)
    try:
        small = Work(work.mesh, name)
        small.kubectl("create", "quota", "few", "--hard=pods=1,requests.cpu=1")
        limits = {"limits": [{"type": "Container", "defaultRequest": {"cpu": "10m"}, "default": {"cpu": "1"}}]}
        small.apply("v1", "LimitRange", "usual", limits)
        small.kubectl("create", "deployment", "d", "--image=lateen/sleep", "--replicas=2")
        small.mesh.until(lambda: "exceeded quota: few" in small.kubectl("get", "events").stdout, what="the refusal")
        assert len(small.names()) == 1
        small.mesh.until(
            lambda: small.get("quota", "few").get("status", {}).get("used") == {"pods": "1", "requests.cpu": "10m"},
            what="what is used",
        )
        assert "requests.cpu" in small.mesh.kubectl("describe", "namespace", name).stdout
    finally:
        work.mesh.kubectl("delete", "namespace", name, "--wait=false")


def test_a_pod_waits_for_a_node_that_it_may_run_on(work):
    elsewhere = work.apply("v1", "Pod", "elsewhere", template("e", nodeSelector={"disk": "ssd"})["spec"])
    assert elsewhere.returncode == 0
    why = "didn't match Pod's node affinity/selector"
    work.mesh.until(lambda: why in work.kubectl("describe", "pod", "elsewhere").stdout, what="the reason")
    work.kubectl("label", "node", "lateen", "disk=ssd")
    work.wait("pod/elsewhere", "condition=Ready")
    work.kubectl("label", "node", "lateen", "disk-")
    try:
        work.kubectl("taint", "node", "lateen", "trial=x:NoSchedule")
        for name, tolerations in (("tolerant", [{"key": "trial", "operator": "Exists"}]), ("intolerant", [])):
            work.apply("v1", "Pod", name, template(name, tolerations=tolerations)["spec"])
        work.wait("pod/tolerant", "condition=Ready")
        why = "untolerated taint {trial: x}"
        work.mesh.until(lambda: why in work.kubectl("describe", "pod", "intolerant").stdout, what="the reason")
    finally:
        work.kubectl("taint", "node", "lateen", "trial-")
    work.wait("pod/intolerant", "condition=Ready")


def test_a_busy_deployment_grows(work):
    busy = template("busy", "while :; do :; done", container={"resources": {"requests": {"cpu": "10m"}}})
    work.apply("apps/v1", "Deployment", "busy", {"selector": {"matchLabels": {"app": "busy"}}, "template": busy})
    work.rolled_out("deploy/busy")
    target = {"type": "Utilization", "averageUtilization": 50}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"},
        "maxReplicas": 2,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    }
    work.apply("autoscaling/v2", "HorizontalPodAutoscaler", "busy", spec)
    work.mesh.until(lambda: work.get("deploy", "busy")["spec"]["replicas"] == 2, limit_s=60, what="two replicas")
    work.mesh.until(lambda: "%/50%" in work.kubectl("get", "hpa", "busy").stdout, what="the use")
    work.mesh.until(lambda: "SuccessfulRescale" in work.kubectl("describe", "hpa", "busy").stdout, what="the event")
    work.kubectl("delete", "hpa,deploy", "busy")
