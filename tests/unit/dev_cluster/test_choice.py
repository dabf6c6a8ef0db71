"""Which cluster is meant, and what is refused before anything is touched."""

import os
from pathlib import Path

import pytest
import yaml

from dev import cluster
from dev.cluster import ClusterError
from dev.cluster.cluster import Cluster
from dev.cluster.status import describe


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config"
    context = {"name": "mine", "context": {"cluster": "facility", "user": "me"}}
    path.write_text(yaml.safe_dump({"current-context": "mine", "contexts": [context]}))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


@pytest.fixture
def external(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLUSTER", "external")
    return kubeconfig


def test_kubeconfig_of_the_environment_is_ignored_unless_asked_for(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLUSTER", raising=False)
    assert not cluster.external()
    with pytest.raises(ClusterError, match="there is no cluster nobody"):
        cluster.kubeconfig("nobody")


def test_external_cluster_is_named_and_used(external: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster.external()
    assert cluster.up() == external
    assert "cluster facility of KUBECONFIG" in capsys.readouterr().err
    assert "facility (external)" in describe("panosc")


def test_external_cluster_is_not_stopped(external: Path) -> None:
    with pytest.raises(ClusterError, match="facility is not ours to stop"):
        cluster.down()


def test_image_without_a_registry_is_not_pushed(external: Path) -> None:
    with pytest.raises(ClusterError, match="set IMAGE_PREFIX"):
        cluster.load("panosc", ["localhost/panosc/base:0.1.0"])


def test_external_without_kubeconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "external")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(ClusterError, match="needs KUBECONFIG to name a file"):
        cluster.up()


def test_external_without_a_current_context(external: Path) -> None:
    external.write_text("{}")
    with pytest.raises(ClusterError, match="no current context"):
        cluster.up()


def test_other_values_of_cluster_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "minikube")
    with pytest.raises(ClusterError, match="CLUSTER=minikube is not known: set it to external, or unset it"):
        cluster.up()


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "-a", "a-", "a" * 33])
def test_names_that_would_leave_the_folders_of_clusters_are_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="is no name for a cluster"):
        Cluster.find(name)


def test_root_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLUSTER", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for command in (cluster.up, cluster.down):
        with pytest.raises(ClusterError, match="as root"):
            command("nobody")
