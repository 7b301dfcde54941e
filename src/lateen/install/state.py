"""Installed revisions, with their versions and settings."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field

from lateen.api import kinds
from lateen.api.mesh.reading import problems
from lateen.install.objects import NAMESPACE
from lateen.install.operator import Operator, resolve
from lateen.kit import yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client
from lateen.wire.revision import COMPONENT, DEFAULT, LABEL, Revision

REMOTE = f"{COMPONENT}=IstiodRemote"
"""The labels of an installation whose control plane is in another cluster."""


@dataclass(frozen=True)
class Installation:
    """One revision. ``recorded`` is False if it was installed by an earlier version, which kept no record."""

    revision: Revision
    version: str = ""
    profile: str = "default"
    overlays: tuple[Json, ...] = ()
    settings: tuple[str, ...] = ()
    mesh: Json | None = None
    """The current contents of the mesh configuration's ConfigMap, if they are valid."""
    recorded: bool = True
    trouble: list[str] = field(default_factory=list)
    release: str = ""
    """The Helm release that it belongs to."""

    @property
    def helms(self) -> str:
        """Why its settings are not to be changed but by Helm, and how; empty if they may be."""
        if not self.release or self.recorded:
            return ""
        return (
            f'revision {self.revision.name} is the Helm release "{self.release}", which knows its settings: '
            f"helm upgrade {self.release} CHART -n {NAMESPACE}; or, to leave Helm: helm uninstall {self.release} -n "
            f"{NAMESPACE}, and lateen install with the same settings"
        )

    def operator(
        self, overlays: list[Json] | None = None, settings: list[str] | None = None, recorded: bool = False
    ) -> Operator:
        """The current settings, overridden by others. ``recorded``: as they are, whether or not they would be accepted
        today (``refused``). Raises OperatorError."""
        edited = [] if self.mesh is None else [{"meshConfig": self.mesh}]
        own = [s for s in self.settings if not (self.mesh is not None and s.startswith("meshConfig."))]
        given = [*own, *(settings or [])]
        mesh: Json | None = {} if self.mesh is not None else None
        before = [{k: v for k, v in o.items() if k != "meshConfig" or self.mesh is None} for o in self.overlays]
        return resolve(self.profile, [*before, *edited, *(overlays or [])], given, mesh, recorded)


async def installed(client: Client) -> dict[str, Installation]:
    """Revision -> its installation."""
    deployments, _ = await client.list(kinds.DEPLOYMENT, NAMESPACE, "app=istiod")
    out = {}
    for d in deployments:
        name = str(dig(d, "metadata", "labels", LABEL, default=DEFAULT))
        image = str(dig(d, "spec", "template", "spec", "containers", 0, "image", default=""))
        out[name] = await _installation(client, Revision(name), image.rpartition(":")[2], release_of(d))
    hooks, _ = await client.list(kinds.MUTATING_WEBHOOK, labels=REMOTE)
    for h in hooks:  # the control plane is in another cluster
        name = str(dig(h, "metadata", "labels", LABEL, default=DEFAULT))
        if name not in out:
            out[name] = await _installation(client, Revision(name), "", release_of(h))
    return dict(sorted(out.items()))


def release_of(obj: Json) -> str:
    """The Helm release that an object belongs to; empty if none.

    Source: https://helm.sh/docs/chart_best_practices/labels/
    """
    if dig(obj, "metadata", "labels", "app.kubernetes.io/managed-by") != "Helm":
        return ""
    return str(dig(obj, "metadata", "annotations", "meta.helm.sh/release-name", default=""))


async def _installation(client: Client, revision: Revision, version: str, release: str) -> Installation:
    record = await client.get(kinds.CONFIG_MAP, NAMESPACE, revision.installation)
    text = dig(await client.get(kinds.CONFIG_MAP, NAMESPACE, revision.config_map), "data", "mesh", default="")
    trouble: list[str] = []
    mesh: Json | None = None
    try:
        mesh = yamldoc.load(text) or {}
        if found := problems(mesh):
            trouble.append(f"the mesh configuration cannot be kept: {found[0]}")
            mesh = None
    except yamldoc.YamlError as e:
        trouble.append(f"the mesh configuration cannot be kept: {e}")
    if record is None:
        return Installation(revision, version, mesh=mesh, recorded=False, trouble=trouble, release=release)
    data = record.get("data") or {}
    return Installation(
        revision,
        version,
        str(data.get("profile") or "default"),
        tuple(yamldoc.load(data.get("overlays") or "") or ()),
        tuple(yamldoc.load(data.get("settings") or "") or ()),
        mesh,
        trouble=trouble,
        release=release,
    )


def changes(before: Operator, after: Operator) -> list[str]:
    """Lines that differ between two specifications, without context."""
    old, new = (yamldoc.dump(_sorted(o.spec)).splitlines() for o in (before, after))
    lines = difflib.unified_diff(old, new, n=2, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {k: _sorted(value[k]) for k in sorted(value)}
    return [_sorted(v) for v in value] if isinstance(value, list) else value
