"""What a real Prometheus without Kubernetes discovery is told of a cluster, and the configuration that it gets."""

import asyncio
import sys
from pathlib import Path

import pytest
from aiohttp import web

from lateen.api import kinds
from lateen.console import launcher, reloader, scrape_config
from lateen.console.discovery import Cluster, groups
from lateen.kit import tasks
from lateen.kube.client import HttpClient

POD = {
    "metadata": {
        "name": "web-1",
        "namespace": "shop",
        "uid": "u1",
        "labels": {"app.kubernetes.io/name": "web"},
        "annotations": {"prometheus.io/scrape": "true"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "controller": True}],
    },
    "spec": {
        "nodeName": "n1",
        "containers": [
            {"name": "app", "image": "web:1", "ports": [{"containerPort": 8080, "name": "http"}, {"containerPort": 9}]},
            {"name": "bare", "image": "bare:1"},
        ],
        "initContainers": [{"name": "prepare", "image": "p:1"}],
    },
    "status": {
        "podIP": "10.0.0.5",
        "hostIP": "10.0.0.1",
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "app", "containerID": "run://1"}],
    },
}
WAITING = {"metadata": {"name": "web-2", "namespace": "shop"}, "spec": {"containers": [{"name": "app"}]}, "status": {}}
SERVICE = {
    "metadata": {"name": "web", "namespace": "shop", "labels": {"team": "a"}},
    "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}]},
}
ENDPOINTS = {
    "metadata": {"name": "web", "namespace": "shop"},
    "subsets": [
        {
            "addresses": [{"ip": "10.0.0.5", "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1"}}],
            "notReadyAddresses": [{"ip": "fd00::7"}],
            "ports": [{"name": "http", "port": 8080}],
        }
    ],
}
NODE = {
    "metadata": {"name": "n1", "labels": {"zone": "z"}},
    "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n1"}]},
}
CLUSTER = Cluster(
    lambda kind: {
        kinds.POD: [POD, WAITING],
        kinds.SERVICE: [SERVICE],
        kinds.ENDPOINTS: [ENDPOINTS],
        kinds.NODE: [NODE],
    }[kind]
)


def found(role, namespaces=()):
    """{address: its labels, without the prefix that all have}"""
    out = {}
    for group in groups(role, CLUSTER, list(namespaces)):
        (address,) = group["targets"]
        out.setdefault(address, []).append(
            {k.removeprefix("__meta_kubernetes_"): v for k, v in group["labels"].items()}
        )
    return out


def test_a_pod_has_a_target_for_each_port_and_one_for_each_container_without_any():
    pods = found("pod")
    assert {address: len(some) for address, some in pods.items()} == {
        "10.0.0.5:8080": 1,
        "10.0.0.5:9": 1,
        "10.0.0.5": 2,
    }
    assert pods["10.0.0.5:8080"][0] == {
        "namespace": "shop",
        "pod_name": "web-1",
        "pod_ip": "10.0.0.5",
        "pod_host_ip": "10.0.0.1",
        "pod_node_name": "n1",
        "pod_phase": "Running",
        "pod_ready": "true",
        "pod_uid": "u1",
        "pod_controller_kind": "ReplicaSet",
        "pod_controller_name": "web",
        "pod_label_app_kubernetes_io_name": "web",
        "pod_labelpresent_app_kubernetes_io_name": "true",
        "pod_annotation_prometheus_io_scrape": "true",
        "pod_annotationpresent_prometheus_io_scrape": "true",
        "pod_container_name": "app",
        "pod_container_id": "run://1",
        "pod_container_image": "web:1",
        "pod_container_init": "false",
        "pod_container_port_name": "http",
        "pod_container_port_number": "8080",
        "pod_container_port_protocol": "TCP",
    }
    assert sorted(one["pod_container_init"] for one in pods["10.0.0.5"]) == ["false", "true"]


def test_endpoints_have_the_labels_of_their_service_and_pod_and_the_pod_s_other_ports():
    ends = found("endpoints")
    assert ends.keys() == {"10.0.0.5:8080", "[fd00::7]:8080", "10.0.0.5:9"}
    (ready,) = ends["10.0.0.5:8080"]
    assert (ready["endpoint_ready"], ready["endpoint_port_name"], ready["service_label_team"]) == ("true", "http", "a")
    assert (ready["pod_name"], ready["pod_container_port_name"]) == ("web-1", "http")
    (other,) = ends["[fd00::7]:8080"]
    assert other["endpoint_ready"] == "false"
    assert "pod_name" not in other


