"""Images of the cluster: into containerd without a registry."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dev.cluster.host import ClusterError, last_line, run


def write_archive(archive: Path, image: str, files: Mapping[str, bytes], command: Iterable[str]) -> None:
    """Write an image of a few programs as an archive that `docker save` could have written.

    Parameters
    ----------
    archive
        The tar file to write.
    image
        Name and tag.
    files
        Content of each executable by its path in the image.
    command
        What a container of it runs.
    """
    layer = _tar({path.lstrip("/"): content for path, content in files.items()}, mode=0o755)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": list(command), "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [image], "Layers": ["layer.tar"]}]).encode()
    temporary = archive.with_name(f".{archive.name}")
    temporary.write_bytes(_tar({"manifest.json": manifest, name: config, "layer.tar": layer}, mode=0o644))
    temporary.replace(archive)


def _tar(files: Mapping[str, bytes], mode: int) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in files.items():
            _add(tar, name, content, mode)
    return target.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


def write_oci_archive(folder: Path, image: str, target: IO[bytes], present: Container[str] = ()) -> None:
    """Write an image as an OCI archive.

    Parameters
    ----------
    folder
        The image as buildah writes it: ``manifest.json`` and the blobs, named by their SHA-256.
    image
        Full name and tag.
    target
        Stream to write to.
    present
        Digests of blobs to leave out.
    """
    manifest = (folder / "manifest.json").read_bytes()
    parts = json.loads(manifest)
    digests = [blob["digest"] for blob in (parts["config"], *parts["layers"])]
    entry = {
        "mediaType": parts["mediaType"],
        "digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        "size": len(manifest),
        "annotations": {"io.containerd.image.name": image},
    }
    files = {
        "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode(),
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        f"blobs/{entry['digest'].replace(':', '/')}": manifest,
    }
    with tarfile.open(fileobj=target, mode="w|") as tar:
        for name, content in files.items():
            _add(tar, name, content, mode=0o644)
        for digest in dict.fromkeys(digests):
            if digest not in present:
                tar.add(folder / digest.removeprefix("sha256:"), f"blobs/{digest.replace(':', '/')}")


def read_archive(archive: Path) -> dict[str, str]:
    """Return the images of a tar file, OCI or Docker: the digest of the config by full name.

    Raises
    ------
    ClusterError
        If it is no such archive or its images have no full name.
    """
    try:
        with tarfile.open(archive) as tar:
            entries = _docker_entries(tar) if "manifest.json" in tar.getnames() else _oci_entries(tar)
    except (tarfile.TarError, KeyError, json.JSONDecodeError):
        raise ClusterError(f"{archive} is not an image archive (OCI or Docker)") from None
    if not entries:
        raise ClusterError(f"{archive} names no image: write it with its full name and tag")
    return entries


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read()


def _docker_entries(tar: tarfile.TarFile) -> dict[str, str]:
    return {
        name: f"sha256:{hashlib.sha256(_content(tar, entry['Config'])).hexdigest()}"
        for entry in json.loads(_content(tar, "manifest.json"))
        for name in entry["RepoTags"] or []
    }


def _oci_entries(tar: tarfile.TarFile) -> dict[str, str]:
    entries = {}
    for entry in json.loads(_content(tar, "index.json"))["manifests"]:
        annotations = entry.get("annotations", {})
        name = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name")
        if name and "/" in name:  # a bare tag is not a name that a pod could ask for
            manifest = json.loads(_content(tar, f"blobs/{entry['digest'].replace(':', '/')}"))
            entries[name] = manifest["config"]["digest"]
    return entries


@dataclass(frozen=True)
class ImageStore:
    """The images of a node's containerd, in the namespace that the kubelet uses.

    Parameters
    ----------
    socket
        Socket of containerd.
    """

    socket: Path

    def _command(self, *arguments: str | Path) -> list[str | Path]:
        return ["ctr", "--address", self.socket, "--namespace", "k8s.io", *arguments]

    def _ctr(self, *arguments: str | Path, timeout: float = 120) -> str:
        return run(*self._command(*arguments), timeout=timeout)

    def ready(self) -> bool:
        """Whether containerd answers."""
        try:
            self._ctr("version", timeout=5)
        except ClusterError:
            return False
        return True

    def config_digest(self, image: str) -> str | None:
        """Return the digest of the config of an image that is there, None if it is not."""
        for line in self._ctr("images", "list", f"name=={image}").splitlines()[1:]:
            manifest = json.loads(self._ctr("content", "get", line.split()[2]))
            return str(manifest["config"]["digest"])
        return None

    def load(self, reference: str) -> dict[str, bool]:
        """Bring an image from buildah's storage, or all images of a tar file.

        Parameters
        ----------
        reference
            Name of an image that buildah has, or path of an archive.

        Returns
        -------
        dict
            By image: whether it was imported (False: the same was there).

        Raises
        ------
        ClusterError
            If neither buildah nor the file system has it.
        """
        if Path(reference).is_file():
            return self._load_archive(Path(reference))
        inspect = ("buildah", "inspect", "--type", "image", "--format", "{{.FromImage}} {{.FromImageID}}")
        try:
            image, identifier = run(*inspect, reference).split()
        except ClusterError:
            raise ClusterError(f"{reference} is no image of buildah and no archive: build it first") from None
        if self.config_digest(image) == f"sha256:{identifier}":
            return {image: False}
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # not memory: it may be gigabytes
            run("buildah", "push", "--quiet", "--disable-compression", image, f"dir:{folder}", timeout=900)
            self._import(Path(folder), image)
        return {image: True}

    def _import(self, folder: Path, image: str) -> None:
        """Hand containerd the blobs it does not have, as a stream: images share most of their layers."""
        present = set(self._ctr("content", "list", "--quiet").split())
        command = self._command("images", "import", "-")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as ctr:
            assert ctr.stdin is not None
            assert ctr.stderr is not None
            with suppress(BrokenPipeError), ctr.stdin as stream:
                write_oci_archive(folder, image, stream, present)
            message = ctr.stderr.read().decode(errors="replace")
        if ctr.returncode != 0:
            raise ClusterError(f"containerd cannot import {image}: {last_line(message)}")

    def _load_archive(self, archive: Path) -> dict[str, bool]:
        images = read_archive(archive)
        if all(self.config_digest(image) == digest for image, digest in images.items()):
            return dict.fromkeys(images, False)
        self._ctr("images", "import", archive, timeout=900)
        for image in images:
            if self.config_digest(image) is None:
                raise ClusterError(f"containerd took {archive} but knows no image {image}")
        return dict.fromkeys(images, True)
