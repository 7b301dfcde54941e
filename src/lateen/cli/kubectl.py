"""lateen kubectl: the real one where it is installed; otherwise the verbs that one needs every day, alike in flags
and output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any

import click

from lateen.api.kinds import EVENT, POD, Kind
from lateen.cli.base import Group, command
from lateen.cli.connect import Target, path_of
from lateen.cli.output import BAD_DATA, USAGE, CliError, say, table
from lateen.kit import duration, jsonpath, jsons, times, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.apply import LAST_APPLIED, declared
from lateen.kube.client import HttpClient, KubeError

DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
ALL = ("pods", "services", "deployments.apps", "replicasets.apps")
ENTRIES = {
    "apply": "Make objects as files say.",
    "delete": "Delete objects.",
    "describe": "Everything about a pod.",
    "exec": "Run a command in a container.",
    "get": "Show objects.",
    "label": "Set and remove labels.",
    "logs": "A container's log.",
    "rollout": "Wait for a deployment: rollout status deployment/NAME",
    "wait": "Wait for a condition.",
}


def _verb_first(args: list[str]) -> list[str]:
    """Options that stand before the verb are moved behind it."""
    at = 0
    while at < len(args) and args[at].startswith("-") and args[at] not in ("-h", "--help"):
        at += 1 if "=" in args[at] else 2
    return [*args[at : at + 1], *args[:at], *args[at + 1 :]]


class _Kubectl(Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        real = shutil.which("kubectl")
        if real and not os.environ.get("LATEEN_KUBECTL_BUILT_IN"):
            environment = os.environ | {"KUBECONFIG": os.environ.get("KUBECONFIG") or str(path_of(None))}
            sys.stdout.flush()
            os.execve(real, ["kubectl", *args], environment)
        return super().parse_args(ctx, _verb_first(args))


@click.group(
    cls=_Kubectl,
    entries={k: (f"lateen.cli.kubectl:{k}_", v) for k, v in ENTRIES.items()},
    context_settings={"help_option_names": ["-h", "--help"]},
)
def kubectl() -> None:
    """kubectl; where it is not installed, its everyday verbs."""


def options(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("-n", "--namespace", default=""),
        click.option("--kubeconfig", default=None),
        click.option("--context", default=""),
    ):
        function = option(function)
    return function


def _target(given: dict[str, Any]) -> Target:
    return Target(given["kubeconfig"], given["context"], given["namespace"])


def _failed(e: KubeError) -> CliError:
    return CliError(f"from server ({e.reason or e.code}): {e.message}")


# --- what kinds there are ----------------------------------------------------------------------------------------


class Kinds:
    """By plural, singular, short name, kind, and any of these with the group behind a dot."""

    def __init__(self, found: list[tuple[Kind, list[str]]]) -> None:
        self._by: dict[str, Kind] = {}
        self._by_kind: dict[tuple[str, str], Kind] = {}
        for kind, names in found:
            self._by_kind.setdefault((kind.group, kind.kind), kind)
            for name in names:
                self._by.setdefault(name, kind)
                self._by.setdefault(f"{name}.{kind.group}", kind)

    def named(self, text: str) -> Kind:
        found = self._by.get(text.lower())
        if found is None:
            raise CliError(f'the server doesn\'t have a resource type "{text}"')
        return found

    def of(self, obj: Json) -> Kind:
        version = str(obj.get("apiVersion") or "")
        group, slash, number = version.rpartition("/")
        found = self._by_kind.get((group if slash else "", str(obj.get("kind"))))
        if found is None:
            raise CliError(f'no matches for kind "{obj.get("kind")}" in version "{version}"')
        return Kind(found.group, number, found.plural, found.kind, found.namespaced)


async def kinds_of(client: HttpClient) -> Kinds:
    out: list[tuple[Kind, list[str]]] = []
    for path in ("/api", "/apis"):
        found = await client.call("GET", path, accept=DISCOVERY)
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


# --- get ---------------------------------------------------------------------------------------------------------


@command("get")
@click.argument("what", nargs=-1, required=True)
@click.option("-o", "--output", default="")
@click.option("-l", "--selector", default="")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True)
@click.option("--show-labels", is_flag=True)
@click.option("--no-headers", is_flag=True)
@click.option("--ignore-not-found", is_flag=True)
@options
def get_(what: tuple[str, ...], **given: Any) -> None:
    """Show objects: get pods -n istio-system"""
    target = _target(given)

    async def work(client: HttpClient) -> tuple[list[Json], list[tuple[Kind, Json]]]:
        known = await kinds_of(client)
        wanted = _wanted(what, known)
        where = "" if given["everywhere"] else target.namespace
        tables_, objects = [], []
        for kind, name in wanted:
            path = kind.path(where if kind.namespaced else "", name)
            query = {"labelSelector": given["selector"]} if given["selector"] else None
            plain = given["output"] not in ("", "wide")
            try:
                found = await client.call("GET", path, query=query, accept="application/json" if plain else TABLE)
            except KubeError as e:
                if e.code == 404 and name and given["ignore_not_found"]:
                    continue
                raise _failed(e) from e
            if plain:
                items = found["items"] if "items" in found and not name else [found]
                base = {"apiVersion": kind.api_version, "kind": kind.kind}
                objects += [(kind, {**base, **o}) for o in items]
            else:
                tables_.append({**found, "of": kind})
        return tables_, objects

    tables_, objects = target.run(work)
    if given["output"] not in ("", "wide"):
        _print_objects(objects, given["output"], single=len(what) == 2 or "/" in what[0])
        return
    filled = [t for t in tables_ if t.get("rows")]
    if not filled:
        if not given["ignore_not_found"]:
            say("No resources found" if given["everywhere"] else f"No resources found in {target.namespace} namespace.")
        return
    prefix = len(tables_) > 1
    click.echo("\n\n".join(_shown(t, given, prefix) for t in filled))


def _wanted(what: tuple[str, ...], known: Kinds) -> list[tuple[Kind, str]]:
    if what[0] == "all":
        return [(known.named(k), "") for k in ALL]
    if "/" in what[0]:
        return [(known.named(w.partition("/")[0]), w.partition("/")[2]) for w in what]
    chosen = [known.named(k) for k in what[0].split(",")]
    return [(k, n) for k in chosen for n in (what[1:] or [""])]


def _shown(t: Json, given: dict[str, Any], prefix: bool) -> str:
    columns = t["columnDefinitions"]
    keep = [i for i, c in enumerate(columns) if given["output"] == "wide" or not c.get("priority")]
    head = [str(columns[i]["name"]).upper() for i in keep]
    kind: Kind = t["of"]
    singular = f"{kind.kind.lower()}{'.' + kind.group if kind.group else ''}/"
    rows = []
    for r in t["rows"]:
        meta = dig(r, "object", "metadata", default={})
        cells = ["<none>" if r["cells"][i] is None else _cell(r["cells"][i]) for i in keep]
        if prefix:
            cells[0] = singular + cells[0]
        if given["everywhere"] and kind.namespaced:
            cells.insert(0, str(meta.get("namespace", "")))
        if given["show_labels"]:
            cells.append(",".join(f"{k}={v}" for k, v in sorted((meta.get("labels") or {}).items())) or "<none>")
        rows.append(cells)
    if given["everywhere"] and kind.namespaced:
        head.insert(0, "NAMESPACE")
    if given["show_labels"]:
        head.append("LABELS")
    return table(rows if given["no_headers"] else [head, *rows])


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else jsons.dumps(value).decode()


def _print_objects(objects: list[tuple[Kind, Json]], output: str, single: bool) -> None:
    plain = [o for _, o in objects]
    value: Any = plain[0] if single and len(plain) == 1 else {"apiVersion": "v1", "kind": "List", "items": plain}
    form, _, template = output.partition("=")
    if form == "json":
        click.echo(jsons.pretty(value))
    elif form == "yaml":
        click.echo(yamldoc.dump(value), nl=False)
    elif form == "name":
        for kind, o in objects:
            click.echo(f"{kind.kind.lower()}{'.' + kind.group if kind.group else ''}/{o['metadata']['name']}")
    elif form == "jsonpath":
        try:
            click.echo(jsonpath.render(template, value), nl=False)
        except jsonpath.PathError as e:
            raise CliError(f"error parsing jsonpath {template}: {e}", USAGE) from e
    else:
        raise CliError(
            f'unable to match a printer suitable for the output format "{form}"; use json, yaml, name, wide, jsonpath=',
            USAGE,
        )


# --- apply, delete, label ----------------------------------------------------------------------------------------


def _read(files: tuple[str, ...], recursive: bool = False) -> list[tuple[str, Json]]:
    from lateen.analysis import load

    out = []
    try:
        for path in load.files(list(files), recursive):
            out += [(str(path or "-"), s.obj) for s in load.sources(path)]
    except load.LoadError as e:
        raise CliError(str(e), BAD_DATA) from e
    return out


def _called(kind: Kind, name: str) -> str:
    return f"{kind.kind.lower()}{'.' + kind.group if kind.group else ''}/{name}"


file_option = click.option("-f", "--filename", "files", multiple=True, help="A file or folder; - for standard input.")


@command("apply")
@file_option
@click.option("-R", "--recursive", is_flag=True)
@options
def apply_(files: tuple[str, ...], recursive: bool, **given: Any) -> None:
    """Make objects as files say: apply -f FILE"""
    if not files:
        raise CliError("must specify a file with -f", USAGE)
    objects, target = _read(files, recursive), _target(given)

    async def work(client: HttpClient) -> int:
        known, bad = await kinds_of(client), 0
        for name, obj in objects:
            try:
                kind = known.of(obj)
                click.echo(
                    f"{_called(kind, obj['metadata']['name'])} {await _apply(client, kind, obj, target.namespace)}"
                )
            except KubeError as e:
                bad += 1
                say(f'Error from server ({e.reason}): error when applying "{name}": {e.message}')
            except CliError as e:
                bad += 1
                say(f'error: unable to recognize "{name}": {e}')
            for warning in client.warnings:
                say(f"Warning: {warning}")
            client.warnings.clear()
        return bad

    if bad := target.run(work):
        raise CliError(f"{bad} of {len(objects)} objects were not applied; the others are in place")


async def _apply(client: HttpClient, kind: Kind, obj: Json, default: str) -> str:
    meta = obj["metadata"]
    namespace = str(meta.get("namespace") or default) if kind.namespaced else ""
    wanted = {**obj, "metadata": {**meta, **({"namespace": namespace} if namespace else {})}}
    new = declared(wanted)
    found = await client.get(kind, namespace, meta["name"])
    if found is None:
        await client.create(kind, new)
        return "created"
    before = jsons.loads(dig(found, "metadata", "annotations", LAST_APPLIED, default="{}"))
    change = _with_removals(before, new)
    form = "application/merge-patch+json" if "." in kind.group else "application/strategic-merge-patch+json"
    after = await client.call("PATCH", kind.path(namespace, meta["name"]), change, content_type=form)
    same = dig(found, "metadata", "resourceVersion") == dig(after, "metadata", "resourceVersion")
    return "unchanged" if same else "configured"


def _with_removals(before: Any, now: Json) -> Json:
    """What is gone since the last time is set to null."""
    out: Json = {}
    for key, value in now.items():
        old = before.get(key) if isinstance(before, dict) else None
        out[key] = _with_removals(old, value) if isinstance(value, dict) else value
    for key in before if isinstance(before, dict) else ():
        if key not in now:
            out[key] = None
    return out


@command("delete")
@click.argument("what", nargs=-1)
@file_option
@click.option("--ignore-not-found", is_flag=True)
@click.option("-l", "--selector", default="")
@click.option("--wait/--no-wait", default=True)
@options
def delete_(what: tuple[str, ...], files: tuple[str, ...], **given: Any) -> None:
    """Delete objects: delete -f FILE, delete namespace NAME"""
    target, objects = _target(given), _read(files)

    async def work(client: HttpClient) -> None:
        known = await kinds_of(client)
        doomed = [
            (known.of(o), o["metadata"].get("namespace") or target.namespace, o["metadata"]["name"]) for _, o in objects
        ]
        for kind, name in _wanted(what, known) if what else ():
            if name:
                doomed.append((kind, target.namespace, name))
            elif given["selector"]:
                found, _ = await client.list(kind, target.namespace, given["selector"])
                doomed += [(kind, target.namespace, o["metadata"]["name"]) for o in found]
            else:
                raise CliError("resource(s) were provided, but no name was specified", USAGE)
        gone = []
        for kind, namespace, name in doomed:
            try:
                there = await client.delete(kind, namespace if kind.namespaced else "", name)
            except KubeError as e:
                if e.code != 404:
                    raise _failed(e) from e
                there = False
            if there:
                click.echo(f'{kind.kind.lower()}{"." + kind.group if kind.group else ""} "{name}" deleted')
                gone.append((kind, namespace, name))
            elif not given["ignore_not_found"]:
                raise CliError(
                    f'from server (NotFound): {kind.plural}{"." + kind.group if kind.group else ""} "{name}" not found'
                )
        for kind, namespace, name in gone if given["wait"] else ():
            async with asyncio.timeout(120):
                while await client.get(kind, namespace if kind.namespaced else "", name) is not None:
                    await asyncio.sleep(0.2)

    target.run(work)


@command("label")
@click.argument("what", nargs=-1, required=True)
@click.option("--overwrite", is_flag=True)
@options
def label_(what: tuple[str, ...], overwrite: bool, **given: Any) -> None:
    """Set and remove labels: label namespace default istio-injection=enabled"""
    target = _target(given)
    names = [w for w in what if "=" not in w and not w.endswith("-")]
    changes: dict[str, str | None] = {}
    for w in what:
        if "=" in w:
            key, _, value = w.partition("=")
            changes[key] = value
        elif w.endswith("-"):
            changes[w[:-1]] = None

    async def work(client: HttpClient) -> None:
        known = await kinds_of(client)
        for kind, name in _wanted(tuple(names), known):
            namespace = target.namespace if kind.namespaced else ""
            found = await client.get(kind, namespace, name)
            if found is None:
                raise CliError(f'from server (NotFound): {kind.plural} "{name}" not found')
            has = dig(found, "metadata", "labels", default={})
            for key, value in changes.items():
                if value is not None and key in has and has[key] != value and not overwrite:
                    raise CliError(f"'{key}' already has a value ({has[key]}), and --overwrite is false")
            await client.patch(kind, namespace, name, {"metadata": {"labels": changes}})
            gone = all(v is None for v in changes.values())
            click.echo(f"{_called(kind, name)} {'unlabeled' if gone else 'labeled'}")

    target.run(work)


# --- exec, logs, wait --------------------------------------------------------------------------------------------


async def _pod(client: HttpClient, name: str, namespace: str) -> Json:
    from lateen.cli import pods

    return await pods.find(client, name, namespace)


@command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-c", "--container", default="")
@click.option("-i", "--stdin", is_flag=True)
@click.option("-t", "--tty", is_flag=True)
@options
@click.argument("name")
@click.argument("rest", nargs=-1, type=click.UNPROCESSED)
def exec_(name: str, rest: tuple[str, ...], container: str, stdin: bool, tty: bool, **given: Any) -> None:
    """Run a command in a container: exec POD -c CONTAINER -- COMMAND"""
    if tty:
        raise CliError("a terminal needs the real kubectl: apt-get install kubernetes-client")
    words = list(rest)
    while words and words[0] != "--":  # options may also stand behind the pod's name
        if words[0] in ("-c", "--container") and len(words) > 1:
            container, words = words[1], words[2:]
        elif words[0] in ("-n", "--namespace") and len(words) > 1:
            given["namespace"], words = words[1], words[2:]
        elif words[0] in ("-i", "--stdin"):
            stdin, words = True, words[1:]
        else:
            break
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        raise CliError("you must specify at least one command for the container", USAGE)
    target = _target(given)

    async def work(client: HttpClient) -> tuple[bytes, bytes]:
        pod = await _pod(client, name, target.namespace)
        chosen = container or dig(pod, "metadata", "annotations", "kubectl.kubernetes.io/default-container") or ""
        chosen = chosen or pod["spec"]["containers"][0]["name"]
        data = sys.stdin.buffer.read() if stdin else b""
        meta = pod["metadata"]
        return await client.execute(meta["namespace"], meta["name"], chosen, words, data, timeout=3600)

    out, err = target.run(work)
    sys.stdout.buffer.write(out)
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(err)


@command("logs")
@click.argument("name")
@click.argument("second", required=False)
@click.option("-c", "--container", default="")
@click.option("-f", "--follow", is_flag=True)
@click.option("--tail", default=-1)
@options
def logs_(name: str, second: str | None, container: str, follow: bool, tail: int, **given: Any) -> None:
    """A container's log: logs POD -c istio-proxy -f"""
    target = _target(given)

    async def work(client: HttpClient) -> None:
        pod = await _pod(client, name, target.namespace)
        chosen = container or second or dig(pod, "metadata", "annotations", "kubectl.kubernetes.io/default-container")
        chosen = chosen or pod["spec"]["containers"][0]["name"]
        meta = pod["metadata"]
        lines = client.logs(meta["namespace"], meta["name"], chosen, tail if tail >= 0 else 1 << 30, follow)
        async with contextlib.aclosing(lines):  # type: ignore[type-var]
            async for line in lines:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()

    try:
        target.run(work)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None