def test_services_and_nodes_are_found():
    ((address, (service,)),) = found("service").items()
    assert (address, service["service_port_number"], service["service_type"]) == ("web.shop.svc:80", "80", "ClusterIP")
    ((address, (node,)),) = found("node").items()
    assert (address, node["node_name"], node["instance"]) == ("10.0.0.1:10250", "n1", "n1")
    assert node["node_address_Hostname"] == "n1"


def test_only_the_namespaces_that_are_asked_for_are_searched():
    assert found("pod", ["other"]) == {}
    assert found("pod", ["other", "shop"])


def test_kubernetes_discovery_of_a_configuration_becomes_discovery_by_http():
    config = {
        "scrape_configs": [
            {"job_name": "a", "kubernetes_sd_configs": [{"role": "pod"}, {"role": "node"}], "scheme": "http"},
            {"job_name": "b", "static_configs": [{"targets": ["x:1"]}]},
        ],
        "alerting": {
            "alertmanagers": [{"kubernetes_sd_configs": [{"role": "service", "namespaces": {"names": ["m"]}}]}]
        },
    }
    found = scrape_config.translated(config, Path("/etc/config"), "http://here", "own")
    out = found.config
    first, second = out["scrape_configs"]
    assert [one["url"] for one in first["http_sd_configs"]] == ["http://here/0", "http://here/1"]
    assert "kubernetes_sd_configs" not in first
    assert first["scheme"] == "http"
    assert second == config["scrape_configs"][1]
    assert out["alerting"]["alertmanagers"][0]["http_sd_configs"][0]["url"] == "http://here/2"
    assert [(a.role, a.namespaces) for a in found.asked] == [("pod", []), ("node", []), ("service", ["m"])]


def test_discovery_by_http_that_is_there_already_is_kept_and_http_settings_are_passed_on():
    one = {"role": "pod", "namespaces": {"own_namespace": True, "names": ["a"]}, "follow_redirects": False}
    config = {"scrape_configs": [{"http_sd_configs": [{"url": "http://other"}], "kubernetes_sd_configs": [one]}]}
    found = scrape_config.translated(config, Path("/"), "http://here", "own")
    theirs, ours = found.config["scrape_configs"][0]["http_sd_configs"]
    assert theirs == {"url": "http://other"}
    assert ours["follow_redirects"] is False
    assert found.asked[0].namespaces == ["a", "own"]


def test_relative_paths_start_where_the_configuration_was():
    config = {
        "rule_files": ["rules/*.yml", "/abs.yml"],
        "global": {"external_labels": {"a_file": "not-a-path"}},
        "scrape_configs": [
            {
                "job_name": "a",
                "tls_config": {"ca_file": "ca.pem", "server_name": "x"},
                "authorization": {"credentials_file": "token"},
                "file_sd_configs": [{"files": ["targets.json"]}],
                "static_configs": [{"targets": ["x:1"], "labels": {"files": "mine"}}],
            }
        ],
    }
    out = scrape_config.translated(config, Path("/etc/config"), "u", "own").config
    job = out["scrape_configs"][0]
    assert out["rule_files"] == ["/etc/config/rules/*.yml", "/abs.yml"]
    assert out["global"] == config["global"]
    assert job["tls_config"] == {"ca_file": "/etc/config/ca.pem", "server_name": "x"}
    assert job["authorization"]["credentials_file"] == "/etc/config/token"
    assert job["file_sd_configs"] == [{"files": ["/etc/config/targets.json"]}]
    assert job["static_configs"] == config["scrape_configs"][0]["static_configs"]


def test_scrape_configurations_of_other_files_are_part_of_it(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "b.yml").write_text(
        "scrape_configs: [{job_name: b, tls_config: {ca_file: ca.pem}, kubernetes_sd_configs: [{role: pod}]}]"
    )
    config = {"scrape_config_files": ["jobs/*.yml"], "scrape_configs": [{"job_name": "a"}]}
    found = scrape_config.translated(config, tmp_path, "u", "own")
    first, second = found.config["scrape_configs"]
    assert "scrape_config_files" not in found.config
    assert (first["job_name"], second["job_name"]) == ("a", "b")
    assert second["tls_config"]["ca_file"] == str(tmp_path / "jobs" / "ca.pem")
    assert second["http_sd_configs"][0]["url"] == "u/0"


