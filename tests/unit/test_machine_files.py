"""The files that a machine joins the mesh with: root reads them, so nothing that an object says may be a command."""

import asyncio
import json
import shutil
import subprocess

import pytest
from click.testing import CliRunner

from lateen.api import kinds
from lateen.cli import machine
from lateen.cli.connect import Target
from lateen.cli.output import CliError
from lateen.kit import yamldoc

QUOTED = "x'; touch {}; '"


class Answers:
    """The mesh that the files are made for."""

    def __init__(self, group=None, address="10.96.0.10"):
        self._kept = {
            kinds.CONFIG_MAP: {"data": {"root-cert.pem": "PEM", "mesh": 'trustDomain: "it\'s"', "values": "{}"}},
            kinds.SERVICE: {"spec": {"clusterIP": address} if address else {"type": "ExternalName"}},
            kinds.WORKLOAD_GROUP: group,
        }

    async def get(self, kind, _namespace, _name):
        return self._kept[kind]

    async def request(self, *_):
        return {"status": {"token": "T"}}


def group(template=None, labels=None, **meta):
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadGroup",
        "metadata": {"name": "racks", "namespace": "default", **meta},
        "spec": {"metadata": {"labels": labels or {"app": "rack"}}, "template": template or {}},
    }


def configured(tmp_path, monkeypatch, obj, *options, there=False, address="10.96.0.10"):
    """The command's outcome, for a group in a file or in the cluster (``there``)."""
    client = Answers(obj, address)
    monkeypatch.setattr(Target, "run", lambda _, work: asyncio.run(work(client)))
    (tmp_path / "group.yaml").write_text(yamldoc.dump(obj))
    named = ["--name", "racks"] if there else ["-f", str(tmp_path / "group.yaml")]
    return CliRunner().invoke(machine.entry_configure, [*named, "-o", str(tmp_path / "out"), *options])


def read(tmp_path):
    """The environment as a shell has it that has read the file."""
    script = f"set -a; . {tmp_path}/out/cluster.env; exec env -0"
    found = subprocess.run(["env", "-i", "sh", "-c", script], capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in found.split("\0") if line)


def test_what_is_sourced_is_what_was_meant(tmp_path, monkeypatch):
    obj = group({"network": "outside", "serviceAccount": "rack", "labels": {"version": "v1.2"}})
    marker = tmp_path / "marker"
    done = configured(tmp_path, monkeypatch, obj, "--clusterID", QUOTED.format(marker))
    assert done.exception is None, done.output
    found = read(tmp_path)
    assert not marker.exists()
    assert found["ISTIO_META_CLUSTER_ID"] == QUOTED.format(marker)
    assert found["ISTIO_META_NETWORK"] == "outside"
    assert found["TRUST_DOMAIN"] == "it's"
    assert json.loads(found["ISTIO_METAJSON_LABELS"]) == {"app": "rack", "version": "v1.2"}
    assert (tmp_path / "out" / "hosts").read_text() == "10.96.0.10 istiod.istio-system.svc\n"


@pytest.mark.parametrize("there", [False, True], ids=["in a file", "in the cluster"])
@pytest.mark.parametrize(
    ("obj", "says"),
    [
        (group({"network": QUOTED}), "spec.template.network"),
        (group({"network": "a\nB=c"}), "spec.template.network"),
        (group({"serviceAccount": "../x"}), "spec.template.serviceAccount"),
        (group({"labels": {"a": QUOTED}}), "spec.template.labels[a]"),
        (group(labels={"a\n": "b"}), "spec.metadata.labels"),
        (group(name=QUOTED), "metadata.name"),
        (group(name=None), "metadata.name"),
        (group(namespace="a b"), "metadata.namespace"),
        (group({"address": QUOTED}), "spec.template.address"),
    ],
)
def test_a_group_whose_fields_are_no_names_gets_no_files(tmp_path, monkeypatch, obj, says, there):
    done = configured(tmp_path, monkeypatch, obj, there=there)
    assert isinstance(done.exception, CliError)
    assert says in str(done.exception)
    assert not (tmp_path / "out" / "cluster.env").exists()


def test_a_variable_is_one_line(tmp_path, monkeypatch):
    for value in ("a\nB=c", "a\rb", "a\0b"):
        with pytest.raises(CliError, match="ISTIO_META_CLUSTER_ID"):
            machine.sourced({"ISTIO_META_CLUSTER_ID": value})
    done = configured(tmp_path, monkeypatch, group(), "--clusterID", "a\nB=c")
    assert isinstance(done.exception, CliError)


@pytest.mark.parametrize(
    ("options", "address", "says"),
    [
        (["--ingressIP", "10.0.0.1 evil\n10.0.0.2"], "10.96.0.10", "is not an IP address"),
        ([], "", "--ingressIP"),
        ([], "None", "--ingressIP"),
    ],
)
def test_a_line_of_hosts_begins_with_an_address(tmp_path, monkeypatch, options, address, says):
    done = configured(tmp_path, monkeypatch, group(), *options, address=address)
    assert isinstance(done.exception, CliError)
    assert says in str(done.exception)


def sidecar(tmp_path, *arguments, **programs):
    """What sidecar.sh says, with these arguments, on a machine with these programs (name -> its lines)."""
    bin_, files = tmp_path / "bin", tmp_path / "files"
    for directory in (bin_, files):
        directory.mkdir()
    (files / "cluster.env").write_text(
        "ISTIO_SERVICE_CIDR='*'\nISTIO_INBOUND_PORTS='*'\nISTIO_LOCAL_EXCLUDE_PORTS=22\n"
    )
    (files / "sidecar.sh").write_text((machine.MACHINE / "sidecar.sh").read_text())
    for name in ("dirname", "cut"):
        (bin_ / name).symlink_to(shutil.which(name))
    for name, text in programs.items():
        (bin_ / name.replace("_", "-")).write_text(f"#!/bin/sh\n{text}\n")
        (bin_ / name.replace("_", "-")).chmod(0o755)
    return subprocess.run(
        ["/bin/sh", files / "sidecar.sh", *arguments],
        env={"PATH": str(bin_)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_without_programs_or_an_address_is_told(tmp_path):
    there = {"pilot_agent": 'echo "$@"', "iptables": "", "setpriv": ""}
    for missing in there:
        (tmp_path / missing).mkdir()
        done = sidecar(tmp_path / missing, **{k: v for k, v in there.items() if k != missing})
        assert (done.returncode, done.stderr.startswith(f"{missing.replace('_', '-')} is not on the path")) == (1, True)
    done = sidecar(tmp_path, **there, hostname="echo")
    assert (done.returncode, done.stdout) == (1, "istio-iptables -u 1337 -i * -b * -d 22\n"), "nothing gets past it"
    assert "set INSTANCE_IP in " in done.stderr


@pytest.mark.parametrize(
    ("job", "cleans"),
    [
        ("1234 lateen-sidecar.service stop    running", True),
        ("7 lateen-sidecar.service restart running", False),
        ("", False),
    ],
    ids=["stopped", "restarted", "crashed"],
)
def test_only_a_sidecar_that_is_stopped_on_purpose_takes_its_redirection_back(tmp_path, job, cleans):
    """The STRICT ports of applications would take plain connections until another sidecar runs."""
    there = {"pilot_agent": "echo $@", "iptables": "", "setpriv": "", "systemctl": f'test "$3" = u && echo "{job}"'}
    done = sidecar(tmp_path, "stopped", "u", **there)
    assert (done.returncode, done.stdout) == (0, "istio-clean-iptables\n" if cleans else "")
