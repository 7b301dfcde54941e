"""What autoscalers are given to decide about. Each function is one story; where it yields, both sides come to rest and
are compared. Nothing runs: pods are what the story says, whatever number is asked for."""

LONG_AGO = "2026-01-01T00:00:00Z"
MI = 1 << 20


def cpu(percent=50, **target):
    target = target or {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def memory(**target):
    return {"type": "Resource", "resource": {"name": "memory", "target": target}}


def container(percent, of, name="cpu"):
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "ContainerResource", "containerResource": {"name": name, "container": of, "target": target}}


def rules(seconds=0, select=None, *policies):
    """Policies as (type, value, period)."""
    made = {"stabilizationWindowSeconds": seconds}
    if select:
        made["selectPolicy"] = select
    if policies:
        made["policies"] = [{"type": t, "value": v, "periodSeconds": p} for t, v, p in policies]
    return made


AT_ONCE = {"scaleDown": rules(0)}


def grows_and_is_held(b):
    b.target(2)
    b.pods(0.1, 0.1)
    b.scaler(cpu(50))
    yield "twice the use"
    b.use(0.01, 0.01)
    yield "hardly any: it waits"


def shrinks_at_once(b):
    b.target(5)
    b.pods(0.01, 0.01, 0.01, 0.01, 0.01)
    b.scaler(cpu(50), behavior=AT_ONCE)
    yield "to one"


def exactly_a_tenth_more(b):
    b.target(2)
    b.pods(0.055, 0.055)
    b.scaler(cpu(50))
    yield "110 %"
    b.use(0.0551, 0.0551)
    yield "a little more than 110 %"


def exactly_a_tenth_less(b):
    b.target(10)
    b.pods(*[0.045] * 10)
    b.scaler(cpu(50), behavior=AT_ONCE)
    yield "90 %"
    b.use(*[0.0449] * 10)
    yield "a little less"


def binary_fractions(b):
    """1.4 times 5 is 7, 1.1 times 10 more than 11."""
    b.target(5)
    b.pods(*[0.07] * 5)
    b.scaler(cpu(50), behavior={})
    yield "1.4 times 5"
    b.use(*[0.0575] * 5)
    yield "1.14"


def average_value(b):
    b.target(3)
    b.pods(0.15, 0.2, 0.3)
    b.scaler(cpu(type="AverageValue", averageValue="100m"))
    yield "each may use 100m"


def memory_value(b):
    b.target(2)
    b.pods((0.0, 3 * MI), (0.0, 4 * MI + 512))
    b.scaler(memory(type="AverageValue", averageValue="1500Ki"))
    yield "bytes"


def memory_percent(b):
    b.target(2)
    b.pods((0.0, 90 * MI), (0.0, 70 * MI), requests={"cpu": "1", "memory": "100Mi"})
    b.scaler(memory(type="Utilization", averageUtilization=60))
    yield "percent of memory"


def not_ready(b):
    b.target(3)
    b.pods(0.1, 0.1)
    b.pod(0.9, ready=False)
    b.scaler(cpu(50))
    yield "a rush while one is not ready"


def nobody_ready(b):
    b.target(2)
    b.pod(0.9, ready=False)
    b.pod(0.9, ready=False)
    b.scaler(cpu(50))
    yield "none counts"


def not_ready_for_memory(b):
    b.target(2)
    b.pod((0.1, 4 * MI), ready=False)
    b.pods((0.1, 4 * MI))
    b.scaler(memory(type="AverageValue", averageValue="2Mi"))
    yield "memory counts at once"


def was_ready_once(b):
    """It counts: it is busy, not new."""
    b.target(2)
    b.pods(0.1)
    b.pod(0.1, ready=False, changed="2026-01-01T02:00:00Z")
    b.scaler(cpu(50))
    yield "no longer ready"


def has_just_started(b):
    b.target(2)
    b.pods(0.1)
    b.pod(0.3, started="now", changed="now")
    b.scaler(cpu(50))
    yield "ready for less than a window"


def says_nothing_of_its_readiness(b):
    b.target(2)
    b.pods(0.1)
    b.pod(0.3, started=None)
    b.scaler(cpu(50))
    yield "without a start"


def pending(b):
    b.target(3)
    b.pods(0.1, 0.1)
    b.pod(None, phase="Pending")
    b.scaler(cpu(50))
    yield "one waits"
    b.use(0.01, 0.01, None)
    yield "and nothing is to do"


def failed_and_finished(b):
    b.target(3)
    b.pods(0.1)
    b.pod(0.5, phase="Failed")
    b.pod(None, phase="Succeeded")
    b.scaler(cpu(50), behavior=AT_ONCE)
    yield "what has ended"


