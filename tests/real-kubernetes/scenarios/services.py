"""Services and their endpoints."""

from scenarios.objects import template, workload

OF_SERVICES = ("Endpoints", "EndpointSlice", "Event")


def service(name, app="web", **spec):
    spec = {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": 8080}]} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": {"of": name}}, "spec": spec}


def services(b):
    ports = [{"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]
    named = [
        {"name": "web", "port": 80, "targetPort": "http", "appProtocol": "http"},
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
    ]
    b.create(
        service("plain"),
        service("named", ports=named),
        service("headless", clusterIP="None"),
        service("early", publishNotReadyAddresses=True),
        service("nobody", "nobody"),
        service("portless", clusterIP="None", ports=[]),
    )
    b.create(
        workload(
            "StatefulSet",
            "web",
            replicas=2,
            serviceName="headless",
            podManagementPolicy="Parallel",
            template=template("web", nodeName=b.node(), container={"ports": ports}),
        )
    )
    b.ready("web-0")
    b.unready("web-1")
    b.ready("web-1")
    b.patch("Pod", "web-1", {"metadata": {"labels": {"app": "other"}}})
    b.patch("Service", "plain", {"spec": {"selector": {"app": "other"}}, "metadata": {"labels": {"of": "others"}}})
    b.patch("Service", "named", {"spec": {"ports": [{"name": "web", "port": 80, "targetPort": "other"}]}})
    b.succeed("web-0")
    b.patch("Service", "early", {"spec": {"selector": None}})
    b.delete("Service", "headless")


def services_of_terminating_pods(b):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "going", "labels": {"app": "web"}, "finalizers": ["a.b/c"]},
    }
    b.create(
        service("plain"),
        service("early", publishNotReadyAddresses=True),
        pod | {"spec": template("web", nodeName=b.node())["spec"]},
    )
    b.ready()
    b.delete("Pod", "going")
    b.patch("Pod", "going", {"metadata": {"finalizers": None}})


def services_of_different_ports(b):
    node = b.node()

    def pod(name, number):
        spec = template(name, nodeName=node, container={"ports": [{"name": "http", "containerPort": number}]})["spec"]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec}

    b.create(service("named", ports=[{"port": 80, "targetPort": "http"}]), pod("a", 81), pod("b", 82), pod("c", 82))
    b.ready()


SCENARIOS = {
    services: OF_SERVICES,
    services_of_terminating_pods: OF_SERVICES,
    services_of_different_ports: OF_SERVICES,
}
