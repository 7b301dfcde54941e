"""lateen demo: from nothing to Bookinfo in the mesh; idempotent."""

from __future__ import annotations

import asyncio
import time

from lateen import samples
from lateen.api import kinds
from lateen.api.reading import HOST_PORTS
from lateen.cli import addons
from lateen.cli.base import command
from lateen.cli.cluster import begin
from lateen.cli.connect import with_client
from lateen.cli.install import operator
from lateen.cli.output import CliError, say, step
from lateen.cluster.home import Home
from lateen.install import installer, manifests
from lateen.kit import http, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.apply import apply, declared, wait_available
from lateen.kube.client import HttpClient

PAGE = "/productpage"
BOOKINFO = samples.ROOT / "bookinfo"


def bookinfo() -> list[Json]:
    return list(yamldoc.objects((BOOKINFO / "platform/kube/bookinfo.yaml").read_text()))


@command()
def demo() -> None:
    """Start a cluster, install the mesh and run Bookinfo in it; running it again changes nothing."""
    started = time.monotonic()
    home = Home.default()
    with step("Embedded cluster"):
        begin(home)
    url = with_client(str(home.kubeconfig), _in_cluster)
    say(f"\nBookinfo is running in the mesh ({time.monotonic() - started:.1f} s): {url}")
    say(
        f"\n  export KUBECONFIG={home.kubeconfig}\n\nTry next:\n"
        "  kubectl get pods\n  lateen proxy-status\n  lateen dashboard kiali\n"
        f"  kubectl apply -f {BOOKINFO / 'networking/destination-rule-all.yaml'} "
        f"-f {BOOKINFO / 'networking/virtual-service-reviews-v3.yaml'}\n\n"
        "Remove it all: lateen cluster delete (or: make down)"
    )


async def _in_cluster(client: HttpClient) -> str:
    parts = manifests.render(operator((), ("profile=demo",)))
    await installer.install(client, parts, step)
    with step("Namespace default labelled istio-injection=enabled"):
        await client.patch(kinds.NAMESPACE, "", "default", {"metadata": {"labels": {"istio-injection": "enabled"}}})
    objects = bookinfo()
    with step("Bookinfo and its gateway applied"):
        for obj in objects:
            await apply(client, _in_default(obj))
        for obj in yamldoc.objects((BOOKINFO / "networking/bookinfo-gateway.yaml").read_text()):
            await apply(client, _in_default(obj))
    with step("Bookinfo ready, with sidecars (2/2)"):
        await wait_available(
            client, "default", [o["metadata"]["name"] for o in objects if kinds.of(o) is kinds.DEPLOYMENT]
        )
    with step("Console and collector ready"):
        await addons.put(client)
    with step("Requests through the ingress gateway answered"):
        return await _requests(client)


def _in_default(obj: Json) -> Json:
    return declared({**obj, "metadata": {"namespace": "default", **obj["metadata"]}})


async def ingress_port(client: HttpClient) -> int:
    """The host port that is forwarded to port 80 of the ingress gateway."""
    for _ in range(200):
        service = await client.get(kinds.SERVICE, manifests.NAMESPACE, "istio-ingressgateway")
        given = dig(service, "metadata", "annotations", HOST_PORTS, default="")
        opened = dict(pair.split("=") for pair in given.split(",") if pair)
        if "80" in opened:
            return int(opened["80"])
        await asyncio.sleep(0.05)
    raise CliError("the ingress gateway has no port on this host; see: kubectl get events -n istio-system")


async def _requests(client: HttpClient) -> str:
    port = await ingress_port(client)
    url = f"http://localhost{'' if port == 80 else f':{port}'}{PAGE}"
    said = "nothing"
    deadline = time.monotonic() + 60
    good = 0
    while time.monotonic() < deadline:
        try:
            answer = await http.fetch("127.0.0.1", port, PAGE, timeout=5)
            said = f"HTTP {answer.status}"
            good = good + 1 if answer.status == 200 and b"Simple Bookstore App" in answer.body else 0
            if good == 5:
                return url
        except (OSError, TimeoutError) as e:
            said = str(e) or type(e).__name__
            good = 0
        if good == 0:
            await asyncio.sleep(0.1)
    raise CliError(f"{url} does not answer with the page (last: {said}); see: lateen proxy-status")