def missing_when_it_grows(b):
    b.target(3)
    b.pods(0.2, 0.2, None)
    b.scaler(cpu(50))
    yield "the third is taken for idle"


def missing_when_it_shrinks(b):
    b.target(4)
    b.pods(0.01, 0.01, 0.01, None)
    b.scaler(cpu(50), behavior=AT_ONCE)
    yield "the fourth is taken for busy"


def missing_beyond_all_that_is_requested(b):
    b.target(4)
    b.pods(0.1, 0.1, 0.1, None)
    b.scaler(cpu(150), behavior=AT_ONCE)
    yield "a target of more than everything"


def missing_of_an_average(b):
    b.target(4)
    b.pods(0.02, 0.02, 0.02, None)
    b.scaler(cpu(type="AverageValue", averageValue="50m"), behavior=AT_ONCE)
    yield "the fourth uses what is wanted"
    b.use(0.05, 0.05, 0.05, None)
    yield "all use what is wanted"


def missing_and_not_ready(b):
    b.target(5)
    b.pods(0.3, 0.2, None)
    b.pod(0.9, ready=False)
    b.pod(None, phase="Pending")
    b.scaler(cpu(50))
    yield "both"


def nothing_measured(b):
    b.target(2)
    b.pods(None, None)
    b.scaler(cpu(50))
    yield "no metrics"


def no_pods(b):
    b.target(2)
    b.scaler(cpu(50))
    yield "nobody"


def no_request(b):
    b.target(2)
    b.pods(0.1, 0.1, requests={})
    b.scaler(cpu(50))
    yield "nothing to be compared with"


def no_request_matters_not(b):
    b.target(2)
    b.pods(0.1, 0.1, requests={})
    b.scaler(cpu(type="AverageValue", averageValue="50m"))
    yield "of a value"


def request_of_nothing(b):
    b.target(2)
    b.pods(0.1, 0.1, requests={"cpu": "0"})
    b.scaler(cpu(50))
    yield "divided by nothing"


def sidecars(b):
    b.target(1)
    b.pods({"c": (0.1, 0), "side": (0.1, 0)}, sidecar="100m")
    b.scaler(cpu(50))
    yield "the sidecar counts"


def one_container(b):
    b.target(2)
    b.pods({"c": (0.1, 0), "side": (0.9, 0)}, {"c": (0.1, 0), "side": (0.9, 0)}, sidecar="1")
    b.scaler(container(50, "c"))
    yield "only c"


def one_container_is_missing(b):
    b.target(3)
    b.pods({"c": (0.2, 0), "side": (0.9, 0)}, {"side": (0.9, 0)}, {"side": (0.9, 0)}, sidecar="1")
    b.scaler(container(50, "c"))
    yield "of two only the sidecar is measured"
    b.use({"side": (0.9, 0)}, {"side": (0.9, 0)}, {"side": (0.9, 0)})
    yield "of all"


def no_such_container(b):
    b.target(2)
    b.pods(0.1, 0.1)
    b.scaler(container(50, "none"))
    yield "nobody has it"


def most_of_several(b):
    b.target(2)
    b.pods((0.05, 8 * MI), (0.05, 8 * MI))
    b.scaler(cpu(50), memory(type="AverageValue", averageValue="2Mi"), container(10, "c"))
    yield "the highest counts"


def one_of_several_fails(b):
    b.target(2)
    b.pods((0.1, MI), (0.1, MI))
    b.scaler(container(50, "none"), cpu(50))
    yield "it grows all the same"


def one_of_several_fails_and_it_would_shrink(b):
    b.target(4)
    b.pods(*[(0.01, MI)] * 4)
    b.scaler(cpu(50), container(50, "none"), behavior=AT_ONCE)
    yield "it stays"


def bounds(b):
    b.target(3)
    b.pods(0.9, 0.9, 0.9)
    b.scaler(cpu(50), least=2, most=5)
    yield "no more than five"
    b.resize(9)
    yield "somebody asks for more"
    b.resize(1)
    yield "and for less"
    b.resize(0)
    yield "and for none"
    b.resize(2)
    yield "and is back"


def lower_bound(b):
    b.target(4)
    b.pods(*[0.001] * 4)
    b.scaler(cpu(50), least=2, behavior=AT_ONCE)
    yield "no fewer than two"


def four_at_first(b):
    b.target(1)
    b.pods(2.0)
    b.scaler(cpu(50), most=100)
    yield "without a behaviour"


def doubled_at_most(b):
    b.target(3)
    b.pods(2.0, 2.0, 2.0)
    b.scaler(cpu(50), most=6)
    yield "to twice as many, which are the most"


def pods_a_minute(b):
    b.target(2)
    b.pods(0.9, 0.9)
    b.scaler(cpu(50), most=90, behavior={"scaleUp": rules(0, None, ("Pods", 3, 600))})
    yield "three more"
    b.resize(1)
    yield "less by hand does not count"


