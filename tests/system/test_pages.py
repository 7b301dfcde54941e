"""The pages of the documentation, command by command, as they are written, on the cluster of the other tests.

The ``console`` and ``sh`` blocks of a page are typed into one shell, and the objects of its ``yaml`` blocks applied, in
the order of the page. A block after ``<!-- not run: reason -->`` is not run, and its objects are only validated.
``lateen install`` and ``lateen upgrade`` get ``--dry-run``, because the cluster is shared.
"""

import re
import subprocess
import sys

import pytest
import yaml
from pages import ROOT, blocks, pages, written_by_hand

pytestmark = [pytest.mark.system, pytest.mark.timeout(500)]  # a page is one test, and so is its wait for the add-ons

PAGES = {n: blocks(t) for n, t in pages().items() if written_by_hand(t)}
RUN = [n for n, found in PAGES.items() if any(b.language in ("console", "sh", "yaml") for b in found)]
FIRST = ("README.md", "docs/tutorial.md")
"""What a newcomer reads is tried at every change; each of the others takes about ten seconds."""
MARK = "==== block"
PRELUDE = """
lateen() { case "$1" in install|upgrade) command lateen "$@" --dry-run;; *) command lateen "$@";; esac; }
"""
VARIES = {  # what differs from one run to the next, and what stands for it
    r"…": ".*",
    r"-[0-9a-z]{9,10}-[0-9a-z]{5}\b": "-[0-9a-z]{9,10}-[0-9a-z]{5}",  # a pod's name
    r"\b(\d+[smhd])+\b": r"(\d+[smhd])+",  # an age
    r"\d+": r"\d+",
}


@pytest.fixture(scope="module")
def shell(mesh, tmp_path_factory):
    """A folder with the programs of this installation on the path, and the samples where a checkout has them."""
    folder = tmp_path_factory.mktemp("pages")
    bin_ = folder / "bin"
    bin_.mkdir()
    (bin_ / "kubectl").symlink_to(mesh.kubectl_path)
    for name, module in (("lateen", "-m lateen"), ("python", "")):
        (bin_ / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        (bin_ / name).chmod(0o755)
    (folder / "samples").symlink_to(ROOT / "samples")
    environment = mesh.environment | {
        "PATH": f"{bin_}:{mesh.environment['PATH']}",
        "GATEWAY": mesh.ingress(),
    }

    mesh.lateen("addons", "apply", timeout=180)  # as lateen demo leaves them
    mesh.until(lambda: mesh.page()[0] == 200, what="the product page")
    suggest = ("x", "authz", "suggest", "-n", "default")
    mesh.until(
        lambda: mesh.page() and "principals" in mesh.lateen(*suggest, ok=False).stdout, 60, "what was seen of it"
    )

    def run(script):
        done = subprocess.run(
            ["bash", "-c", PRELUDE + script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        return done.stdout

    yield run
    mesh.lateen("addons", "delete")


@pytest.mark.parametrize("name", [n if n in FIRST else pytest.param(n, marks=pytest.mark.long) for n in RUN])
def test_the_commands_of_a_page(name, mesh, shell):
    steps = list(script(PAGES[name]))
    text = "\n".join(f"{command}\ncode=$?; echo; echo '{MARK}' {at} $code" for at, (_, command, _) in enumerate(steps))
    try:
        out = shell(text) if steps else ""
    finally:
        restore(mesh, PAGES[name])
    for at, (line, command, wanted) in enumerate(steps):
        said, _, out = out.partition(f"\n{MARK} {at} ")
        code, _, out = out.partition("\n")
        told = f"{name}:{line}\n$ {command}\n{said}"
        failure = any(each.startswith("Error") for each in wanted)
        assert code, f"{told}\n(the shell ended here)"
        assert (code == "0") is not failure, told
        for each in wanted:
            assert any(re.fullmatch(shape(each), got) for got in map(spaced, said.splitlines())), (
                f"{told}\nlacks: {each}"
            )


def script(found):
    """(line of the page, command, lines of output that it must print)."""
    for block in found:
        if block.language == "yaml" and "kind: IstioOperator" in block.text and not block.not_run:
            yield block.line, heredoc("command lateen manifest generate -f - >/dev/null", block.text), []
        elif (
            block.language == "yaml"
            and block.text.startswith("apiVersion:")
            and "kind: IstioOperator" not in block.text
        ):
            verb = "lateen validate" if block.not_run else "kubectl apply"
            yield block.line, heredoc(f"{verb} -f -", block.text), []
        elif block.language in ("console", "sh") and not block.not_run:
            for command, out in block.commands():
                strict = f"set -e\n{command}\nset +e" if block.language == "sh" else command
                yield block.line, strict, [each for each in out if each.strip() and each.strip() != "…"]


def heredoc(command, text):
    return f"{command} <<'PAGE'\n{text}\nPAGE"


def spaced(line):
    return re.sub(r"\s+", " ", line.strip())


def shape(line):
    """A printed line as a pattern: ``…`` stands for anything, a number for any number, a pod's name for any pod's."""
    varying = re.compile("|".join(f"(?:{each})" for each in VARIES))
    out, end = "", 0
    for found in varying.finditer(spaced(line)):
        by = next(by for each, by in VARIES.items() if re.fullmatch(each, found[0]))
        out += re.escape(spaced(line)[end : found.start()]) + by
        end = found.end()
    return out + re.escape(spaced(line)[end:])


def restore(mesh, found):
    """Take away what a page has made, for the next page and the other tests."""
    text = "\n".join(command for _, command, _ in script(found))
    files = [f for each in re.findall(r"kubectl apply (.*)", text) for f in re.findall(r"-f (samples/\S+)", each)]
    objects = [
        o
        for block in found
        if block.language == "yaml" and not block.not_run and "kind: IstioOperator" not in block.text
        for o in yaml.safe_load_all(block.text)
        if isinstance(o, dict) and "apiVersion" in o
    ]
    objects += [o for file in dict.fromkeys(files) for o in yaml.safe_load_all((ROOT / file).read_text())]
    if objects:
        text = yaml.safe_dump_all(objects)
        mesh.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=text, ok=False)
