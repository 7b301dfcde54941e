"""``kubectl get``: the API server's tables, and the other output formats."""

from __future__ import annotations

from typing import Any

import click

from lateen.api.kinds import Kind
from lateen.cli.base import command
from lateen.cli.kubectl.common import called, failed, kinds_of, options, target_of, wanted
from lateen.cli.output import USAGE, CliError, say, table
from lateen.kit import jsonpath, jsons, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient, KubeError

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@command("get")
@click.argument("what", nargs=-1, required=True)
@click.option("-o", "--output", default="")
@click.option("-l", "--selector", default="")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True)
@click.option("--show-labels", is_flag=True)
@click.option("--no-headers", is_flag=True)
@click.option("--ignore-not-found", is_flag=True)
@click.option("--show-managed-fields", is_flag=True, help="With -o json or yaml: which manager owns which field.")
@options
def get_(what: tuple[str, ...], **given: Any) -> None:
    """List objects: get pods -n istio-system"""
    target = target_of(given)

    async def work(client: HttpClient) -> tuple[list[Json], list[tuple[Kind, Json]]]:
        known = await kinds_of(client)
        where = "" if given["everywhere"] else target.namespace
        tables_, objects = [], []
        for kind, name in wanted(what, known):
            path = kind.path(where if kind.namespaced else "", name)
            query = {"labelSelector": given["selector"]} if given["selector"] else None
            plain = given["output"] not in ("", "wide")
            try:
                found = await client.call("GET", path, query=query, accept="application/json" if plain else _TABLE)
            except KubeError as e:
                if e.code == 404 and name and given["ignore_not_found"]:
                    continue
                raise failed(e) from e
            if plain:
                items = found["items"] if "items" in found and not name else [found]
                base = {"apiVersion": kind.api_version, "kind": kind.kind}
                objects += [(kind, {**base, **o}) for o in items]
            else:
                tables_.append({**found, "of": kind})
        return tables_, objects

    tables_, objects = target.run(work)
    if given["output"] not in ("", "wide"):
        if not given["show_managed_fields"]:
            for _, obj in objects:
                obj.get("metadata", {}).pop("managedFields", None)
        _print_objects(objects, given["output"], single=len(what) == 2 or "/" in what[0])
        return
    filled = [t for t in tables_ if t.get("rows")]
    if not filled:
        if not given["ignore_not_found"]:
            say("No resources found" if given["everywhere"] else f"No resources found in {target.namespace} namespace.")
        return
    prefix = len(tables_) > 1
    click.echo("\n\n".join(_shown(t, given, prefix) for t in filled))


def _shown(t: Json, given: dict[str, Any], prefix: bool) -> str:
    columns = t["columnDefinitions"]
    keep = [i for i, c in enumerate(columns) if given["output"] == "wide" or not c.get("priority")]
    head = [str(columns[i]["name"]).upper() for i in keep]
    kind: Kind = t["of"]
    rows = []
    for r in t["rows"]:
        meta = dig(r, "object", "metadata", default={})
        cells = ["<none>" if r["cells"][i] is None else _cell(r["cells"][i]) for i in keep]
        if prefix:
            cells[0] = called(kind, cells[0])
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
            click.echo(called(kind, o["metadata"]["name"]))
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
