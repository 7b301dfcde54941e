"""Shared parts of the verbs: options for cluster and namespace, and the names of kinds and objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from lateen.api.kinds import Kind
from lateen.cli.connect import Target
from lateen.cli.output import CliError
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient, KubeError

_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_ALL = ("pods", "services", "deployments.apps", "replicasets.apps")


def options(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("-n", "--namespace", default=""),
        click.option("--kubeconfig", default=None),
        click.option("--context", default=""),
    ):
        function = option(function)
    return function


def target_of(given: dict[str, Any]) -> Target:
    return Target(given["kubeconfig"], given["context"], given["namespace"])


def failed(e: KubeError) -> CliError:
    """An API error with kubectl's wording."""
    return CliError(f"from server ({e.reason or e.code}): {e.message}")


def not_found(kind: Kind, name: str) -> CliError:
    group = f".{kind.group}" if kind.group else ""
    return CliError(f'from server (NotFound): {kind.plural}{group} "{name}" not found')


def qualified(kind: Kind) -> str:
    """``deployment.apps``, ``pod``."""
    return f"{kind.kind.lower()}{'.' + kind.group if kind.group else ''}"


def called(kind: Kind, name: str) -> str:
    """``deployment.apps/web``, ``pod/web-1``."""
    return f"{qualified(kind)}/{name}"


class Kinds:
    """The API server's kinds by plural, singular, short name or kind, each also with ``.group`` appended."""

    def __init__(self, found: list[tuple[Kind, list[str]]]) -> None:
        self._by: dict[str, Kind] = {}
        self._by_kind: dict[tuple[str, str], Kind] = {}
        for kind, names in found:
            self._by_kind.setdefault((kind.group, kind.kind), kind)
            for name in names:
                self._by.setdefault(name, kind)
                self._by.setdefault(f"{name}.{kind.group}", kind)

    def named(self, text: str) -> Kind:
        """Raises CliError for an unknown kind."""
        found = self._by.get(text.lower())
        if found is None:
            raise CliError(f'the server doesn\'t have a resource type "{text}"')
        return found

    def of(self, obj: Json) -> Kind:
        """The kind of an object, in the version that it has. Raises CliError for an unknown kind."""
        version = str(obj.get("apiVersion") or "")
        group, slash, number = version.rpartition("/")
        found = self._by_kind.get((group if slash else "", str(obj.get("kind"))))
        if found is None:
            raise CliError(f'no matches for kind "{obj.get("kind")}" in version "{version}"')
        return Kind(found.group, number, found.plural, found.kind, found.namespaced)


async def kinds_of(client: HttpClient) -> Kinds:
    """The API server's kinds, by aggregated discovery. Raises KubeError."""
    out: list[tuple[Kind, list[str]]] = []
    for path in ("/api", "/apis"):
        found = await client.call("GET", path, accept=_DISCOVERY)
        for group in found.get("items") or []:
            name = dig(group, "metadata", "name", default="")
            for version in group.get("versions") or []:
                for r in version.get("resources") or []:
                    kind = Kind(
                        name,
                        version["version"],
                        r["resource"],
                        dig(r, "responseKind", "kind", default=""),
                        r.get("scope") == "Namespaced",
                    )
                    names = [
                        r["resource"],
                        r.get("singularResource", ""),
                        kind.kind.lower(),
                        *(r.get("shortNames") or []),
                    ]
                    out.append((kind, [n for n in names if n]))
    return Kinds(out)


def wanted(what: tuple[str, ...], known: Kinds) -> list[tuple[Kind, str]]:
    """The objects that positional arguments name: ``all``, ``pod/a svc/b``, ``pods,svc``, ``pod a b``; the name is
    empty for all objects of a kind. Raises CliError for an unknown kind."""
    if what[0] == "all":
        return [(known.named(k), "") for k in _ALL]
    if "/" in what[0]:
        return [(known.named(w.partition("/")[0]), w.partition("/")[2]) for w in what]
    chosen = [known.named(k) for k in what[0].split(",")]
    return [(k, n) for k in chosen for n in (what[1:] or [""])]
