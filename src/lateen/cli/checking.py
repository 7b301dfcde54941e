"""How ``lateen check`` runs its checks: one after another, each with a time limit, a result and a remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lateen.cli.output import CliError
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient, KubeError, Unreachable

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"
LIMIT_S = 10.0


class Result(NamedTuple):
    group: str
    check: str
    status: str
    says: str = ""
    remedy: str = ""

    def json(self) -> Json:
        return {k: v for k, v in self._asdict().items() if v}


class Wrong(Exception):
    """A problem and its remedy; ``warning`` if the mesh works regardless."""

    def __init__(self, says: str, remedy: str, warning: bool = False) -> None:
        super().__init__(says)
        self.says, self.remedy, self.warning = says, remedy, warning


@dataclass
class Context:
    """The shared state of checks; ``client`` is None if no cluster is configured."""

    client: HttpClient | None
    namespace: str
    embedded: bool
    trouble: str = "no cluster is configured"
    """Why there is no client."""
    only: str = ""
    """The namespace whose workloads and findings are checked; empty for all."""
    status: Json = field(default_factory=dict)
    pods: list[Json] = field(default_factory=list)
    elsewhere: bool = False
    """Whether the control plane is in another cluster, where it and its proxies have to be checked."""

    def here(self) -> None:
        """Raises Skip if the control plane is in another cluster."""
        if self.elsewhere:
            raise Skip("the control plane is in another cluster: run this check there")

    def api(self) -> HttpClient:
        if self.client is None:
            raise Wrong(self.trouble, "lateen cluster start, or name a cluster with --kubeconfig and --context")
        return self.client


class Skip(Exception):
    """A check that does not apply; the message says why."""


Check = Callable[[Context], Awaitable[str | None]]
"""Returns a detail to show, or None. Raises Wrong and Skip."""


async def run(
    groups: dict[str, list[tuple[str, Check]]], context: Context, seen: Callable[[Result], None]
) -> list[Result]:
    """Run the checks in order, each with its own time limit; those that depend on a failed one are skipped."""
    out: list[Result] = []
    broken = ""
    for group, checks in groups.items():
        for name, check in checks:
            result = (
                Result(group, name, SKIPPED, f"because of: {broken}")
                if broken
                else await _one(group, name, check, context)
            )
            if result.status == FAILED and name in VITAL:
                broken = name
            out.append(result)
            seen(result)
    return out


async def _one(group: str, name: str, check: Check, context: Context) -> Result:
    try:
        async with asyncio.timeout(LIMIT_S):
            says = await check(context)
        return Result(group, name, OK, says or "")
    except Wrong as e:
        return Result(group, name, WARNING if e.warning else FAILED, e.says, e.remedy)
    except Skip as e:
        return Result(group, name, SKIPPED, str(e))
    except TimeoutError:
        return Result(group, name, FAILED, f"no answer within {LIMIT_S:.0f} s", "try again; is the machine overloaded?")
    except KubeError as e:
        account = e.code in (401, 403)
        remedy = "use an account that may read this" if account else "try again; see the logs of the component it names"
        return Result(group, name, FAILED, str(e), remedy)
    except Unreachable as e:
        return Result(group, name, FAILED, str(e), "is the cluster running? (lateen cluster status)")
    except (CliError, OSError) as e:
        return Result(group, name, FAILED, str(e), "try again; lateen proxy-status shows who is connected")


VITAL = {"the API answers", "the namespace exists", "istiod is ready", "istiod answers"}
"""Checks that all later ones depend on."""


def worst(results: list[Result]) -> int:
    """The exit code: 0 all is well, 2 there are warnings, 1 something is broken."""
    found: Any = {r.status for r in results}
    return 1 if FAILED in found else 2 if WARNING in found else 0
