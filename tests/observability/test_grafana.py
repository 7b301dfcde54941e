"""Grafana's own schema, from its foundation SDK for Go, takes the boards' files: ``make test-observability``."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

BOARDS = sorted((Path(__file__).parents[2] / "samples" / "grafana").glob("*.json"))
SDK = "github.com/grafana/grafana-foundation-sdk/go@v0.0.22"
GO = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
PROGRAM = """
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	plugins.RegisterDefaultPlugins()
	for _, name := range os.Args[1:] {
		text, err := os.ReadFile(name)
		if err != nil {
			panic(err)
		}
		var found dashboard.Dashboard
		// Without faults this is an error without a text.
		if err := found.UnmarshalJSONStrict(text); err != nil && err.Error() != "" {
			fmt.Println(name, err)
		}
		if err := found.Validate(); err != nil {
			fmt.Println(name, err)
		}
	}
}
"""


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """Files -> what Grafana's schema says against them."""
    if GO is None:
        pytest.skip("Grafana's schema is built from its Go module, and there is no Go here")
    folder = tmp_path_factory.mktemp("grafana")
    (folder / "main.go").write_text(PROGRAM)

    def run(*argv):
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    run(GO, "mod", "init", "boards")
    run(GO, "get", SDK)
    run(GO, "build", "-p", "1", "-o", "boards", ".")
    return lambda *files: run("./boards", *map(str, files))


def test_grafanas_schema_knows_every_field_of_the_boards(faults, tmp_path):
    assert BOARDS
    assert faults(*BOARDS) == ""
    wrong = json.loads(BOARDS[0].read_text())
    wrong["panels"][0]["targets"][0]["expression"] = "up"
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    assert "unexpected field 'expression'" in faults(tmp_path / "wrong.json")
