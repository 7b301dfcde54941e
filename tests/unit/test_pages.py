"""What pages of the documentation name is there: pages, headings, commands, options, files, functions."""

import importlib
import re
import shlex

import click
import pytest
from pages import ROOT, anchors, blocks, pages, prose, written_by_hand

from lateen.cli.main import cli

PAGES = pages()
PROGRAMS = {"lateen": cli}
STOPS = {"|", "||", "&&", ";", ">", ">>", "<", "&", "#", "2>&1"}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(PAGES[name])):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (folder / path).resolve() if path else ROOT / name
        assert file.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{name}: no heading {target}"


def test_every_page_is_in_the_index():
    index = PAGES["docs/index.md"]
    missing = [n for n in PAGES if n.startswith("docs/") and n != "docs/index.md" and n[5:] not in index]
    assert not missing


@pytest.mark.parametrize("name", [n for n, text in PAGES.items() if written_by_hand(text)])
def test_blocks_say_what_they_are(name):
    """So that what can be run is run (``tests/system/test_pages.py``)."""
    for block in blocks(PAGES[name]):
        assert block.language in {"console", "sh", "yaml", "text", "lua", "python", "ini", "hcl"}, (
            f"{name}:{block.line}"
        )
    loose = re.findall(r"^    +(?:\$ )?(?:lateen|kubectl|make|helm|curl) [a-z-].*", prose(PAGES[name]), re.MULTILINE)
    assert not loose, f"{name}: commands outside of a fenced block"


@pytest.mark.parametrize("name", PAGES)
def test_whatever_is_not_run_has_a_reason_that_holds(name):
    """A test that a reason names is there."""
    for block in blocks(PAGES[name]):
        for test in re.findall(r"test_\w+\.py", block.not_run):
            assert any((ROOT / "tests").glob(f"*/{test}")), f"{name}:{block.line}: {test}"
        for target in re.findall(r"make ([a-z-]+) runs", block.not_run):
            assert f"\n{target}:" in (ROOT / "Makefile").read_text(), f"{name}:{block.line}: make {target}"


def named_commands():
    """Each ``lateen …`` in a block or in backticks."""
    for name, text in PAGES.items():
        if name == "docs/reference-commands.md" or name == "CHANGELOG.md":
            continue
        code = re.findall(r"`([^`\n]+)`", prose(text))
        for block in blocks(text):
            code += [
                line for line in block.text.replace("\\\n", " ").splitlines() if block.language in ("console", "sh")
            ]
        for line in code:
            for start in re.finditer(r"(?:^|\$ |[|(;&] ?)lateen (?=[a-z-])", line):
                yield name, line[start.end() :]


@pytest.mark.parametrize(("name", "rest"), sorted(set(named_commands())))
def test_commands_and_options_exist(name, rest):
    try:
        words = shlex.split(rest.partition(")")[0], comments=True)
    except ValueError:  # a quote that goes on in the next line
        words = rest.split()
    command, context = cli, click.Context(cli, info_name="lateen")
    for word in words:
        if word in STOPS or word == "--" or word == "…":
            break
        word = word.rstrip(";")
        if word.startswith("-"):
            assert option(command, word), f"{name}: `lateen {rest}`: {command.name} has no option {word}"
        elif isinstance(command, click.Group):
            for each in word.split("|"):  # `addons apply|delete`
                found = command.get_command(context, each)
                assert found is not None or each.isupper(), f"{name}: `lateen {rest}`: no command {each}"
            command = found or command
            context = click.Context(command, info_name=word, parent=context)


def option(command, word):
    if command.context_settings.get("ignore_unknown_options"):
        return True
    name = word.partition("=")[0]
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
    return name in known or (not name.startswith("--") and all(f"-{c}" in known for c in name[1:2]))


def test_the_map_names_what_is_there():
    """Files and rooms of ARCHITECTURE.md, by their path in the package or in the repository."""
    package = ROOT / "src" / "lateen"
    rooms = {p.name for p in package.iterdir() if p.is_dir()}
    missing = []
    for word in re.findall(r"`([a-z_./]+)`", PAGES["ARCHITECTURE.md"]):
        if "/" not in word or word.startswith("/"):
            continue
        places = [
            package / word,
            package / f"{word}.py",
            ROOT / word,
            ROOT / "tests" / word,
            ROOT / "tests" / f"{word}.py",
        ]
        if word.partition("/")[0] in rooms | {"docs", "tests", "tools", "bench"} and not any(
            p.exists() for p in places
        ):
            room, _, leaf = word.rpartition("/")
            module = f"lateen.{room.replace('/', '.')}"
            if not (importable(module) and hasattr(importlib.import_module(module), leaf)):
                missing.append(word)
    assert not missing


def importable(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def test_the_walks_pass_through_functions_that_exist():
    """Three walks: each place that ARCHITECTURE.md sends its reader to."""
    from lateen.api.networking.virtual_service import HTTPRoute
    from lateen.mesh import endpoints, hosts, outbound, policies, workload_view
    from lateen.mesh.model import Mesh
    from lateen.xds import endpoints as eds
    from lateen.xds.filters import authorization
    from lateen.xds.routes import action

    assert "timeout" in HTTPRoute.__struct_fields__
    for room in (endpoints, hosts, outbound, policies, workload_view, eds, authorization, action):
        path = room.__name__.removeprefix("lateen.").replace(".", "/")
        assert f"`{path}" in PAGES["ARCHITECTURE.md"], f"{path} is on no walk"
    assert callable(Mesh.advance)


def test_the_map_is_short():
    assert len(PAGES["ARCHITECTURE.md"].splitlines()) <= 200
