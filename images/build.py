"""Build the container images: ``python -m images.build [NAME...]``.

Nothing is pulled: mmdebstrap makes the Debian base, buildah the layers. Everything that needs the network
(Debian's packages, the wheels of requirements.lock) happens before buildah starts and is kept in
~/.cache/panosc-dev. An image carries the hash of all that went into it as a label; while that hash stands, it is
not built again.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path.home() / ".cache/panosc-dev"
LABEL = "eu.panosc.content"

DEBIAN = "bookworm"
DEBIAN_PACKAGES = ("python3", "ca-certificates", "tini", "libstdc++6")  # the last for wheels with C++ in them
MMDEBSTRAP = (
    "mmdebstrap",
    "--variant=essential",
    f"--include={','.join(DEBIAN_PACKAGES)}",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",  # else usrmerge comes, and with it 50 MB of perl
    *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "info", "locale", "doc")),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    # By hash and unchecked, see install.py.
    '--customize-hook=chroot "$1" python3 -m compileall -qf --invalidation-mode unchecked-hash /usr/lib/python3.11',
    '--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname"',  # this host's
)
TOOLS = ("buildah", "mmdebstrap")
COMPILE_FLAGS = (  # those of `make lock`
    "--quiet",
    "--python-version=3.11",
    "--python-platform=x86_64-manylinux_2_36",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-header",
    "--no-annotate",
)
DOWNLOAD_FLAGS = ("--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:")
BUILD_FLAGS = ("--isolation=chroot", "--layers", "--format=oci", "--timestamp=0")


class BuildError(Exception):
    """An image cannot be built; the message says what to change."""


@dataclass(frozen=True)
class Image:
    """One image: its folder under images/, the image below it, and what is installed in it."""

    name: str
    parent: str | None = None
    requirements: tuple[str, ...] = ()  # what `uv pip compile` reads
    distribution: str | None = None  # folder of the project's own distribution that is installed


IMAGES = {
    image.name: image
    for image in (
        Image("base"),
        Image("analysis", "base", ("analysis/pyproject.toml",), "analysis"),
        Image("jupyter", "analysis", ("analysis/pyproject.toml", "--group=pyproject.toml:jupyter")),
        Image("operator", "base", ("operator/pyproject.toml",), "operator"),
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m images.build",
        description="Build the container images that changed.",
        epilog="IMAGE_PREFIX: first part of the images' names (localhost/panosc). "
        "BASE_IMAGE: an image with Debian 12's python3 and tini to stand on, instead of a base made here.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(IMAGES)} (default: all)")
    parser.add_argument("--refresh", action="store_true", help="make the Debian base anew, of today's packages")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in IMAGES]:
        parser.error(f"no image is called {unknown[0]}; there are {', '.join(IMAGES)}")
    try:
        build_images(options.names or list(IMAGES), refresh=options.refresh)
    except BuildError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


def build_images(names: Iterable[str], *, refresh: bool = False) -> list[str]:
    """Build the images and those they stand on, each only if something that goes into it changed.

    Parameters
    ----------
    names
        Names of images/ folders.
    refresh
        Make the Debian base anew.

    Returns
    -------
    list of str
        References of the images asked for, such as ``localhost/panosc/jupyter:0.1.0``.

    Raises
    ------
    BuildError
        If the host cannot build, or a step fails.
    """
    names = list(names)
    if os.geteuid() != 0:
        raise BuildError("run this as root: mmdebstrap and buildah need it on this kind of host")
    with one_at_a_time():
        install_tools()
        contents: dict[str, str] = {}
        for image in with_parents(names):
            contents[image.name] = build(image, contents, refresh=refresh)
    return [reference(name) for name in names]


def with_parents(names: Iterable[str]) -> list[Image]:
    """Return the images and all those below them, lowest first."""
    ordered: dict[str, Image] = {}
    for name in names:
        image = IMAGES[name]
        if image.parent:
            ordered |= {below.name: below for below in with_parents([image.parent])}
        ordered[name] = image
    return list(ordered.values())


def reference(name: str) -> str:
    """Return the full name of an image, with the project's version as its tag."""
    project = tomllib.loads((ROOT / "operator/pyproject.toml").read_text())["project"]
    return f"{os.environ.get('IMAGE_PREFIX') or 'localhost/panosc'}/{name}:{project['version']}"


