"""lateen image: the local commands that image names stand for in the embedded cluster."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path
from typing import Any

import click

from lateen.cli.output import BAD_DATA, USAGE, CliError, say, table
from lateen.cluster.home import Home
from lateen.kit import jsons
from lateen.kit.digits import digits

NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._/:@]{0,254}")


@click.group()
def image() -> None:
    """Manage the images of the embedded cluster, that is, the local commands that image names stand for."""


@image.command("list")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Output format.")
def list_images(output: str) -> None:
    """List all images and their commands."""
    catalogue = _catalogue()
    found = catalogue.all()
    stored = {n: s for n, s in catalogue.in_stores().items() if n not in found and "@" not in n}
    if output == "json":
        own = {n: _shown(i) | {"origin": origin} for n, (i, origin) in sorted(found.items())}
        click.echo(jsons.dumps(own | {n: {"origin": s.engine, "config": s.config} for n, s in sorted(stored.items())}))
        return
    rows = [[n, origin, " ".join(i.entrypoint + i.arguments)] for n, (i, origin) in sorted(found.items())]
    rows += [[n, s.engine, " ".join(map(str, _command(s.config)))] for n, s in sorted(stored.items())]
    click.echo(table([["IMAGE", "ORIGIN", "COMMAND"], *rows]))


def _command(config: dict[str, Any]) -> list[Any]:
    return [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]


@image.command()
@click.argument("name")
def show(name: str) -> None:
    """Show the image NAME (as written in a pod): command, variables, user, mounts."""
    from lateen.cluster.kubelet.images import UnknownImage
    from lateen.kit import yamldoc

    try:
        known, found = _catalogue().entry(name)
    except UnknownImage as e:
        raise CliError(str(e.args[0])) from e
    click.echo(yamldoc.dump({"name": known} | _shown(found)), nl=False)


@image.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove an image that was added with ``lateen image add``."""
    catalogue = _catalogue()
    if not catalogue.remove(name):
        built_in = name in catalogue.all()
        raise CliError(f"{name} is built in" if built_in else f"no image {name} was added (see: lateen image list)")
    say(f"{name} removed")


@image.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("command", nargs=-1)
@click.option(
    "--oci",
    type=click.Path(),
    metavar="PATH",
    help="Run an image's own files: an OCI layout, as a directory or a tar archive (docker save, podman save).",
)
@click.option("--ref", default="", metavar="NAME", help="Which image of the layout, if it has several.")
@click.option(
    "--mount",
    multiple=True,
    metavar="PATH[:TARGET][:rw]",
    help="A path on this machine that the command needs; read-only unless it ends in :rw.",
)
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="An environment variable.")
@click.option("--user", metavar="UID[:GID]", help="The user that the command runs as (default: root in the container).")
@click.option("--workdir", metavar="PATH", help="The working directory.")
@click.option(
    "--cmd", is_flag=True, help="A pod's args replace COMMAND (as they replace CMD) instead of being appended to it."
)
def add(
    name: str,
    command: tuple[str, ...],
    oci: str | None,
    ref: str,
    mount: tuple[str, ...],
    env: tuple[str, ...],
    user: str | None,
    workdir: str | None,
    cmd: bool,
) -> None:
    """Let the image NAME stand for COMMAND, or for the OCI image at --oci.

    lateen image add example/app -- /usr/bin/python3 -m http.server

    lateen image add example/app --oci app.tar

    Files outside of /usr that COMMAND needs are mounted if they can be determined: a virtual environment and its
    interpreter, scripts and their interpreters, files among the arguments.
    """
    from lateen.cluster.kubelet import programs

    if not NAME.fullmatch(name):
        raise CliError(f"{name!r} is not a valid image name", USAGE)
    mounts = [_mount(m) for m in mount]
    if oci is not None:
        if command or user or workdir or cmd:
            raise CliError("--oci takes command, user and directory from the image; do not set them", USAGE)
        entry = _of_layout(Path(oci), ref) | {"mounts": mounts}
        entry["env"] |= dict(_variable(e) for e in env)
        _catalogue().add(name, entry)
        say(f"{name} stands for: {' '.join(entry['command'] + entry['arguments'])}")
        return
    if not command or ref:
        raise CliError("--ref chooses an image of --oci PATH" if ref else "give a COMMAND, or --oci PATH", USAGE)
    try:
        needed = programs.needs(list(command))
    except programs.Missing as e:
        raise CliError(f"the command cannot be run: {e}", BAD_DATA) from e
    seen = [str(m["target"]) for m in mounts]
    extra = [p for p in needed if not any(p == s or p.startswith(f"{s}/") for s in seen)]
    mounts += [{"source": p, "target": p, "readOnly": True} for p in extra]
    if workdir and not workdir.startswith("/"):
        raise CliError(f"--workdir {workdir}: must be an absolute path", USAGE)
    entry = {
        "command": list(command),
        "mounts": mounts,
        "env": dict(_variable(e) for e in env),
        "user": _user(user) if user else None,
        "directory": workdir or "",
        "replaceable": cmd,
    }
    Home.default().create()
    _catalogue().add(name, entry)
    say(f"{name} stands for: {' '.join(command)}")
    if extra:
        say(f"mounted read-only: {', '.join(extra)}")


