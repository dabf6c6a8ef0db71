import json
import tomllib
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.cluster.addresses import Addresses
from dev.cluster.configuration import NODE_IMAGE, Configuration
from dev.cluster.host import mounts_under

CONFIGURATION = Configuration("demo", Addresses(3), Path("/state/demo"), Path("/run/demo"))


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return {path.name: text for path, text in CONFIGURATION.files().items()}


def flags(service: str) -> dict[str, str]:
    services = CONFIGURATION.control_plane(Path("/k")) + CONFIGURATION.node(Path("/k"), Path("/c"), Path("/p"))
    (command,) = (service_.command for service_ in services if service_.name == service)
    return dict(str(word).lstrip("-").partition("=")[::2] for word in command[1:])


def test_containerd_keeps_to_the_folders_of_the_cluster(files: dict[str, str]) -> None:
    config = tomllib.loads(files["containerd.toml"])
    cri: dict[str, Any] = config["plugins"]["io.containerd.grpc.v1.cri"]
    options = cri["containerd"]["runtimes"]["runc"]["options"]
    for path in (config["root"], config["state"], config["grpc"]["address"], options["Root"], cri["cni"]["conf_dir"]):
        assert Path(path).is_relative_to("/state/demo") or Path(path).is_relative_to("/run/demo")
    assert cri["restrict_oom_score_adj"]
    assert not options["SystemdCgroup"]
    assert cri["sandbox_image"] == NODE_IMAGE


def test_kubelet_runs_on_control_groups_of_version_1_below_the_cluster_s_own(files: dict[str, str]) -> None:
    config = yaml.safe_load(files["kubelet.yaml"])
    assert config["failCgroupV1"] is False
    assert config["cgroupRoot"] == "/panosc-demo"
    assert config["clusterDNS"] == [str(Addresses(3).node)]
    assert not config["authentication"]["anonymous"]["enabled"]


def test_pods_get_addresses_of_the_cluster_s_range(files: dict[str, str]) -> None:
    plugin = json.loads(files["10-ptp.conflist"])["plugins"][0]
    assert plugin["type"] == "ptp"
    assert (
        IPv4Network(plugin["ipam"]["subnet"]) == Addresses(3).pods == IPv4Network(flags("kube-proxy")["cluster-cidr"])
    )


def test_everybody_means_the_same_services(files: dict[str, str]) -> None:
    _, cluster = yaml.safe_load_all(files["kubeadm.yaml"])
    ranges = {flags(name)["service-cluster-ip-range"] for name in ("kube-apiserver", "kube-controller-manager")}
    assert ranges == {cluster["networking"]["serviceSubnet"]} == {str(Addresses(3).services)}


def test_api_server_keeps_its_default_admission_and_adds_the_nodes() -> None:
    api = flags("kube-apiserver")
    assert api["enable-admission-plugins"] == "NodeRestriction"
    assert "disable-admission-plugins" not in api
    assert api["authorization-mode"] == "Node,RBAC"
    assert "requestheader-client-ca-file" in api
    assert "proxy-client-cert-file" in api


def test_host_s_connection_tracking_is_left_alone() -> None:
    assert {value for name, value in flags("kube-proxy").items() if name.startswith("conntrack-")} == {"0"}


def test_volumes_are_made_by_the_node_s_own_image(files: dict[str, str]) -> None:
    helper = yaml.safe_load(files["volume-helper.yaml"])["spec"]["containers"][0]
    assert helper["image"] == NODE_IMAGE == flags("local-path-provisioner")["helper-image"]
    assert helper["imagePullPolicy"] == "Never"
    paths = json.loads(files["volumes.json"])["nodePathMap"][0]["paths"]
    assert paths == ["/state/demo/volumes"]


def test_mounts_of_the_cluster_are_found_the_last_first() -> None:
    mountinfo = """\
27 1 254:0 / / rw - ext4 /dev/vda rw
50 27 0:40 / /state/demo/kubelet/a rw shared:1 - tmpfs tmpfs rw
51 27 0:41 / /state/demo2/b rw - tmpfs tmpfs rw
52 27 0:42 / /run/demo/c\\040d rw - overlay overlay rw
53 50 0:43 / /state/demo/kubelet/a/e rw - tmpfs tmpfs rw
"""
    assert mounts_under([Path("/state/demo"), Path("/run/demo")], mountinfo) == [
        Path("/state/demo/kubelet/a/e"),
        Path("/run/demo/c d"),
        Path("/state/demo/kubelet/a"),
    ]