def build(image: Image, contents: Mapping[str, str], *, refresh: bool) -> str:
    """Build one image unless it is there already; return the hash of its content."""
    rootfs = root_filesystem(refresh=refresh) if image.parent is None else None
    lock = subset(image.requirements) if image.requirements else ""
    sources = distribution_files(ROOT / image.distribution) if image.distribution else {}
    parts = folder_files(ROOT / "images" / image.name)
    parts["flags"] = "\n".join(BUILD_FLAGS).encode()
    parts["below"] = contents[image.parent].encode() if image.parent else base_identity(rootfs)
    parts["requirements.txt"] = lock.encode()
    if lock:
        parts |= installer_files()
    parts |= {f"distribution/{name}": data for name, data in sources.items()}
    content = content_hash(parts)
    if label(reference(image.name)) == content:
        say(image.name, "unchanged")
        return content

    started = time.monotonic()
    with staged(image, rootfs, lock, sources) as stage:
        run_buildah(image, stage, content, content_hash(sources))
    megabytes = size(reference(image.name)) / 1e6
    say(image.name, f"built in {time.monotonic() - started:.0f} s, {megabytes:.0f} MB")
    return content


# --- what goes into an image --------------------------------------------------------------------------------


def content_hash(parts: Mapping[str, bytes]) -> str:
    """Return one hash over named byte strings, independent of their order."""
    total = hashlib.sha256()
    for name in sorted(parts):
        total.update(f"{name}\0{hashlib.sha256(parts[name]).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def folder_files(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder, without what Python leaves behind."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def distribution_files(folder: Path) -> dict[str, bytes]:
    """Return what a wheel of this distribution is made from: its pyproject.toml and its package."""
    [package] = [path.parent for path in folder.glob("panosc_*/__init__.py")]
    files = {f"{package.name}/{name}": data for name, data in folder_files(package).items()}
    return {"pyproject.toml": (folder / "pyproject.toml").read_bytes()} | files


def base_identity(rootfs: Path | None) -> bytes:
    """Return what the base image is made from: the root file system's hash, or the name of an image."""
    if rootfs is None:
        return os.environ["BASE_IMAGE"].encode()
    return rootfs.with_suffix(".sha256").read_bytes()


def subset(requirements: Sequence[str]) -> str:
    """Return the lines of requirements.lock, hashes included, that these requirements need.

    Raises
    ------
    BuildError
        If something that is needed is not in the lock.
    """
    inputs = [ROOT / item.removeprefix("--group=").split(":")[0] for item in requirements]
    lock = ROOT / "requirements.lock"
    files = {str(path.relative_to(ROOT)): path.read_bytes() for path in {*inputs, lock}}
    cached = CACHE / "locks" / f"{content_hash(files | {'arguments': ' '.join(requirements).encode()})}.txt"
    if not cached.exists():
        compiled = run(
            [*uv(), "pip", "compile", *requirements, "--constraints=requirements.lock", *COMPILE_FLAGS],
            "cannot choose the packages of an image from requirements.lock",
        )
        if missing := pins(compiled) - pins(lock.read_text()):
            raise BuildError(f"{', '.join(sorted(missing))} is not in requirements.lock: run `make lock`")
        write(cached, compiled)
    return cached.read_text()


def pins(lock: str) -> set[str]:
    """Return the ``name==version`` entries of a lock."""
    return set(re.findall(r"^[\w.-]+==[^\s\\;]+", lock, flags=re.MULTILINE))


# --- what must be fetched -----------------------------------------------------------------------------------


def install_tools() -> None:
    """Install buildah and mmdebstrap from Debian where they are missing."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise BuildError(f"install {' and '.join(missing)}: this host has no apt-get to do it")
    say("tools", f"installing {' and '.join(missing)} from Debian")
    wait = "-oDPkg::Lock::Timeout=300"
    advice = f"cannot install {' and '.join(missing)} (is Debian's archive reachable?)"
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", wait, "update"], advice, environment)
    run(["apt-get", wait, "--yes", "--no-install-recommends", "install", *missing], advice, environment)


def root_filesystem(*, refresh: bool) -> Path | None:
    """Return the tar of the Debian base, made when it is missing; None where BASE_IMAGE replaces it."""
    if os.environ.get("BASE_IMAGE"):
        return None
    rootfs = CACHE / "images" / f"rootfs-{content_hash({'command': ' '.join(MMDEBSTRAP).encode()})}.tar"
    if refresh or not rootfs.with_suffix(".sha256").exists():
        say("base", "making the Debian root file system with mmdebstrap, about a minute")
        rootfs.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=rootfs.parent, suffix=".tar") as temporary:
            command = [*MMDEBSTRAP, "--format=tar", DEBIAN, temporary.name, *archives()]
            run(command, "mmdebstrap cannot make the Debian base", {"SOURCE_DATE_EPOCH": "0"})
            with Path(temporary.name).open("rb") as tar:
                digest = hashlib.file_digest(tar, "sha256").hexdigest()
            rootfs.unlink(missing_ok=True)
            os.link(temporary.name, rootfs)
        write(rootfs.with_suffix(".sha256"), digest)
    return rootfs


def archives() -> list[str]:
    """Return the host's list of Debian archives if it is for the same release; else mmdebstrap knows one."""
    lists = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
    return [str(path) for path in lists if path.is_file() and DEBIAN in path.read_text()][:1]


def wheels(lock: str) -> list[Path]:
    """Return the wheels of a part of the lock, downloaded where missing; pip checks their hashes."""
    folder = CACHE / "wheels"
    listing = folder / f"{content_hash({'lock': lock.encode()})}.json"
    if not listing.exists():
        say("wheels", f"fetching {len(pins(lock))} packages of requirements.lock")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            requirements = Path(temporary, "requirements.txt")
            requirements.write_text(lock)
            fetched = Path(temporary, "fetched")
            fetched.mkdir()
            run(
                [sys.executable, "-m", "pip", "download", *DOWNLOAD_FLAGS, f"--find-links={folder}",
                 f"--dest={fetched}", f"--requirement={requirements}"],
                "cannot fetch the wheels of requirements.lock",
            )  # fmt: skip
            names = [path.rename(folder / path.name).name for path in sorted(fetched.iterdir())]
        write(listing, json.dumps(names))
    return [folder / name for name in json.loads(listing.read_text())]


def build_wheel(sources: Mapping[str, bytes], folder: Path) -> None:
    """Build the wheel of one of our distributions, from a copy so that the working tree stays as it is."""
    with tempfile.TemporaryDirectory() as copy:
        for name, data in sources.items():
            write(Path(copy, name), data.decode())
        run(
            [*uv(), "build", "--quiet", "--wheel", f"--out-dir={folder}", copy],
            "cannot build the wheel of a distribution",
            {"SOURCE_DATE_EPOCH": "315532800"},  # 1980, the earliest date a wheel can hold
        )
    (folder / ".gitignore").unlink(missing_ok=True)


# --- buildah ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def staged(image: Image, rootfs: Path | None, lock: str, sources: Mapping[str, bytes]) -> Iterator[Path]:
    """Lay out what buildah needs in a temporary folder: context/ for COPY, mnt/ to be mounted by RUN."""
    parent = CACHE / "images"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f"{image.name}-") as temporary:
        context, mount = Path(temporary, "context"), Path(temporary, "mnt")
        for name, data in folder_files(ROOT / "images" / image.name).items():
            write(context / name, data.decode())
        if image.parent is None:
            rootfs_tar(rootfs, context / "rootfs.tar")
        if lock:
            write(context / "requirements.txt", lock)
            (mount / "wheels").mkdir(parents=True)
            for wheel in wheels(lock):
                os.link(wheel, mount / "wheels" / wheel.name)
            shutil.copy(uv()[0], mount / "uv")
            shutil.copy(ROOT / "images/install.py", mount / installer())
        if sources:
            build_wheel(sources, mount / content_hash(sources))
        yield Path(temporary)