@pytest.mark.parametrize(
    ("one", "says"),
    [
        ({"role": "ingress"}, 'role "ingress" cannot be discovered here'),
        ({"role": "pod", "selectors": [{"role": "pod", "label": "a=b"}]}, "selectors cannot be used here"),
        ({"role": "pod", "api_server": "https://other"}, "api_server cannot be used here"),
        ({"role": ["pod"]}, "role .* cannot be discovered"),
        ({"role": "pod", "namespaces": "shop"}, "namespaces: expected an object"),
        ({"role": "pod", "namespaces": {"names": "shop"}}, "names: expected a list of texts"),
        ({"role": "pod", "namespaces": {"own_namespace": "yes"}}, "own_namespace: expected true or false"),
        ("pod", "expected a list of objects"),
    ],
)
def test_what_cannot_be_discovered_is_said(one, says):
    config = {"scrape_configs": [{"kubernetes_sd_configs": [one]}]}
    with pytest.raises(scrape_config.ConfigProblem, match=says):
        scrape_config.translated(config, Path("/"), "u", "own")


@pytest.mark.parametrize(
    "config",
    [
        {"scrape_configs": [{"kubernetes_sd_configs": 5}]},
        {"scrape_configs": [{"kubernetes_sd_configs": [{"role": "pod"}], "http_sd_configs": "x"}]},
        {"scrape_config_files": "x"},
    ],
)
def test_a_configuration_of_the_wrong_shape_is_refused_by_a_sentence(config):
    with pytest.raises(scrape_config.ConfigProblem, match="expected a list"):
        scrape_config.translated(config, Path("/"), "u", "own")


STAND_IN = f"""#!{sys.executable}
import pathlib, signal, sys
config = pathlib.Path(sys.argv[1].partition("=")[2])
place = pathlib.Path(__file__).parent
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
(place / "ready").touch()
while True:
    signal.sigwait([signal.SIGHUP])
    (place / "seen").write_text(config.read_text())
"""


def test_a_wrong_configuration_is_reported_and_the_next_right_one_is_taken(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(launcher, "LOOK_S", 0.01)
    monkeypatch.setattr(launcher, "TOKEN_DIR", tmp_path)
    (tmp_path / "namespace").write_text("shop\n")
    config = tmp_path / "prometheus.yml"
    config.write_text("scrape_configs: []")
    program = tmp_path / "program"
    # It stands for Prometheus: on SIGHUP it shows what its configuration file has now.
    program.write_text(STAND_IN)
    program.chmod(0o755)

    async def run():
        async with HttpClient("http://127.0.0.1:1", None) as client:
            found = launcher.Launcher(client, [f"--config.file={config}"])
            running = tasks.spawn(found.run(str(program)), "prometheus")
            async with asyncio.timeout(30):
                while not (tmp_path / "ready").exists():
                    await asyncio.sleep(0.05)
                number = 0
                while "the former configuration stays in force" not in caplog.text:
                    config.write_text(f"scrape_configs: [{{kubernetes_sd_configs: [pod-{number}]}}]")
                    number += 1
                    await asyncio.sleep(0.05)
                config.write_text("scrape_configs: [{job_name: right}]")
                while not (tmp_path / "seen").exists() or "right" not in (tmp_path / "seen").read_text():
                    await asyncio.sleep(0.05)
            await tasks.cancel(running)

    asyncio.run(run())


def test_options_are_read_with_and_without_equals_signs():
    assert launcher.option(["--config.file=/a", "--x"], launcher.CONFIG, "d") == "/a"
    assert launcher.option(["--config.file", "/a"], launcher.CONFIG, "d") == "/a"
    assert launcher.option([], launcher.CONFIG, "d") == "d"
    assert launcher._rest(["--config.file", "/a", "--b"]) == ["--b"] == launcher._rest(["--config.file=/a", "--b"])
    given = reloader.options(["--volume-dir=/etc", "-webhook-url", "http://x", "--listen-address=0.0.0.0:8080"])
    assert given == {"--volume-dir": ["/etc"], "--webhook-url": ["http://x"], "--listen-address": ["0.0.0.0:8080"]}


def test_a_changed_file_makes_the_reloader_ask(tmp_path, monkeypatch):
    monkeypatch.setattr(reloader, "LOOK_S", 0.01)
    (tmp_path / "rules.yml").write_text("a")

    async def run():
        asked = asyncio.Event()

        async def reload(_):
            asked.set()
            return web.Response()

        app = web.Application()
        app.add_routes([web.post("/-/reload", reload)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/-/reload"
        args = [f"--watched-dir={tmp_path}", f"--reload-url={url}", "--listen-address=127.0.0.1:0"]
        task = tasks.spawn(reloader.serve(args), "reloader")
        for i in range(1000):
            (tmp_path / "rules.yml").write_text(f"b{i}")
            await asyncio.sleep(0.05)
            if asked.is_set():
                break
        assert asked.is_set()
        task.cancel()
        await runner.cleanup()

    asyncio.run(run())


def test_a_reloader_without_anything_to_do_says_what_is_missing():
    with pytest.raises(ValueError, match="--watched-dir"):
        asyncio.run(reloader.serve(["--reload-url=http://x"]))
