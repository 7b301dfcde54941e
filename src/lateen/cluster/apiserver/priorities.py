"""Priority classes of pods, and the tolerations that every pod gets (admission plugins Priority and
DefaultTolerationSeconds)."""

from __future__ import annotations

from lateen.cluster.apiserver.errors import forbidden
from lateen.cluster.apiserver.validation.fields import Causes, denied
from lateen.cluster.store.objects import Store
from lateen.kit.jsons import Json

CLASSES = "priorityclasses.scheduling.k8s.io"
WAIT_S = 300
_TROUBLE = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def resolve(pod: Json, store: Store) -> None:
    """Fill in the number that a new pod's class stands for. Raises ApiError."""
    spec, name = pod["spec"], pod["spec"].get("priorityClassName")
    if name:
        found = store.get(CLASSES, "", name)
        if found is None:
            says = f'pods "{pod["metadata"]["name"]}" is forbidden: no PriorityClass with name {name} was found'
            raise forbidden(says, "pods", pod["metadata"]["name"])
        of_class: Json | None = found.obj
    else:
        of_class = next((e.obj for e in store.list(CLASSES) if e.obj.get("globalDefault")), None)
        if of_class is not None:
            spec["priorityClassName"] = of_class["metadata"]["name"]
    computed = int((of_class or {}).get("value") or 0)
    if spec.get("priority") not in (None, computed):
        name = pod["metadata"]["name"]
        says = (
            f'pods "{name}" is forbidden: the integer value of priority ({spec["priority"]}) must not be provided in '
            f"pod spec; priority admission controller computed {computed} from the given PriorityClass name"
        )
        raise forbidden(says, "pods", name)
    spec["priority"] = computed
    policy = str((of_class or {}).get("preemptionPolicy", "PreemptLowerPriority"))
    if spec.setdefault("preemptionPolicy", policy) != policy:
        name = pod["metadata"]["name"]
        says = (
            f'pods "{name}" is forbidden: the string value of PreemptionPolicy ({spec["preemptionPolicy"]}) must not '
            f"be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass "
            "name"
        )
        raise forbidden(says, "pods", name)
    tolerate(spec)


def tolerate(spec: Json) -> None:
    """Of every pod, also one whose tolerations somebody has replaced."""
    tolerations = spec.setdefault("tolerations", [])
    for key in _TROUBLE:
        if not any(t.get("key") in (key, None, "") and t.get("effect") in ("NoExecute", None, "") for t in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": WAIT_S})


def only_default(obj: Json, store: Store) -> Causes:
    """There is one default class at most."""
    others = [e.name for e in store.list(CLASSES) if e.obj.get("globalDefault") and e.name != obj["metadata"]["name"]]
    if obj.get("globalDefault") and others:
        says = f"PriorityClass {others[0]} already marked as default. Only one default can exist"
        return [denied("globalDefault", says)]
    return []