def installer() -> str:
    """Return the name that install.py has during a build: another one whenever it changes."""
    return f"install-{content_hash(installer_files())}.py"


def installer_files() -> dict[str, bytes]:
    """Return what installs packages in an image."""
    return {"install.py": (ROOT / "images/install.py").read_bytes()}


def rootfs_tar(rootfs: Path | None, target: Path) -> None:
    """Put the root file system where the Containerfile adds it; an empty one where BASE_IMAGE has it."""
    if rootfs:
        os.link(rootfs, target)
    else:
        tarfile.open(target, "w").close()


def run_buildah(image: Image, stage: Path, content: str, distribution: str) -> None:
    """Build one image from its staged folder and tag it; the one that had the tag is removed."""
    tag = reference(image.name)
    before = image_id(tag)
    command = ["buildah", "build", *BUILD_FLAGS, f"--label={LABEL}={content}", f"--tag={tag}"]
    if image.parent:
        command += [f"--build-arg=BASE={reference(image.parent)}", "--pull-never"]
        command += [f"--volume={stage / 'mnt'}:/mnt:ro", f"--build-arg=INSTALLER={installer()}"]
        if image.distribution:
            command.append(f"--build-arg=DISTRIBUTION={distribution}")
    elif base := os.environ.get("BASE_IMAGE"):
        command.append(f"--build-arg=BASE_IMAGE={base}")
    follow(image.name, [*command, str(stage / "context")])
    if before and before != image_id(tag):
        # Refused where another image stands on it: that one is built next.
        subprocess.run(["buildah", "rmi", before], capture_output=True, check=False)


