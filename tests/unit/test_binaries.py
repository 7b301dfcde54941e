"""Where the tests with programs of other projects find these programs."""

import binaries
import pytest


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A folder that is the whole path; nothing has been built, and nothing is named."""
    for name in ("helm", *binaries.MODULES):
        monkeypatch.delenv(binaries.variable(name), raising=False)
    monkeypatch.setattr(binaries, "CACHE", tmp_path / "cache")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def helm(file, version):
    file.write_text(f'#!/bin/sh\n[ "$*" = "version --template {{{{.Version}}}}" ] && echo {version}\n')
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize(("version", "name", "other"), [("v3.19.0", "helm3", "helm4"), ("v4.2.0", "helm4", "helm3")])
def test_a_helm_on_the_path_is_used_for_the_version_that_it_has(path, version, name, other):
    program = helm(path / "helm", version)
    assert (binaries.found(name), binaries.found(other), binaries.found("stern")) == (program, "", "")


def test_lateen_test_helm_names_a_helm_that_is_elsewhere(path, tmp_path, monkeypatch):
    helm(path / "helm", "v3.1.0")
    program = helm(tmp_path / "my-helm", "v3.19.0")
    monkeypatch.setenv("LATEEN_TEST_HELM", program)
    assert (binaries.found("helm3"), binaries.found("helm4")) == (program, "")


def test_the_variable_of_one_version_goes_first(path, tmp_path, monkeypatch):
    helm(path / "helm", "v3.19.0")
    monkeypatch.setenv("LATEEN_TEST_HELM3", "/opt/helm3")
    assert binaries.found("helm3") == "/opt/helm3"


def test_a_helm_that_does_not_run_is_none(path, tmp_path, monkeypatch):
    monkeypatch.setenv("LATEEN_TEST_HELM", str(tmp_path / "gone"))
    assert binaries.found("helm3") == ""
