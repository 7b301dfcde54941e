"""Pods for tests of injection, and what is read from injected ones."""

from lateen.inject import pods


def pod(annotations=None, labels=None, containers=None, **spec):
    app = {"name": "app", "image": "app:1", "ports": [{"name": "http", "containerPort": 80}]}
    return {
        "metadata": {"name": "web", "labels": labels or {}, "annotations": annotations or {}},
        "spec": {"containers": containers or [app], **spec},
    }


def injected(annotations=None, settings=None, **more):
    return pods.inject(pod(annotations, **more), "shop", settings or pods.settings())


def proxy(found):
    return pods.proxy_of(found)


def env(container):
    return {e["name"]: e.get("value") for e in container["env"]}


def init(found):
    return next(c for c in found["spec"]["initContainers"] if c["name"] == "istio-init")


def argument(container, flag):
    return container["args"][container["args"].index(flag) + 1]


PROBED = {"name": "app", "image": "app:1", "readinessProbe": {"httpGet": {"port": 80}}}
