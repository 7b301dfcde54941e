"""Commands and groups with the conveniences of istioctl: ``--flag=false``, aliases, "did you mean". A command's code is
imported only when it runs, so that ``--help`` is instant."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable
from typing import Any

import click

from lateen.cli import foreign
from lateen.cli.output import USAGE, CliError
from lateen.kit import duration

PASSED_ON = ("-c", "--kubeconfig", "--context", "-n", "--namespace", "-i", "--istioNamespace")
"""Options of most commands, each with a value, that may also stand before a command's name."""
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_BOOLEAN = re.compile(r"(--?[A-Za-z][-A-Za-z]*)=(true|false)")


class Command(click.Command):
    """A command whose flags may also be written ``--flag=true`` and ``--flag=false``, and options ``-n=shop``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, self._all_spelled(args))
        except click.NoSuchOption as e:
            _refuse(ctx, e.option_name)
            raise

    def _all_spelled(self, args: list[str]) -> list[str]:
        own = args.index("--") if "--" in args else len(args)  # what follows belongs to another program
        return [a for arg in args[:own] for a in self._spelled(arg)] + args[own:]

    def _spelled(self, arg: str) -> list[str]:
        if arg[2:3] == "=" and any(arg[:2] in p.opts for p in self.params if not getattr(p, "is_flag", False)):
            return [arg[:2], arg[3:]]
        m = _BOOLEAN.fullmatch(arg)
        option = self._flag(m[1]) if m else None
        if m is None or option is None:
            return [arg]
        if m[2] == "true":
            return [m[1]]
        return option.secondary_opts[:1]

    def _flag(self, name: str) -> click.Option | None:
        return next((p for p in self.params if isinstance(p, click.Option) and p.is_flag and name in p.opts), None)


def _refuse(ctx: click.Context, option: str) -> None:
    """Raises CliError for an option that istioctl's command has."""
    if says := foreign.of(ctx.info_name or "", option):
        raise CliError(f"istioctl's {option} is not supported: {says}", USAGE)


class Seconds(click.ParamType[Any]):
    """A duration as in Go, "5m0s"; a plain number is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return float(value) if _NUMBER.fullmatch(value) else max(0.0, duration.seconds(value))
        except ValueError as e:
            self.fail(str(e), param, ctx)


Entry = tuple[str, str]
"""(module:attribute, one line of help)"""


class Group(click.Group):
    """A group that knows its commands by name and imports them only when they run."""

    def __init__(
        self,
        *args: Any,
        entries: dict[str, Entry],
        aliases: dict[str, str] | None = None,
        passed_on: tuple[str, ...] = (),
        flags: tuple[str, ...] = (),
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.entries, self.aliases = entries, aliases or {}
        self.passed_on, self.flags = (*PASSED_ON, *passed_on), flags

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, self._moved(args))
        except click.NoSuchOption as e:
            _refuse(ctx, e.option_name)
            raise

    def _moved(self, args: list[str]) -> list[str]:
        """The command's name first, then the command's options that stood before it: ``-n shop proxy-status``."""
        at = 0
        while at < len(args):
            if args[at] in self.passed_on:
                at += 2
            elif {args[at].partition("=")[0], args[at][:2]} & {*self.passed_on, *self.flags}:
                at += 1
            else:
                break
        rest = args[at:]
        return [rest[0], *args[:at], *rest[1:]] if rest and not rest[0].startswith("-") else rest

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        return sorted(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        name = self.aliases.get(cmd_name, cmd_name)
        if name not in self.entries:
            return None
        module, _, attribute = self.entries[name][0].partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(self.entries.items())])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            if says := foreign.COMMANDS.get(args[0]):
                raise CliError(f'"{args[0]}" {says}', USAGE)
            near = difflib.get_close_matches(args[0], [*self.entries, *self.aliases], 1)
            hint = f'; did you mean "{near[0]}"?' if near else f"; see {ctx.command_path} --help"
            raise CliError(f'unknown command "{args[0]}" for "{ctx.command_path}"{hint}', USAGE)
        return super().resolve_command(ctx, args)


def command(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """``click.command`` for a Command."""
    return click.command(name, cls=Command, **attributes)
