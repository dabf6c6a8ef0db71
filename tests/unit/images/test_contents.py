"""The files that go into the images: Dask's and Jupyter's settings, the compiler of byte code, the CRDs of Dask."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from traitlets.config.loader import PyFileConfigLoader

from images import build, install
from manifests import generate_dask_crds

IMAGES = build.ROOT / "images"


def test_dask_has_its_default_routes_and_the_api_that_retires_workers() -> None:
    ours = yaml.safe_load((IMAGES / "analysis/dask.yaml").read_text())
    defaults = yaml.safe_load(files("distributed").joinpath("distributed.yaml").read_text())
    routes = ours["distributed"]["scheduler"]["http"]["routes"]
    expected = defaults["distributed"]["scheduler"]["http"]["routes"]
    assert routes == [*expected, "distributed.http.scheduler.api"]
    for route in routes:
        assert importlib.util.find_spec(route), route


@pytest.fixture
def jupyter_config(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The settings as Jupyter reads them."""
    monkeypatch.setenv("JUPYTER_TOKEN", "secret")
    monkeypatch.setenv("HOME", "/home/ada")
    return PyFileConfigLoader("jupyter_server_config.py", str(IMAGES / "jupyter")).load_config()


def test_jupyter_never_asks_outside_and_lets_nobody_change_the_token(jupyter_config: Any) -> None:
    assert jupyter_config.ServerApp.ip == "0.0.0.0"
    assert jupyter_config.ServerApp.root_dir == "/home/ada"
    assert jupyter_config.PasswordIdentityProvider.allow_password_change is False
    assert jupyter_config.LabApp.news_url is None
    assert jupyter_config.LabApp.extension_manager == "readonly"
    overrides = json.loads((IMAGES / "jupyter/overrides.json").read_text())
    assert overrides["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"


def test_every_jupyter_setting_exists(jupyter_config: Any) -> None:
    from jupyter_client.manager import KernelManager
    from jupyter_server.auth.identity import PasswordIdentityProvider
    from jupyter_server.serverapp import ServerApp
    from jupyter_server.services.contents.filemanager import FileContentsManager
    from jupyterlab.labapp import LabApp  # type: ignore[import-untyped]

    for cls in (ServerApp, LabApp, PasswordIdentityProvider, FileContentsManager, KernelManager):
        settings = jupyter_config.pop(cls.__name__)
        assert set(settings) <= set(cls.class_traits(config=True)), cls
    assert not jupyter_config


def test_jupyter_refuses_to_invent_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTER_TOKEN", raising=False)
    with pytest.raises(SystemExit, match="JUPYTER_TOKEN is not set"):
        PyFileConfigLoader("jupyter_server_config.py", str(IMAGES / "jupyter")).load_config()


def test_byte_code_survives_a_change_of_dates(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("answer = 42\n")
    (tmp_path / "template.py").write_text("answer = {{ answer }\n")
    install.compile_new(tmp_path)
    assert not list(tmp_path.glob("__pycache__/template*"))
    [compiled] = tmp_path.glob("__pycache__/good*.pyc")
    os.utime(tmp_path / "good.py", (0, 0))
    command = [sys.executable, "-v", "-c", "import good"]
    environment = {"PYTHONPATH": str(tmp_path)}
    seen = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    assert f"{compiled} matches {tmp_path / 'good.py'}" in seen
    before = compiled.stat().st_mtime_ns
    install.compile_new(tmp_path)
    assert compiled.stat().st_mtime_ns == before, "what lies in a lower layer is not written again"


def test_the_date_of_a_wheel_is_not_kept(tmp_path: Path) -> None:
    info = tmp_path / "thing-1.0.dist-info"
    info.mkdir()
    (info / "uv_cache.json").write_text('{"timestamp": 1}')
    (info / "RECORD").write_text("thing.py,sha256=a,1\nthing-1.0.dist-info/uv_cache.json,sha256=b,16\n")
    install.forget_dates(tmp_path)
    assert [path.name for path in info.iterdir()] == ["RECORD"]
    assert (info / "RECORD").read_text() == "thing.py,sha256=a,1\n"


def test_the_crds_of_dask_are_those_of_the_locked_version() -> None:
    committed = {path.name: path.read_text() for path in generate_dask_crds.TARGET.glob("*.yaml")}
    assert committed == generate_dask_crds.generate(), "run python -m manifests.generate_dask_crds"
    kustomization = yaml.safe_load((generate_dask_crds.TARGET.parent / "kustomization.yaml").read_text())
    assert {f"crds/{name}" for name in committed} <= set(kustomization["resources"])