def percent_a_minute(b):
    b.target(3)
    b.pods(0.9, 0.9, 0.9)
    b.scaler(cpu(50), most=90, behavior={"scaleUp": rules(0, None, ("Percent", 10, 600))})
    yield "one more at least"


def least_of_policies(b):
    b.target(4)
    b.pods(*[0.9] * 4)
    up = rules(0, "Min", ("Pods", 3, 600), ("Percent", 25, 600))
    b.scaler(cpu(50), most=90, behavior={"scaleUp": up})
    yield "the smaller step"


def most_of_policies(b):
    b.target(4)
    b.pods(*[0.9] * 4)
    up = rules(0, "Max", ("Pods", 3, 600), ("Percent", 25, 600))
    b.scaler(cpu(50), most=90, behavior={"scaleUp": up})
    yield "the larger step"


def never_up(b):
    b.target(2)
    b.pods(0.9, 0.9)
    b.scaler(cpu(50), behavior={"scaleUp": {"selectPolicy": "Disabled"}})
    yield "disabled"


def never_down(b):
    b.target(3)
    b.pods(*[0.001] * 3)
    b.scaler(cpu(50), behavior={"scaleDown": rules(0, "Disabled")})
    yield "disabled"


def down_by_policies(b):
    b.target(9)
    b.pods(*[0.001] * 9)
    down = rules(0, "Min", ("Pods", 4, 600), ("Percent", 30, 600))
    b.scaler(cpu(50), behavior={"scaleDown": down})
    yield "the smaller step"


def down_by_the_larger_step(b):
    b.target(9)
    b.pods(*[0.001] * 9)
    down = rules(0, None, ("Pods", 2, 600), ("Percent", 50, 600))
    b.scaler(cpu(50), behavior={"scaleDown": down})
    yield "the larger step"


def back_by_bounds_counts(b):
    b.target(9)
    b.pods(*[0.9] * 9)
    b.scaler(cpu(50), most=6, behavior={"scaleDown": rules(0, None, ("Pods", 3, 600))})
    yield "to the bound"
    b.use(*[0.001] * 9)
    yield "three a period have gone already"


def up_waits(b):
    b.target(2)
    b.pods(0.05, 0.05)
    b.scaler(cpu(50), behavior={"scaleUp": rules(600)})
    yield "as it should be"
    b.use(0.2, 0.2)
    yield "it waits for ten minutes"


def down_waits_a_little(b):
    b.target(4)
    b.pods(*[0.05] * 4)
    b.scaler(cpu(50), behavior={"scaleDown": rules(3)})
    yield "as it should be"
    b.use(*[0.01] * 4)
    yield "after three seconds"


def two_of_the_same(b):
    b.target(2)
    b.pods(0.1, 0.1)
    b.scaler(cpu(50))
    yield "the first"
    b.scaler(cpu(20), name="other")
    b.use(0.01, 0.01)
    yield "neither"


def changed(b):
    b.target(2)
    b.pods(0.1, 0.1)
    b.scaler(cpu(100))
    yield "as it should be"
    b.change({"metrics": [cpu(30)]})
    yield "another target"
    b.change({"maxReplicas": 3})
    yield "another bound"


def lost(b):
    b.target(2)
    b.pods(0.1, 0.1)
    b.scaler(cpu(50))
    yield "found"
    b.lose()
    yield "gone"


def of_a_kind_without_scale(b):
    b.scaler(cpu(50), ref=("DaemonSet", "apps/v1"))
    yield "DaemonSet"


def of_no_kind(b):
    b.scaler(cpu(50), ref=("Strange", "apps/v1"))
    yield "Strange"


def of_a_replication_controller(b):
    b.target(2, "ReplicationController")
    b.pods(0.1, 0.1)
    b.scaler(cpu(50))
    yield "the oldest kind"


def of_an_older_version(b):
    """Of the same group."""
    b.target(2)
    b.pods(0.1, 0.1)
    b.scaler(cpu(50), ref=("Deployment", "apps/v1beta1"))
    yield "apps/v1beta1"


def by_expressions(b):
    b.target(2, expressions=[{"key": "tier", "operator": "NotIn", "values": ["test"]}])
    b.pods(0.1, 0.1)
    b.pod(0.9, labels={"tier": "test"})
    b.scaler(cpu(50))
    yield "without those of a test"


def of_a_custom_resource(b):
    b.target(2, "Rollout")
    b.pods(0.1, 0.1)
    b.scaler(cpu(50))
    yield "with a scale of its own"


STORIES = [f for f in list(globals().values()) if callable(f) and f.__code__.co_flags & 0x20]
