"""Write the CRDs of the dask-kubernetes operator anew: ``python -m manifests.generate_dask_crds``.

They come from the dask-kubernetes that requirements.lock pins, which the operator image runs, so that code and CRDs
are always of one version.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

TARGET = Path(__file__).parent / "components/dask-operator/crds"
SOURCE = "operator/deployment/helm/dask-kubernetes-operator/crds"


def generate() -> dict[str, str]:
    """Return the text of each CRD file, by its name."""
    header = f"# From dask-kubernetes {version('dask-kubernetes')} by manifests/generate_dask_crds.py; do not edit.\n"
    folder = files("dask_kubernetes").joinpath(SOURCE)
    return {entry.name: header + entry.read_text() for entry in folder.iterdir() if entry.name.endswith(".yaml")}


def main() -> None:
    """Replace the files in the repository."""
    TARGET.mkdir(exist_ok=True)
    for old in TARGET.glob("dask*.yaml"):
        old.unlink()
    for name, text in generate().items():
        (TARGET / name).write_text(text)


if __name__ == "__main__":
    main()