@command("wait")
@click.argument("what", nargs=-1, required=True)
@click.option("--for", "condition", required=True)
@click.option("--all", "every", is_flag=True)
@click.option("-l", "--selector", default="")
@click.option("--timeout", default="30s")
@options
def wait_(what: tuple[str, ...], condition: str, every: bool, selector: str, timeout: str, **given: Any) -> None:
    """Wait for a condition: wait --for=condition=Ready pod --all"""
    target = _target(given)
    form, _, rest = condition.partition("=")
    kind_name, _, value = rest.partition("=")
    if form not in ("condition", "delete"):
        raise CliError(f'unrecognized condition: "{condition}"; use condition=NAME or delete', USAGE)

    async def work(client: HttpClient) -> None:
        known = await kinds_of(client)
        limit = duration.seconds(timeout)
        for kind, name in _wanted(what, known):
            names = [name]
            if not name and (every or selector):
                found, _ = await client.list(kind, target.namespace, selector)
                names = [o["metadata"]["name"] for o in found]
            for one in names:
                try:
                    async with asyncio.timeout(limit):
                        while not await _met(client, kind, target.namespace, one, form, kind_name, value or "True"):
                            await asyncio.sleep(0.2)
                except TimeoutError:
                    raise CliError(f"timed out waiting for the condition on {_called(kind, one)}") from None
                click.echo(f"{_called(kind, one)} {'condition met' if form == 'condition' else 'deleted'}")

    target.run(work)


