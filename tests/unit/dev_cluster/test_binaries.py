import shutil
from pathlib import Path

import pytest

from dev.cluster import binaries
from dev.cluster.binaries import KUBERNETES, KUBERNETES_VERSION, Tool, cache_key, install, required_version
from dev.cluster.host import ClusterError


@pytest.fixture
def module(tmp_path: Path) -> Path:
    folder = tmp_path / "tool"
    folder.mkdir()
    (folder / "go.mod").write_text("module example.org/tool\n\ngo 1.25.0\n")
    (folder / "main.go").write_text("package main\n\nfunc main() {}\n")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(binaries, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def test_key_changes_with_every_file_and_flag_that_matters(module: Path) -> None:
    keys = {cache_key(module), cache_key(module, "-trimpath")}
    (module / "go.sum").write_text("example.org/other v1.0.0 h1:=\n")
    keys.add(cache_key(module))
    (module / "main.go").write_text("package main\n\nfunc main() { println() }\n")
    keys.add(cache_key(module))
    assert len(keys) == 4


def test_key_does_not_change_with_other_files(module: Path) -> None:
    before = cache_key(module)
    (module / "notes.txt").write_text("seen")
    assert cache_key(module) == before


def test_version_is_read_from_go_mod() -> None:
    text = "module m\n\nrequire a.org/b v1.2.3\n\nrequire (\n\ta.org/c v0.4.0 // indirect\n)\n"
    assert required_version(text, "a.org/b") == "v1.2.3"
    assert required_version(text, "a.org/c") == "v0.4.0"
    with pytest.raises(ValueError, match=r"a\.org/d"):
        required_version(text, "a.org/d")


def test_kubernetes_and_its_staging_modules_are_of_one_release() -> None:
    text = (KUBERNETES.source / "go.mod").read_text()
    _, minor, patch = KUBERNETES_VERSION.split(".")
    staging = {line.split()[-1] for line in text.splitlines() if " => k8s.io/" in line}
    assert staging == {f"v0.{minor}.{patch}"}


@pytest.mark.timeout(120)
def test_a_program_is_built_once_and_found_again(module: Path, cache: Path) -> None:
    tool = Tool("tool", space=1, within=module.parent, names=("alias",))
    folder = tool.build()
    assert (folder / "tool").stat().st_mode & 0o111
    assert (folder / "alias").resolve() == folder / "tool"
    built = (folder / "tool").stat().st_mtime_ns
    assert tool.build() == folder
    assert (folder / "tool").stat().st_mtime_ns == built


@pytest.mark.timeout(120)
def test_a_failed_build_says_why_and_leaves_nothing_to_be_taken_for_a_program(module: Path, cache: Path) -> None:
    (module / "main.go").write_text("package main\n\nfunc main() { missing() }\n")
    tool = Tool("tool", space=1, within=module.parent)
    with pytest.raises(ClusterError, match=r"undefined: missing \(log: .*build-tool.log\)"):
        tool.build()
    assert not tool.folder.exists()


def test_a_full_disk_is_found_before_the_build(module: Path, cache: Path) -> None:
    tool = Tool("tool", space=10**18, within=module.parent)
    with pytest.raises(ClusterError, match=r"building tool needs 1000000000.0 GB in .* are free: make room"):
        tool.build()


def test_no_go(module: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ClusterError, match=r"install Go 1\.25 or later"):
        Tool("tool", space=1, within=module.parent).build()


def test_no_apt_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ClusterError, match=r"install these programs.*: containerd runc"):
        install("runc", "containerd")
