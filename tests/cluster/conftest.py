"""A whole cluster with the operators installed, and a facility's storage with simulated proposals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import pytest
from extra_data.tests.mockdata import write_file
from extra_data.tests.mockdata.motor import Motor
from panosc_analysis.simulate.sase_delivery import simulate

from dev import cluster
from dev.demo import IMAGES, DemoError, Installation
from images.build import build_images

NAME = "test"
OWNER = {
    "username": "mmusterfrau",
    "uid": 31415,
    "gid": 31416,
    "supplementalGroups": [{"gid": 700000, "name": "p700000"}],
}
FACILITY_UID = 1000
INSTRUMENT, CYCLE, PROPOSAL = "XMPL", "201750", "700000"


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """The operators on a cluster of the tests' own."""
    if cluster.external():
        pytest.skip("the tests prepare folders on the node: they run on the cluster that dev/cluster makes")
    installed = Installation(NAME)
    installed.kubeconfig = cluster.up(NAME)
    cluster.load(NAME, build_images(IMAGES))
    installed.install()
    yield installed
    cluster.down(NAME, wipe=True)


@dataclass(frozen=True)
class Facility:
    """Folders on the node, laid out and owned as at a facility."""

    root: Path
    truth: dict[str, Any]

    def folder(self, proposal: str, area: str) -> Path:
        """Where an area of a proposal lies."""
        return self.root / INSTRUMENT / CYCLE / f"p{proposal}" / area

    def raw_content(self) -> set[Path]:
        """Every file and folder in the raw areas."""
        return {path for raw in self.root.glob("*/*/*/raw") for path in (raw, *raw.rglob("*"))} | set(
            self.root.glob("*/*/*")
        )


def _make_area(folder: Path, uid: int, gid: int, mode: int) -> Path:
    folder.mkdir(parents=True)
    os.chown(folder, uid, gid)
    folder.chmod(mode)
    return folder


@pytest.fixture(scope="session")
def facility() -> Iterator[Facility]:
    """Proposal 700000 with the two runs, 700001 of others, and 700002 with a run without any gas monitor."""
    root = Path("/var/lib/panosc-test/exp")
    shutil.rmtree(root.parent, ignore_errors=True)
    proposals = root / INSTRUMENT / CYCLE
    raw = _make_area(proposals / "p700000" / "raw", FACILITY_UID, 700000, 0o2750)
    simulate(raw)
    _make_area(proposals / "p700000" / "usr", 0, 700000, 0o2770)
    _make_area(proposals / "p700001" / "raw", FACILITY_UID, 700001, 0o2750)
    _make_area(proposals / "p700001" / "usr", 0, 700001, 0o2770)
    blind = _make_area(proposals / "p700002" / "raw", FACILITY_UID, 700000, 0o2750) / "r0005"
    _make_area(proposals / "p700002" / "usr", 0, 700000, 0o2770)
    blind.mkdir()
    write_file(str(blind / "RAW-R0005-DA01-S00000.h5"), [Motor("XMPL_MOTOR/MOTOR/X")], ntrains=20)
    with h5py.File(blind / "RAW-R0005-DA01-S00000.h5") as file:
        assert "INDEX" in file
    for path in (*raw.rglob("*"), blind, *blind.rglob("*")):
        os.chown(path, FACILITY_UID, 700000)
        path.chmod(0o750 if path.is_dir() else 0o640)
    yield Facility(root, json.loads((raw / "truth.json").read_text()))
    shutil.rmtree(root.parent)


class Namespace:
    """A namespace under the restricted standard, and what the tests do in it."""

    def __init__(self, installation: Installation, name: str) -> None:
        self.installation = installation
        self.name = name

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Apply an object of ours."""
        body = {
            "apiVersion": "analysis.panosc.eu/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": self.name},
            "spec": spec,
        }
        self.installation.kubectl("apply", "--server-side", "-f", "-", text=json.dumps(body))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Return an object."""
        return self.installation.get(kind, name, "-n", self.name)

    def items(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """Return the objects of a kind."""
        options = ["-l", selector] if selector else []
        return list(self.installation.get(kind, "-n", self.name, *options)["items"])

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl here."""
        return self.installation.kubectl("-n", self.name, *arguments)

    def wait(self, kind: str, name: str, until: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        """Wait until an object's status is as wanted; say what it was if it never is."""
        deadline = time.monotonic() + seconds
        while True:
            status: dict[str, Any] = self.get(kind, name).get("status", {})
            if until(status):
                return status
            if time.monotonic() > deadline:
                pytest.fail(f"{kind} {name} after {seconds} s: {json.dumps(status, indent=1)}")
            time.sleep(0.3)

    def token(self, secret: str) -> str:
        """Return a session's token."""
        return self.kubectl("get", "secret", secret, "-o", "go-template={{.data.token | base64decode}}")


def condition(status: dict[str, Any], type_: str) -> dict[str, Any]:
    """Return a condition of a status."""
    return next((entry for entry in status.get("conditions", ()) if entry["type"] == type_), {})


def proposal_data(**overrides: Any) -> dict[str, Any]:
    """Return an entry of ``data`` for the proposal with the two runs."""
    return {"source": "facility", "instrument": INSTRUMENT, "cycle": CYCLE, "proposal": PROPOSAL} | overrides


@pytest.fixture(scope="session")
def namespace(installation: Installation, facility: Facility) -> Iterator[Namespace]:
    """A namespace with the facility's DataSource at hand."""
    template = "{instrument}/{cycle}/p{proposal}"
    areas = [
        {
            "name": area,
            "volume": {"hostPath": {"path": str(facility.root)}},
            "folder": f"{template}/{area}",
            "path": f"/gpfs/exfel/exp/{template}/{area}",
            "readOnly": area == "raw",
        }
        | ({"runFolder": "r{run:04d}"} if area == "raw" else {})
        for area in ("raw", "usr")
    ]
    source = {
        "apiVersion": "analysis.panosc.eu/v1alpha1",
        "kind": "DataSource",
        "metadata": {"name": "facility"},
        "spec": {"areas": areas},
    }
    made = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "team", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    for body in (made, source):
        installation.kubectl("apply", "--server-side", "-f", "-", text=json.dumps(body))
    yield Namespace(installation, "team")
    try:
        installation.kubectl("delete", "namespace", "team", "--wait=false")
    except DemoError as error:
        print(error)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Debian's Chromium and its driver, installed if they are missing."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "chromium-driver"],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
    return str(shutil.which("chromium"))
