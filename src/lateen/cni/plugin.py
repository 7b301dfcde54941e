"""The plugin's program: a request on standard input and in the environment, a response on standard output."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from lateen.agent import capture
from lateen.agent.main import mark
from lateen.api import kinds
from lateen.cni import protocol, redirection
from lateen.cni.protocol import Refused, Request
from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.kube import kubeconfig
from lateen.kube.client import HttpClient, KubeError

ATTEMPTS, PAUSE_S = 30, 0.2
"""Retries, because the runtime may start before the pod's annotations are visible in the API."""


def main() -> None:
    """``python -m lateen.cni``."""
    version = ""
    try:
        request = protocol.read(os.environ, sys.stdin.buffer.read())
        version = request.version
        answer = asyncio.run(carry_out(request))
    except Refused as e:
        sys.stdout.buffer.write(jsons.dumps(protocol.error(e, version)))
        sys.exit(1)
    if answer is not None:
        sys.stdout.buffer.write(jsons.dumps(answer))


async def carry_out(request: Request) -> Json | None:
    """The answer; None where there is none. Raises Refused."""
    match request.command:
        case "VERSION":
            return protocol.versions()
        case "STATUS":
            await _reach(request)
        case "ADD":
            await _redirect(request)
            return {**request.previous, "cniVersion": request.version}
        case "CHECK":
            await _check(request)
    return None  # DEL, GC: the rules go with the pod's network namespace


async def _redirect(request: Request) -> None:
    pod = await _pod(request)
    if pod is None or (why := redirection.passed_over(pod)):
        print(f"{request.namespace}/{request.pod} is not redirected: {why if pod else 'excluded'}", file=sys.stderr)
        return
    try:
        wanted = redirection.of(pod, mark())
    except redirection.Invalid as e:
        raise Refused(protocol.FAILED, str(e)) from e
    try:
        _, why = capture.write(wanted, _into(request))
    except capture.NotWritten as e:
        raise Refused(protocol.FAILED, f"{request.namespace}/{request.pod} cannot be redirected: {e}") from e
    if why:
        print(why, file=sys.stderr)


def _into(request: Request) -> tuple[str, ...]:
    """The command prefix that enters the pod's network namespace, whose path may be a descriptor of this process."""
    return ("nsenter", f"--net={request.netns.replace('/proc/self/', f'/proc/{os.getpid()}/')}")


async def _check(request: Request) -> None:
    pod = await _pod(request)
    if pod is None or redirection.passed_over(pod):
        return
    if lost := await asyncio.to_thread(capture.missing, _into(request)):
        says = f"the rules of {lost} are missing"
        raise Refused(protocol.FAILED, f"{request.namespace}/{request.pod} is no longer redirected", says)


async def _pod(request: Request) -> Json | None:
    """The pod, as soon as the API knows it; None where it is none of Kubernetes or in an excluded namespace. Raises
    Refused."""
    if not request.namespace or not request.pod or request.namespace in request.excluded:
        return None
    async with _client(request) as client:
        trouble = ""
        for _ in range(ATTEMPTS):
            try:
                found = await client.get(kinds.POD, request.namespace, request.pod)
                if found is not None and request.uid in ("", found["metadata"].get("uid")):
                    return found
                trouble = "the API has no such pod"
            except (KubeError, OSError) as e:
                trouble = str(e)
            await asyncio.sleep(PAUSE_S)
    raise Refused(protocol.TRY_LATER, f"{request.namespace}/{request.pod} cannot be read: {trouble}")


async def _reach(request: Request) -> None:
    async with _client(request) as client:
        try:
            await client.call("GET", "/version")
        except (KubeError, OSError) as e:
            raise Refused(protocol.NOT_AVAILABLE, f"the plugin cannot read pods: {e}") from e


def _client(request: Request) -> HttpClient:
    """Raises Refused."""
    if not request.kubeconfig:
        raise Refused(protocol.INVALID_CONFIG, "kubernetes.kubeconfig is missing in the plugin's configuration")
    try:
        return kubeconfig.from_file(Path(request.kubeconfig))
    except kubeconfig.ConfigError as e:
        raise Refused(protocol.NOT_AVAILABLE, str(e)) from e
