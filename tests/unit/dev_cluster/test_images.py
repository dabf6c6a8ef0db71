import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from dev.cluster.host import ClusterError
from dev.cluster.images import read_archive, write_archive, write_oci_archive


def test_archive_of_programs_names_its_image(tmp_path: Path) -> None:
    write_archive(tmp_path / "image.tar", "localhost/a/b:1", {"/program": b"\x7fELF"}, ["/program"])
    ((name, digest),) = read_archive(tmp_path / "image.tar").items()
    assert name == "localhost/a/b:1"
    with tarfile.open(tmp_path / "image.tar") as tar:
        config = tar.extractfile(f"{digest.removeprefix('sha256:')}.json")
        assert config is not None
        assert json.load(config)["config"]["Entrypoint"] == ["/program"]
        layer = tar.extractfile("layer.tar")
        assert layer is not None
        with tarfile.open(fileobj=layer) as inner:
            (program,) = inner.getmembers()
    assert (program.name, program.mode) == ("program", 0o755)


def test_same_content_is_the_same_image(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_archive(tmp_path / name, "localhost/a/b:1", {"/p": b"1"}, ["/p"])
    write_archive(tmp_path / "other", "localhost/a/b:1", {"/p": b"2"}, ["/p"])
    one, two, other = (read_archive(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two != other


@pytest.fixture
def pushed(tmp_path: Path) -> tuple[Path, str, str]:
    """An image as ``buildah push dir:`` writes it, with the digests of its config and layer."""
    folder = tmp_path / "pushed"
    folder.mkdir()
    digests = []
    for content in (b"{}", b"layer"):
        digest = hashlib.sha256(content).hexdigest()
        (folder / digest).write_bytes(content)
        digests.append(f"sha256:{digest}")
    manifest = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"digest": digests[0]},
        "layers": [{"digest": digests[1]}],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder, digests[0], digests[1]


def test_oci_archive_leaves_out_the_blobs_that_are_there(tmp_path: Path, pushed: tuple[Path, str, str]) -> None:
    folder, config, layer = pushed
    for present, expected in ((set[str](), 2), ({layer}, 1)):
        with (tmp_path / "oci.tar").open("wb") as target:
            write_oci_archive(folder, "localhost/a/b:1", target, present)
        assert read_archive(tmp_path / "oci.tar") == {"localhost/a/b:1": config}
        with tarfile.open(tmp_path / "oci.tar") as tar:
            blobs = [name for name in tar.getnames() if name.startswith("blobs/sha256/")]
        assert len(blobs) == expected + 1  # and the manifest


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no")
    with pytest.raises(ClusterError, match=r"text is not an image archive \(OCI or Docker\)$"):
        read_archive(tmp_path / "text")


def test_an_image_without_a_name(tmp_path: Path, pushed: tuple[Path, str, str]) -> None:
    with (tmp_path / "oci.tar").open("wb") as target:
        write_oci_archive(pushed[0], "latest", target)
    with pytest.raises(ClusterError, match="names no image"):
        read_archive(tmp_path / "oci.tar")