def _of_layout(path: Path, ref: str) -> dict[str, Any]:
    """Unpack an image; returns its entry for the catalogue."""
    from lateen.cluster.kubelet import layers, oci

    home = Home.default()
    home.create()
    try:
        with oci.opened(path) as layout:
            manifest = layout.manifest(ref)
            rootfs = layers.unpack(layout, manifest, home.rootfs, os.geteuid() == 0)
        return layers.entry(rootfs, manifest.config)
    except (oci.Unusable, LookupError) as e:
        raise CliError(f"{path}: {e.args[0]}", BAD_DATA) from e
    except OSError as e:
        raise CliError(f"{path} cannot be unpacked below {home.rootfs}: {e.strerror} ({e.filename})") from e


def _catalogue() -> Any:
    from lateen.cluster.kubelet.catalogue import Catalogue, Unreadable

    home = Home.default()
    found = Catalogue(home.images, home.bin, home.rootfs, os.geteuid() == 0)
    try:
        found.added()
    except Unreadable as e:
        raise CliError(str(e.args[0]), BAD_DATA) from e
    return found


def _shown(found: Any) -> dict[str, Any]:
    uid, gid = found.user or (0, None)
    return {
        "entrypoint": list(found.entrypoint),
        "arguments": list(found.arguments),
        "env": dict(found.env),
        "user": f"{uid}:{gid}" if gid is not None else str(uid),
        "directory": found.directory or "/",
        **({"rootfs": found.rootfs} if found.rootfs else {}),
        "mounts": [f"{s}:{t}:{'ro' if read_only else 'rw'}" for s, t, read_only in found.mounts],
    }


def _mount(text: str) -> dict[str, Any]:
    source, *rest = text.split(":")
    writable = rest[-1:] == ["rw"]
    if rest[-1:] in (["rw"], ["ro"]):
        rest.pop()
    target = rest.pop() if rest else source
    if rest or not os.path.isabs(source) or not os.path.exists(source):
        raise CliError(f"--mount {text}: no such absolute path", USAGE)
    if not os.path.isabs(target) or ".." in target.split("/") or not target.strip("/"):
        raise CliError(f"--mount {text}: {target!r} is not an absolute path in the container", USAGE)
    return {"source": source, "target": target, "readOnly": not writable}


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CliError(f"--env {text}: must have the form NAME=VALUE", USAGE)
    return name, value


def _user(text: str) -> tuple[int, int | None]:
    """(uid, gid) by number, or by a name that exists on this machine. Raises CliError."""
    user, colon, group = text.partition(":")
    if not digits(user):
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise CliError(f"--user {text}: there is no user {user!r} on this machine; give a number", USAGE) from None
        return entry.pw_uid, int(group) if digits(group) else entry.pw_gid
    if colon and not digits(group):
        raise CliError(f"--user {text}: the group must be a number", USAGE)
    return int(user), int(group) if colon else None
