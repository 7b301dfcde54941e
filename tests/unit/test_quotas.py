"""What a namespace allows: quotas, limit ranges, priorities."""

import pytest
from apiserver import Cluster
from test_controllers import play, until

from lateen.api import kinds
from lateen.cluster.apiserver.validation.limits import SYSTEM

BASE = "/api/v1/namespaces/default"


def pod(name="p", requests=None, limits=None, **spec):
    resources = {k: v for k, v in (("requests", requests), ("limits", limits)) if v}
    container = {"name": "c", "image": "i", "resources": resources}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


def cluster(kind, spec):
    found = Cluster()
    plural = {"ResourceQuota": "resourcequotas", "LimitRange": "limitranges"}[kind]
    found.must("POST", f"{BASE}/{plural}", {"metadata": {"name": "q"}, "spec": spec})
    return found


def refused(found, body, plural="pods", method="POST", path=""):
    code, answer = found.ask(method, f"{BASE}/{plural}{path}", body)
    assert code == 403, answer
    assert answer["reason"] == "Forbidden"
    return answer["message"]


def test_a_quota_limits_how_many_there_are():
    found = cluster("ResourceQuota", {"hard": {"pods": "2", "count/configmaps": "1", "services.loadbalancers": "0"}})
    found.must("POST", f"{BASE}/pods", pod("a"))
    found.must("POST", f"{BASE}/pods", pod("b"))
    says = refused(found, pod("c"))
    assert says == ('pods "c" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2')
    found.must("PATCH", f"{BASE}/pods/a/status", {"status": {"phase": "Succeeded"}})
    found.must("POST", f"{BASE}/pods", pod("c"))
    found.must("POST", f"{BASE}/configmaps", {"metadata": {"name": "a"}})
    assert "requested: count/configmaps=1" in refused(found, {"metadata": {"name": "b"}}, "configmaps")
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
    found.must("POST", f"{BASE}/services", service)
    grown = {"spec": {"type": "LoadBalancer"}}
    assert "services.loadbalancers=1" in refused(found, grown, "services", "PATCH", "/s")


def test_a_quota_adds_up_what_pods_ask_for():
    found = cluster("ResourceQuota", {"hard": {"requests.cpu": "1", "limits.memory": "1Gi"}})
    says = refused(found, pod())
    assert says.endswith("failed quota: q: must specify limits.memory for: c; requests.cpu for: c")
    found.must("POST", f"{BASE}/pods", pod("a", {"cpu": "700m"}, {"memory": "512Mi"}))
    says = refused(found, pod("b", {"cpu": "400m"}, {"memory": "1Gi"}))
    assert "requested: limits.memory=1Gi,requests.cpu=400m" in says
    assert "used: limits.memory=512Mi,requests.cpu=700m, limited: limits.memory=1Gi,requests.cpu=1" in says


def test_a_quota_counts_the_storage_of_claims():
    found = cluster("ResourceQuota", {"hard": {"requests.storage": "3Gi"}})
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}
    found.must("POST", f"{BASE}/persistentvolumeclaims", {"metadata": {"name": "a"}, "spec": spec})
    says = refused(found, {"metadata": {"name": "b"}, "spec": spec}, "persistentvolumeclaims")
    assert "requested: requests.storage=2Gi, used: requests.storage=2Gi, limited: requests.storage=3Gi" in says


def test_a_quota_with_a_scope_is_about_some_pods():
    found = cluster("ResourceQuota", {"hard": {"pods": "0"}, "scopes": ["BestEffort"]})
    assert "exceeded quota" in refused(found, pod())
    found.must("POST", f"{BASE}/pods", pod("a", {"cpu": "1m"}))


def test_the_status_of_a_quota_follows_what_there_is():
    async def story(client, told):
        meta = {"name": "q", "namespace": "default"}
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": meta,
            "spec": {"hard": {"pods": "4", "secrets": "9"}},
        }
        await client.create(kinds.RESOURCE_QUOTA, quota)

        async def used(wanted):
            async def there():
                found = await client.get(kinds.RESOURCE_QUOTA, "default", "q")
                return found.get("status", {}).get("used") == wanted

            await until(there)

        await used({"pods": "0", "secrets": "0"})
        made = pod() | {"apiVersion": "v1", "kind": "Pod"}
        made["metadata"]["namespace"] = "default"
        await client.create(kinds.POD, made)
        await used({"pods": "1", "secrets": "0"})
        await client.delete(kinds.POD, "default", "p")
        await used({"pods": "0", "secrets": "0"})
        await client.patch(kinds.RESOURCE_QUOTA, "default", "q", {"spec": {"hard": {"secrets": None}}})
        await used({"pods": "0"})

    play(story)


