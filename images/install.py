"""Install wheels into /opt/panosc while an image is built: inside the build, without network.

Called by the Containerfiles as ``python3 /mnt/install-HASH.py ARGUMENTS-OF-uv-pip-install``; /mnt is a read-only
mount of uv, this file and the wheels.
"""

from __future__ import annotations

import py_compile
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.util import cache_from_source
from pathlib import Path

STAGE = Path("/mnt")
VENV = Path("/opt/panosc")

#: Libraries whose own tests are large and imported by nobody (extra-data's are: they write simulated runs).
WITHOUT_TESTS = ("dask", "distributed", "matplotlib", "numpy", "pandas", "scipy", "xarray")

#: EXtra-data 1.25 keeps an index beside a run where it may, and goes on where it may not; but the "may not" of a
#: read-only mount (EROFS), which is how our pods see raw data, ends `open_run`.
MENDED = {
    "extra_data/run_files_map.py": (
        "                except PermissionError:\n                    continue\n",
        "                except OSError:\n                    continue\n",
    )
}


def main(arguments: list[str]) -> None:
    """Install what `arguments` name, drop tests nobody needs, compile what is new."""
    uv = str(STAGE / "uv")
    if not (VENV / "bin/python").exists():
        debian = ["--python", "/usr/bin/python3"]
        subprocess.run([uv, "venv", "--quiet", "--allow-existing", *debian, VENV], check=True)
    offline = ["--no-cache", "--offline", "--no-index", "--find-links", str(STAGE / "wheels")]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", VENV, *offline, *arguments], check=True)
    packages = next(VENV.glob("lib/python3*/site-packages"))
    for library in WITHOUT_TESTS:
        for folder in list((packages / library).glob("**/tests")):
            shutil.rmtree(folder, ignore_errors=True)  # one may lie inside another
    forget_dates(packages)
    mend(packages)
    compile_new(packages)


def mend(packages: Path) -> None:
    """Mend what keeps a library from working in our pods; fail if the text to be mended is not there any more."""
    for module, (broken, mended) in MENDED.items():
        path = packages / module
        if path.exists() and mended not in (text := path.read_text()):
            if text.count(broken) != 1:
                raise SystemExit(f"{module}: look whether {broken!r} still has to be mended")
            path.write_text(text.replace(broken, mended))


def forget_dates(packages: Path) -> None:
    """Remove uv's note of each wheel's date, the only thing that would differ in two builds of one lock."""
    for note in packages.glob("*.dist-info/uv_cache.json"):
        record = note.with_name("RECORD")
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if note.name not in line))
        note.unlink()


def compile_new(packages: Path) -> None:
    """Write the byte code of every module that has none, so that no pod compiles at its start.

    By hash and unchecked: the image's files all get one date, which would make byte code checked by date stale.
    """
    new = [path for path in packages.glob("**/*.py") if not Path(cache_from_source(path)).exists()]
    with ProcessPoolExecutor() as pool:
        list(pool.map(compile_one, new, chunksize=50))


def compile_one(path: Path) -> None:
    """Compile one module; templates and code for other Pythons, which libraries ship, stay as they are."""
    try:
        py_compile.compile(str(path), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    except py_compile.PyCompileError:
        return


if __name__ == "__main__":
    main(sys.argv[1:])