def label(tag: str) -> str | None:
    """Return the content hash that an image carries; None if there is no such image."""
    return inspect(tag, f'{{{{index .OCIv1.Config.Labels "{LABEL}"}}}}')


def image_id(tag: str) -> str | None:
    """Return the identifier of an image; None if there is no such image."""
    return inspect(tag, "{{.FromImageID}}")


def inspect(tag: str, template: str) -> str | None:
    """Return one property of an image; None if there is no such image."""
    command = ["buildah", "inspect", "--type=image", f"--format={template}", tag]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def size(tag: str) -> int:
    """Return the bytes of an image, with all its layers."""
    manifest = json.loads(inspect(tag, "{{.Manifest}}") or "{}")
    return sum(layer["size"] for layer in manifest.get("layers", []))


# --- running things -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other process builds images."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "images.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("images", "waiting for another build to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def uv() -> list[str]:
    """Return the command of the uv that requirements.lock pins."""
    path = Path(sys.executable).with_name("uv")
    if not path.exists():
        raise BuildError(f"{path} is missing: run `make venv`, then .venv/bin/python -m images.build")
    return [str(path)]


def run(command: Sequence[str], advice: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a command in the project's folder and return what it printed; its last line explains a failure."""
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | (environment or {}), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BuildError(explain(advice, done.stderr or done.stdout))
    return done.stdout


def follow(name: str, command: Sequence[str]) -> None:
    """Run buildah and show its steps; all it prints goes to a log."""
    log = CACHE / "logs" / f"images-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w") as output,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            output.write(line)
            if line.startswith("STEP"):
                say(name, line.strip()[:70])
    if process.returncode:
        raise BuildError(explain(f"buildah cannot build {name} (all of its output: {log})", log.read_text()))


def explain(advice: str, output: str) -> str:
    """Return one line that says what failed and, from the output of what failed, why."""
    if "no space left on device" in output.lower():
        return f"{advice}: the disk is full; `df -h {CACHE} /var/lib/containers` shows where"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(?i)(e:|error\b|×|fatal)", line)]
    return f"{advice}: {(errors or lines or ['no output'])[-1]}"


def write(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it, readable by everyone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(0o644)
    temporary.rename(path)


def say(name: str, message: str) -> None:
    """Show progress."""
    print(f"{name:10}{message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