async def _met(client: HttpClient, kind: Kind, namespace: str, name: str, form: str, wanted: str, value: str) -> bool:
    found = await client.get(kind, namespace if kind.namespaced else "", name)
    if form == "delete":
        return found is None
    if found is None:
        raise CliError(f'from server (NotFound): {kind.plural} "{name}" not found')
    return any(
        str(c.get("type")).lower() == wanted.lower() and str(c.get("status")).lower() == value.lower()
        for c in dig(found, "status", "conditions", default=[])
    )


@command("rollout")
@click.argument("verb", type=click.Choice(["status", "restart"]))
@click.argument("name")
@click.option("--timeout", default="120s")
@options
def rollout_(verb: str, name: str, timeout: str, **given: Any) -> None:
    """Wait for a deployment, or make its pods anew: rollout status deployment/NAME"""
    target = _target(given)
    plain = name.rpartition("/")[2]

    async def work(client: HttpClient) -> None:
        kind = (await kinds_of(client)).named("deployments.apps")
        if verb == "restart":
            at = {"kubectl.kubernetes.io/restartedAt": times.stamp()}
            change = {"spec": {"template": {"metadata": {"annotations": at}}}}
            await client.patch(kind, target.namespace, plain, change)
            click.echo(f"deployment.apps/{plain} restarted")
            return
        async with asyncio.timeout(duration.seconds(timeout)):
            while True:
                found = await client.get(kind, target.namespace, plain)
                if found is None:
                    raise CliError(f'from server (NotFound): deployments.apps "{plain}" not found')
                status, wanted = found.get("status") or {}, dig(found, "spec", "replicas", default=1)
                seen = status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
                if seen and status.get("updatedReplicas", 0) >= wanted and status.get("availableReplicas", 0) >= wanted:
                    click.echo(f'deployment "{plain}" successfully rolled out')
                    return
                await asyncio.sleep(0.2)

    target.run(work)


# --- describe ----------------------------------------------------------------------------------------------------


@command("describe")
@click.argument("what", nargs=-1, required=True)
@click.option("-l", "--selector", default="")
@options
def describe_(what: tuple[str, ...], selector: str, **given: Any) -> None:
    """Everything about a pod: describe pod NAME"""
    from lateen.cli.describing import pod as describe_pod

    target = _target(given)

    async def work(client: HttpClient) -> list[str]:
        known = await kinds_of(client)
        out = []
        for kind, name in _wanted(what, known):
            namespace = target.namespace if kind.namespaced else ""
            found = (
                [await client.get(kind, namespace, name)] if name else (await client.list(kind, namespace, selector))[0]
            )
            for obj in found:
                if obj is None:
                    raise CliError(f'from server (NotFound): {kind.plural} "{name}" not found')
                if kind.kind == POD.kind:
                    events, _ = await client.list(EVENT, namespace)
                    mine = [e for e in events if dig(e, "involvedObject", "uid") == obj["metadata"].get("uid")]
                    out.append(describe_pod(obj, mine))
                else:
                    out.append(yamldoc.dump({"kind": kind.kind, **obj}))
        return out

    click.echo("\n\n".join(target.run(work)))
