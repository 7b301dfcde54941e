"""lateen proxy-status, lateen kube-inject."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from lateen.api import kinds
from lateen.cli.connect import context_option, kubeconfig_option, with_client
from lateen.cli.output import BAD_DATA, CliError, table
from lateen.inject import pods
from lateen.install.manifests import NAMESPACE, PROXY_IMAGE
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient
from lateen.wire import ports


async def sync_status(client: HttpClient) -> Json | None:
    """What istiod says of its proxies; None where none runs. The way is a port-forward over WebSocket."""
    found, _ = await client.list(kinds.POD, NAMESPACE, "app=istiod")
    pod = next((p for p in found if dig(p, "status", "phase") == "Running"), None)
    if pod is None:
        return None
    answer = await client.request(
        kinds.SERVICE_ACCOUNT,
        NAMESPACE,
        "istiod",
        "token",
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": ["lateen-debug"], "expirationSeconds": 600},
        },
    )
    token = answer["status"]["token"]
    request = (
        f"GET /debug/syncz HTTP/1.1\r\nhost: istiod\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    ).encode()
    raw = await forwarded(client, NAMESPACE, pod["metadata"]["name"], ports.MONITORING, request)
    head, _, body = raw.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise CliError(f"istiod answered: {body[:200].decode(errors='replace')}")
    out: Json = jsons.loads(body)
    return out


async def forwarded(client: HttpClient, namespace: str, pod: str, port: int, request: bytes) -> bytes:
    """Send bytes to a port of a pod and read until it closes, through ``exec`` of a small reader in the pod.

    (Every Kubernetes serves exec over WebSocket; port-forward there needs SPDY framing on the client's side.)
    """
    script = (
        f"import socket,sys;s=socket.create_connection(('127.0.0.1',{port}),5);"
        "s.sendall(sys.stdin.buffer.read());\n"
        "while d:=s.recv(65536):sys.stdout.buffer.write(d)"
    )
    out = b""
    params = [("command", c) for c in (sys.executable, "-c", script)]
    params += [("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
    url = client._base + kinds.POD.path(namespace, pod, "exec")
    async with (
        asyncio.timeout(20),
        client.session().ws_connect(
            url, params=params, protocols=("v5.channel.k8s.io",), headers=client._headers()
        ) as ws,
    ):
        await ws.send_bytes(b"\x00" + request)
        await ws.send_bytes(b"\xff\x00")
        async for message in ws:
            data = message.data
            if isinstance(data, bytes) and data[:1] == b"\x01":
                out += data[1:]
    return out


@click.command("proxy-status")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@kubeconfig_option
@context_option
def proxy_status(output: str, kubeconfig: str | None, context: str) -> None:
    """Which proxies are connected to istiod, and whether each has what it shall have."""
    found = with_client(kubeconfig, sync_status, context)
    if found is None:
        raise CliError(
            f'no running Istio pods in "{NAMESPACE}"; install the mesh with: lateen install --set profile=demo'
        )
    if output == "json":
        click.echo(jsons.dumps(found).decode())
        return
    rows = [["NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS", "ISTIOD", "VERSION"]]
    for p in found["proxies"]:
        t = p["types"]
        rows.append(
            [p["proxy"], "Kubernetes", t["CDS"], t["LDS"], t["EDS"], t["RDS"], "istiod", f"Envoy {p['version']}"]
        )
    click.echo(table(rows))
    for p in found["proxies"]:
        for kind, message in p["rejections"].items():
            click.echo(f"{p['proxy']} refused {kind}: {message}", err=True)


@click.command("kube-inject")
@click.option("-f", "--filename", required=True, help="A manifest; - for standard input.")
@click.option("-n", "--namespace", default="default")
def kube_inject(filename: str, namespace: str) -> None:
    """Add sidecars to the workloads of a manifest; the result goes to standard output."""
    try:
        text = sys.stdin.read() if filename == "-" else Path(filename).read_text()
        objects = list(yamldoc.objects(text))
    except FileNotFoundError:
        raise CliError(f"{filename}: no such file", BAD_DATA) from None
    except (yamldoc.YamlError, UnicodeDecodeError) as e:
        raise CliError(f"{filename}: {e}", BAD_DATA) from e
    settings = pods.Settings(image=PROXY_IMAGE)
    click.echo("---\n".join(yamldoc.dump(_injected(o, namespace, settings, filename)) for o in objects), nl=False)


def _injected(obj: Json, namespace: str, settings: pods.Settings, filename: str) -> Json:
    where = dig(obj, "metadata", "namespace", default=namespace)
    template = obj if obj.get("kind") == "Pod" else dig(obj, "spec", "template")
    if template is None or "spec" not in template or not pods.wanted(template, where):
        return obj
    meta = {**(template.get("metadata") or {})}
    meta.setdefault("name", dig(obj, "metadata", "name", default=""))
    try:
        done = pods.inject({**template, "metadata": meta}, where, settings)
    except ValueError as e:
        raise CliError(f"{filename}: {e}", BAD_DATA) from e
    if obj.get("kind") == "Pod":
        return done
    done["metadata"] = {
        k: v for k, v in done["metadata"].items() if k != "name" or "name" in (template.get("metadata") or {})
    }
    return {**obj, "spec": {**obj["spec"], "template": done}}
