"""What decides whether an image is built again, and what is put in it."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from images import build


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setattr(build, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def built(cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """buildah replaced by a record of the label of each image; no root needed, nothing fetched."""
    labels: dict[str, str] = {}

    def run_buildah(image: build.Image, stage: Path, content: str, distribution: str) -> None:
        assert stage.name == image.name
        labels[build.reference(image.name)] = content

    monkeypatch.setattr(build, "staged", lambda image, *_: _Stage(image.name))
    monkeypatch.setattr(build, "run_buildah", run_buildah)
    monkeypatch.setattr(build, "label", labels.get)
    monkeypatch.setattr(build, "size", lambda *_: 0)
    monkeypatch.setattr(build, "install_tools", lambda: None)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(build, "subset", lambda requirements: "numpy==2.0.0\n" if requirements else "")
    monkeypatch.setenv("BASE_IMAGE", "example/debian:12")
    return labels


class _Stage:
    def __init__(self, name: str) -> None:
        self.path = Path(name)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        pass


def test_an_image_is_built_once(built: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    references = build.build_images(["jupyter"])
    assert references == [build.reference("jupyter")]
    assert set(built) == {build.reference(name) for name in ("base", "analysis", "jupyter")}
    assert capsys.readouterr().out.count("built in") == 3
    build.build_images(["jupyter"])
    assert capsys.readouterr().out.count("unchanged") == 3


@pytest.mark.parametrize("changed", ["BASE_IMAGE", "lock", "sources", "Containerfile", "install.py"])
def test_a_change_rebuilds_the_image_and_what_stands_on_it(
    built: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: str
) -> None:
    build.build_images(build.IMAGES)
    before = dict(built)
    if changed == "BASE_IMAGE":
        monkeypatch.setenv("BASE_IMAGE", "example/debian:12.1")
    elif changed == "lock":
        monkeypatch.setattr(build, "subset", lambda requirements: "numpy==2.0.1\n" if requirements else "")
    elif changed == "sources":
        _patch_files(monkeypatch, "distribution_files", build.ROOT / "analysis", "panosc_analysis/new.py")
    elif changed == "Containerfile":
        _patch_files(monkeypatch, "folder_files", build.ROOT / "images/jupyter", "Containerfile")
    else:
        root = tmp_path / "root"
        for folder in ("images", "analysis", "operator"):
            (root / folder).parent.mkdir(exist_ok=True)
            subprocess.run(["cp", "-r", build.ROOT / folder, root / folder], check=True)
        (root / "images/install.py").write_text("changed")
        monkeypatch.setattr(build, "ROOT", root)
    build.build_images(build.IMAGES)
    rebuilt = {name.split("/")[-1].split(":")[0] for name, content in built.items() if before[name] != content}
    assert (
        rebuilt
        == {
            "BASE_IMAGE": {"base", "analysis", "jupyter", "operator"},
            "lock": {"analysis", "jupyter", "operator"},
            "sources": {"analysis", "jupyter"},
            "Containerfile": {"jupyter"},
            "install.py": {"analysis", "jupyter", "operator"},
        }[changed]
    )


def _patch_files(monkeypatch: pytest.MonkeyPatch, function: str, folder: Path, name: str) -> None:
    original = getattr(build, function)

    def changed(asked: Path) -> dict[str, bytes]:
        files: dict[str, bytes] = original(asked)
        return files | {name: b"changed"} if asked == folder else files

    monkeypatch.setattr(build, function, changed)


def test_the_content_hash_tells_names_from_data() -> None:
    assert build.content_hash({"a": b"1", "b": b"2"}) == build.content_hash({"b": b"2", "a": b"1"})
    assert build.content_hash({"a": b"12", "b": b""}) != build.content_hash({"a": b"1", "b": b"2"})
    assert build.content_hash({"a": b"1"}) != build.content_hash({"b": b"1"})


def test_a_distribution_is_its_package_and_its_pyproject() -> None:
    files = build.distribution_files(build.ROOT / "analysis")
    assert "pyproject.toml" in files
    assert "panosc_analysis/__init__.py" in files
    assert not [name for name in files if "__pycache__" in name or "egg-info" in name]


def test_an_image_gets_exactly_what_it_needs_of_the_lock() -> None:
    names: dict[str, set[str]] = {
        image.name: {pin.split("==")[0] for pin in build.pins(build.subset(image.requirements))}
        for image in build.IMAGES.values()
        if image.requirements
    }
    assert {"dask", "distributed", "extra-data", "numba"} <= names["analysis"]
    assert names["analysis"] < names["jupyter"]
    assert "jupyterlab" in names["jupyter"] - names["analysis"]
    assert {"kopf", "kubernetes", "dask-kubernetes", "distributed"} <= names["operator"]
    assert not {"numpy", "numba", "extra-data", "h5py"} & names["operator"]
    assert not {"pytest", "mypy", "ruff", "uv"} & (names["jupyter"] | names["operator"])
    lock = build.pins((build.ROOT / "requirements.lock").read_text())
    text = build.subset(build.IMAGES["jupyter"].requirements)
    assert build.pins(text) <= lock
    assert len(re.findall("--hash=sha256:", text)) >= len(build.pins(text))


def test_a_package_outside_the_lock_is_an_error(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "requirements.lock").write_text("numpy==2.0.0\n")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "run", lambda *_: "numpy==2.0.0\nscipy==1.0.0 \\\n    --hash=sha256:00\n")
    with pytest.raises(build.BuildError, match=r"scipy==1\.0\.0 is not in requirements\.lock: run `make lock`"):
        build.subset(("pyproject.toml",))


def test_images_are_built_from_the_bottom() -> None:
    assert [image.name for image in build.with_parents(["jupyter", "operator"])] == [
        "base",
        "analysis",
        "jupyter",
        "operator",
    ]


def test_the_prefix_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE_PREFIX", "registry.example.org/analysis")
    assert build.reference("jupyter") == "registry.example.org/analysis/jupyter:0.1.0"
    monkeypatch.setenv("IMAGE_PREFIX", "")
    assert build.reference("jupyter") == "localhost/panosc/jupyter:0.1.0"


def test_with_an_image_to_stand_on_nothing_is_added(tmp_path: Path) -> None:
    build.rootfs_tar(None, tmp_path / "rootfs.tar")
    with tarfile.open(tmp_path / "rootfs.tar") as tar:
        assert tar.getnames() == []


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("write /x: no space left on device\n", "the disk is full"),
        ("Reading...\nE: Unable to locate package buildah\n", "E: Unable to locate package buildah"),
        ("error: no wheel\n\n", "error: no wheel"),
        ("", "no output"),
    ],
)
def test_a_failure_is_one_line_with_its_reason(output: str, line: str) -> None:
    message = build.explain("cannot do it", output)
    assert message.startswith("cannot do it: ")
    assert line in message
    assert "\n" not in message


def test_errors_name_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert build.main([]) == 1
    assert capsys.readouterr().err.startswith("images: run this as root")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda *_: None)
    assert build.main([]) == 1
    assert "install buildah and mmdebstrap" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        build.main(["desktop-lab"])
    assert "no image is called desktop-lab; there are base, analysis" in capsys.readouterr().err
