"""The layout of the embedded cluster's state directory."""

from __future__ import annotations

import os
from pathlib import Path


class Home:
    """``$LATEEN_HOME``, or ``lateen`` below ``$XDG_STATE_HOME`` (``~/.local/state``)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = root / "cluster.db"
        self.kubeconfig = root / "kubeconfig"
        self.pki = root / "pki"
        self.images = root / "images.json"
        self.pods = root / "pods"
        self.volumes = root / "volumes"
        self.rootfs = root / "rootfs"
        self.groups = root / "cgroups"
        self.bin = root / "bin"
        self.log = root / "cluster.log"
        self.pid = root / "cluster.pid"
        self.neighbours = root / "neighbours.json"
        self.outbound = root / "outbound"
        """Exists if pods may connect to the outside of the machine."""
        self.control_plane = root / "control-plane"
        """Exists if the control plane is another cluster's; see ``worker``."""
        self.cni = root / "cni"
        """The node's network configuration and the plugins in it."""
        self.lock = root / "cluster.lock"
        """Held by the cluster while it runs."""
        self.starting = root / "start.lock"
        """Held by whoever starts it."""

    @classmethod
    def default(cls) -> Home:
        if configured := os.environ.get("LATEEN_HOME"):
            return cls(Path(configured).expanduser().absolute())
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return cls(Path(state).expanduser() / "lateen")

    @property
    def outside(self) -> str:
        """The address by which neighbours reach the cluster; see ``network.plan``."""
        import hashlib  # imported late: loads OpenSSL, for which the start of the cluster would wait

        digest = hashlib.blake2b(str(self.root.absolute()).encode(), digest_size=2).digest()
        return f"10.97.{digest[0]}.{digest[1] % 254 + 1}"

    def named_neighbours(self) -> dict[str, Path] | None:
        """The other embedded clusters that this one may reach, by their addresses; None for a cluster that knows of no
        others. Raises ValueError."""
        if not self.neighbours.exists():
            return None
        from lateen.kit import jsons  # imported late: the start of the cluster waits for whatever this module needs

        return {Home(Path(p)).outside: Path(p) for p in jsons.loads(self.neighbours.read_bytes())}

    def create(self) -> None:
        """Create the directory, readable by its owner only. Raises OSError, which names the path."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in (self.pki, self.pods, self.volumes, self.bin):
            path.mkdir(exist_ok=True, mode=0o700)