LIMITS = {
    "limits": [
        {
            "type": "Container",
            "default": {"cpu": "500m"},
            "defaultRequest": {"cpu": "100m"},
            "max": {"memory": "1Gi"},
            "min": {"cpu": "50m"},
            "maxLimitRequestRatio": {"cpu": "5"},
        },
        {"type": "Pod", "max": {"cpu": "1"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}},
    ]
}


def test_a_limit_range_fills_in_what_a_container_does_not_say():
    found = cluster("LimitRange", LIMITS)
    made = found.must("POST", f"{BASE}/pods", pod())
    resources = made["spec"]["containers"][0]["resources"]
    assert resources == {
        "limits": {"cpu": "500m", "memory": "1Gi"},
        "requests": {"cpu": "100m", "memory": "1Gi"},
    }
    assert "LimitRanger plugin set" in made["metadata"]["annotations"]["kubernetes.io/limit-ranger"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (pod(limits={"memory": "2Gi"}), "maximum memory usage per Container is 1Gi, but limit is 2Gi"),
        (pod(requests={"cpu": "10m"}), "minimum cpu usage per Container is 50m, but request is 10m"),
        (pod(limits={"cpu": "2"}, requests={"cpu": "1"}), "maximum cpu usage per Pod is 1, but limit is 2"),
        (pod(limits={"cpu": "900m"}), "max limit to request ratio per Container is 5, but provided ratio is 9.0"),
    ],
)
def test_a_limit_range_refuses_what_is_out_of_bounds(body, says):
    found = cluster("LimitRange", LIMITS)
    if "ratio" in says:
        body["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "100m"}
    assert says in refused(found, body)


def test_a_limit_range_has_a_say_about_claims():
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "3Gi"}}}
    body = {"metadata": {"name": "a"}, "spec": spec}
    says = refused(cluster("LimitRange", LIMITS), body, "persistentvolumeclaims")
    assert "maximum storage usage per PersistentVolumeClaim is 2Gi, but limit is 3Gi" in says


def test_a_limit_range_that_contradicts_itself_is_refused():
    spec = {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}
    code, answer = Cluster().ask("POST", f"{BASE}/limitranges", {"metadata": {"name": "q"}, "spec": spec})
    assert code == 422
    assert "min value 2 is greater than" in answer["message"]


def test_a_pod_has_the_number_of_its_priority_class():
    found = Cluster()
    path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    found.must("POST", path, {"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"})
    made = found.must("POST", f"{BASE}/pods", pod("a", priorityClassName="high"))
    assert (made["spec"]["priority"], made["spec"]["preemptionPolicy"]) == (1000, "Never")
    assert found.must("POST", f"{BASE}/pods", pod("b"))["spec"]["priority"] == 0
    assert "no PriorityClass with name low was found" in refused(found, pod("c", priorityClassName="low"))
    found.must("POST", path, {"metadata": {"name": "usual"}, "value": 7, "globalDefault": True})
    assert found.must("POST", f"{BASE}/pods", pod("d"))["spec"]["priorityClassName"] == "usual"
    code, answer = found.ask("POST", path, {"metadata": {"name": "other"}, "value": 7, "globalDefault": True})
    assert (code, "Only one default can exist" in answer["message"]) == (422, True)


@pytest.mark.parametrize(
    ("name", "value", "code"), [("system-x", 1, 422), ("mine", 2_000_000_000, 422), ("mine", 5, 201)]
)
def test_priorities_above_a_billion_are_kubernetes_own(name, value, code):
    body = {"metadata": {"name": name}, "value": value}
    assert Cluster().ask("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", body)[0] == code
    assert min(SYSTEM.values()) > 1_000_000_000
