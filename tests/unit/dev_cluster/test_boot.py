from pathlib import Path

import pytest

from dev.cluster import cluster


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cluster, "RUNTIME", tmp_path / "run")
    monkeypatch.setattr(cluster, "_BOOT_ID", tmp_path / "boot_id")
    (tmp_path / "boot_id").write_text("first\n")
    cluster._forget_last_boot()
    (tmp_path / "run" / "demo").mkdir()
    return tmp_path / "run"


def test_what_runs_is_kept(runtime: Path) -> None:
    cluster._forget_last_boot()
    assert (runtime / "demo").is_dir()


def test_what_ran_before_the_boot_is_forgotten(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("second\n")
    cluster._forget_last_boot()
    assert [path.name for path in runtime.iterdir()] == ["boot"]
