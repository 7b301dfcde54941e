"""The cluster's domain is spelled in one place."""

import ast
import pathlib

SOURCE = pathlib.Path(__file__).parents[2] / "src" / "lateen"
HOME = SOURCE / "api" / "domain.py"


def literals(path):
    """(line, text) of the strings that a module works with; those that stand alone are documentation."""
    tree = ast.parse(path.read_text())
    alone = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    for n in ast.walk(tree):
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in alone:
            yield n.lineno, n.value


def test_only_one_module_contains_the_cluster_domain():
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path != HOME
        for line, text in literals(path)
        if "cluster.local" in text
    ]
    assert found == []
    assert any("cluster.local" in text for _, text in literals(HOME))
