"""Type stubs of Envoy's messages for mypy, so that a misspelt field is an error: ``python tools/stubs.py``.

The packages of Envoy's messages have no types. ``mypy-protobuf`` makes stubs of the descriptors in the packages, for
the modules that ``src`` and ``tests`` import and for what these need, into ``typings/``, where mypy looks. The folder
is not in the repository; without it mypy takes the messages for Any.
"""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor import FileDescriptor

ROOT = Path(__file__).parents[1]
OUT = ROOT / "typings"
OWN = ("google/protobuf/", "cel/")
"""Packages that have types of their own (types-protobuf), or share a name with one that has (the library for CEL)."""
ROOTS = ("envoy", "opentelemetry", "udpa", "xds")
_ENUM = re.compile(r"^(\s+\w+: [^\n]*?)(\w[\w.]*\.ValueType)(?= \| None = \.\.\.| = \.\.\.)", re.MULTILINE)


def modules() -> list[str]:
    """The modules of messages that the product and its tests import."""
    found = set()
    for folder in ("src", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ROOTS:
                    module = node.module or ""
                    whole = module.endswith("_pb2")  # what is imported from a module of messages is a message
                    found |= {module} if whole else {f"{module}.{name.name}" for name in node.names}
    return sorted(found)


def files(wanted: list[str]) -> list[FileDescriptor]:
    """Their files and all that these need, what is needed first."""
    out: dict[str, FileDescriptor] = {}

    def add(found: FileDescriptor) -> None:
        for needed in found.dependencies:
            add(needed)
        out.setdefault(found.name, found)

    for name in wanted:
        module = importlib.import_module(name)
        add(descriptor_pool.Default().FindFileByName(module.DESCRIPTOR.name))
    return list(out.values())


def stubs() -> dict[Path, str]:
    request = plugin_pb2.CodeGeneratorRequest(parameter="quiet,readable_stubs")
    for found in files(modules()):
        proto = descriptor_pb2.FileDescriptorProto()
        found.CopyToProto(proto)
        request.proto_file.append(proto)
        if not found.name.startswith(OWN):
            request.file_to_generate.append(found.name)
    plugin = Path(sys.executable).with_name("protoc-gen-mypy")
    done = subprocess.run([plugin], input=request.SerializeToString(), capture_output=True, check=True)
    answer = plugin_pb2.CodeGeneratorResponse.FromString(done.stdout)
    assert not answer.error, answer.error
    # Constructors also take an enum's value by its name.
    out = {OUT / f.name: _ENUM.sub(r"\1\2 | str", f.content) for f in answer.file}
    packages = {folder for path in out for folder in path.relative_to(OUT).parents if folder.parts}
    return out | {OUT / folder / "__init__.pyi": "" for folder in packages}


def main() -> None:
    made = stubs()
    if {p: p.read_text() for p in OUT.rglob("*.pyi")} == made:
        return
    for old in (OUT, ROOT / ".mypy_cache"):  # mypy does not notice that a module without types has some now
        shutil.rmtree(old, ignore_errors=True)
    for path, content in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    print(f"{len(made)} stubs in {OUT.relative_to(ROOT)}/")


if __name__ == "__main__":
    main()
