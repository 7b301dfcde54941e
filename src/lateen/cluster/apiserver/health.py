"""``/healthz``, ``/livez`` and ``/readyz``: the checks under kube-apiserver's names."""

from __future__ import annotations

from collections.abc import Callable

from lateen.cluster.apiserver.errors import unknown_path
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.resources import CRDS
from lateen.cluster.store.objects import Store
from lateen.cluster.store.sqlite import StoreFull
from lateen.kit.later import web

PATHS = ("healthz", "livez", "readyz")
_ROLE = "clusterroles.rbac.authorization.k8s.io"
Check = Callable[[], bool]


class Health:
    """``stops``: whether the server is about to end."""

    def __init__(self, store: Store, registry: Registry, stops: Check) -> None:
        self._store, self._registry, self._stops = store, registry, stops

    def checks(self, path: str) -> dict[str, Check]:
        """By name, in the order in which they are listed. ``etcd`` is the database, by the name that probes ask for."""
        ready = path == "readyz"
        found: dict[str, Check] = {"ping": lambda: True, "etcd": self._writable if ready else self._usable}
        if ready:
            found |= {"etcd-readiness": self._writable, "informer-sync": self._kinds_known}
        found["poststarthook/crd-informer-synced"] = self._kinds_known
        found["poststarthook/rbac/bootstrap-roles"] = self._roles_there
        return found | ({"shutdown": lambda: not self._stops()} if ready else {})

    def paths(self) -> list[str]:
        return [p for path in PATHS for p in (f"/{path}", *(f"/{path}/{name}" for name in self.checks(path)))]

    def answer(self, path: str, one: str, query: dict[str, str], excluded: list[str]) -> web.Response:
        """``path``: one of PATHS; ``one``: the name of a single check, or "". Raises ApiError."""
        checks = self.checks(path)
        if one:
            if one not in checks:
                raise unknown_path()
            good = checks[one]()
            return web.Response(text="ok" if good else "internal server error: reason withheld\n", status=_code(good))
        lines, good = [], True
        for name, check in checks.items():
            if name in excluded:
                lines.append(f"[+]{name} excluded: ok")
            elif check():
                lines.append(f"[+]{name} ok")
            else:
                good = False
                lines.append(f"[-]{name} failed: reason withheld")
        if strange := [name for name in excluded if name not in checks]:
            quoted = ", ".join(f'"{name}"' for name in strange)
            lines.append(f"warn: some health checks cannot be excluded: no matches for {quoted}")
        if good and "verbose" not in query:
            return web.Response(text="ok")
        says = f"{path} check {'passed' if good else 'failed'}"
        return web.Response(text="\n".join((*lines, says, "")), status=_code(good))

    def _usable(self) -> bool:
        """A disk that is full is no reason to start the server again."""
        return self._writable() or isinstance(self._store.failure, StoreFull)

    def _writable(self) -> bool:
        """Whether what is written can be made durable; after a failure, by trying."""
        self._store.settle()
        return self._store.failure is None or self._store.recovers()

    def _kinds_known(self) -> bool:
        return all(self._registry.by_collection(e.name) is not None for e in self._store.list(CRDS))

    def _roles_there(self) -> bool:
        return self._store.get(_ROLE, "", "cluster-admin") is not None


def _code(good: bool) -> int:
    return 200 if good else 500
