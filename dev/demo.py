"""A session and a job on a real cluster: what ``make demo`` and ``make demo-clean`` do.

    python -m dev.demo [up|clean]

With ``CLUSTER=external`` the cluster of ``KUBECONFIG`` is used, images go to ``IMAGE_PREFIX``, and the simulated
proposal lies on a folder of a node; so that cluster should have one node, or a shared /var/lib/panosc-demo.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dev import cluster
from images.build import LABEL, BuildError, build_images, label, reference

ROOT = Path(__file__).parent.parent
MANIFESTS = ROOT / "manifests"
IMAGES = ("analysis", "jupyter", "operator")
DEFAULT_PREFIX = "localhost/panosc"
SYSTEM, DATA_NAMESPACE, NAMESPACE = "panosc-system", "panosc-demo-data", "proposal-700000"
SESSION, JOB = "look-at-700000", "sase-delivery-700000"
DATA_FOLDER = Path("/var/lib/panosc-demo")
_DEADLINE_SECONDS = 600
_ENDED = {"AnalysisSession": ("Ready", "Stopped", "Failed"), "AnalysisJob": ("Succeeded", "Failed")}


class DemoError(Exception):
    """Something did not come about; the message says what to look at."""


class Installation:
    """The operators on one cluster, and kubectl on it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kubeconfig = Path()
        self._started = time.monotonic()

    def install(self) -> None:
        """Install the kinds, the operators and the catalogue, and wait for the operators."""
        self.say("kinds, operators and catalogue")
        self.kubectl("apply", "--server-side", "-f", str(MANIFESTS / "base" / "namespace.yaml"))
        self.make_key()
        self.apply(MANIFESTS / "overlays" / "default")
        self.apply(MANIFESTS / "catalogue")
        for deployment in self.get("deployments", "-n", SYSTEM)["items"]:
            name = deployment["metadata"]["name"]
            self.kubectl("-n", SYSTEM, "rollout", "status", f"deployment/{name}", "--timeout=180s")

    def make_key(self) -> None:
        """Make the operator's key, once."""
        if not self.get("secrets", "-n", SYSTEM, "--field-selector=metadata.name=panosc-operator-key")["items"]:
            manifest = {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "panosc-operator-key", "namespace": SYSTEM},
                "stringData": {"key": secrets.token_hex(32)},
            }
            self.kubectl("create", "-f", "-", text=json.dumps(manifest))

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl and return what it prints."""
        command = [str(cluster.kubectl()), "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return an object or a list of them."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "-o", "json", *arguments))
        return found

    def apply(self, folder: Path) -> None:
        """Apply a kustomization, with the images of ``IMAGE_PREFIX``; kinds that are not served yet are waited for."""
        with _customised(folder) as kustomization:
            for attempt in range(10):
                try:
                    self.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(kustomization))
                except DemoError as error:
                    if "no matches for kind" not in str(error) or attempt == 9:
                        raise
                    time.sleep(1)
                else:
                    return

    def delete(self, folder: Path) -> None:
        """Delete what a kustomization names."""
        self.kubectl("delete", "--ignore-not-found", "-k", str(folder))

    def say(self, text: str) -> None:
        """Show a line of progress."""
        print(f"[{time.monotonic() - self._started:6.1f} s] {text}", flush=True)


class Demo(Installation):
    """The steps of the demonstration."""

    def up(self) -> None:
        """Bring everything up, wait, and tell what there is."""
        self.kubeconfig = cluster.up(self.name)
        self.say("images")
        cluster.load(self.name, build_images(IMAGES))
        self.install()
        self.simulate()
        self.say(f"applying manifests/examples to namespace {NAMESPACE}")
        self.apply(MANIFESTS / "overlays" / "demo")
        self.watch()
        self.tell()

    def simulate(self) -> None:
        """Have a proposal simulated on the cluster, unless an earlier demonstration did."""
        self.say("a simulated proposal: p700000 of instrument XMPL, runs 8 and 9")
        if self._simulation() == "Failed":
            self.kubectl("-n", DATA_NAMESPACE, "delete", "job", "simulate-proposal")
        self.apply(MANIFESTS / "overlays" / "demo-data")
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while (outcome := self._simulation()) != "Complete":
            if outcome == "Failed" or time.monotonic() > deadline:
                told = self.kubectl("-n", DATA_NAMESPACE, "logs", "-l", "job-name=simulate-proposal", "--tail=5")
                raise DemoError(f"the simulation did not come about: {told or outcome}")
            time.sleep(0.5)

    def _simulation(self) -> str:
        """Return how the Job of the simulation ended, or nothing."""
        jobs = self.get("jobs", "-n", DATA_NAMESPACE)["items"]
        conditions = [c for job in jobs for c in job.get("status", {}).get("conditions", ()) if c["status"] == "True"]
        return next((c["type"] for c in conditions if c["type"] in ("Complete", "Failed")), "")

    def watch(self) -> None:
        """Show how far session and job are until both have come to something."""
        objects = (("AnalysisSession", SESSION), ("AnalysisJob", JOB))
        deadline = time.monotonic() + _DEADLINE_SECONDS
        shown: dict[str, str] = {}
        while True:
            seen = {name: self.get(kind, name, "-n", NAMESPACE) for kind, name in objects}
            for kind, name in objects:
                line = _progress(kind, seen[name])
                if shown.get(name) != line:
                    self.say(line)
                    shown[name] = line
            if all(seen[name].get("status", {}).get("phase") in _ENDED[kind] for kind, name in objects):
                break
            if time.monotonic() > deadline:
                raise DemoError(f"not there after {_DEADLINE_SECONDS} s: kubectl describe asess,ajob -n {NAMESPACE}")
            time.sleep(0.5)
        phases = (seen[SESSION]["status"]["phase"], seen[JOB]["status"]["phase"])
        if phases != ("Ready", "Succeeded"):
            raise DemoError(f"session and job ended as {phases}: kubectl describe asess,ajob -n {NAMESPACE}")

    def tell(self) -> None:
        """Say where everything is."""
        session = self.get("AnalysisSession", SESSION, "-n", NAMESPACE)["status"]
        job = self.get("AnalysisJob", JOB, "-n", NAMESPACE)["status"]
        secret, service = session["tokenSecret"], session["tokenSecret"]
        print(f"\n  export KUBECONFIG={self.kubeconfig} PATH={cluster.kubectl().parent}:$PATH")
        print(f"\nJupyterLab      {session['url']}  (ready {_start_seconds(session)} s after its pod was made)")
        if not cluster.external():
            address = self.get("service", service, "-n", NAMESPACE)["spec"]["clusterIP"]
            port = session["url"].rsplit(":", 1)[1]
            print(f"  from here     http://{address}:{port}lab")
        print(
            f"  or            kubectl -n {NAMESPACE} port-forward service/{service} 8888  # http://localhost:8888/lab"
        )
        print(
            f"  its token     kubectl -n {NAMESPACE} get secret {secret} "
            "-o go-template='{{.data.token | base64decode}}'"
        )
        print(f"\nJob             {job['outputPath']}")
        if not cluster.external():
            folder = job["outputPath"].replace("/gpfs/exfel/exp", str(DATA_FOLDER / "exp"))
            print(f"  report        {folder}/report.html")
        for name, figure in job["summary"].items():
            print(f"  {name:<30} {_figure(figure)}")
        print(f"  workers       {', '.join(job['provenance']['workers'])}\n")
        print(self.kubectl("-n", NAMESPACE, "get", "asess,ajob"))
        self.say("done; `make demo-clean` removes it all")

    def clean(self) -> None:
        """Remove everything that `up` made."""
        if cluster.external():
            self.kubeconfig = cluster.kubeconfig(self.name)
            for name in ("demo", "demo-data"):
                self.delete(MANIFESTS / "overlays" / name)
            self.delete(MANIFESTS / "catalogue")
            self.delete(MANIFESTS / "overlays" / "default")
            return
        cluster.down(self.name, wipe=True)
        shutil.rmtree(DATA_FOLDER, ignore_errors=True)


@contextlib.contextmanager
def _customised(folder: Path) -> Iterator[Path]:
    """Yield a kustomization of a folder with the images of ``IMAGE_PREFIX``.

    Deployments are marked with the content of the operator's image, so that one that was built anew under its old name
    is rolled out.
    """
    prefix = os.environ.get("IMAGE_PREFIX", DEFAULT_PREFIX)
    mark = {"metadata": {"annotations": {LABEL: label(reference("operator")) or ""}}}
    patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "any"}, "spec": {"template": mark}}
    with tempfile.TemporaryDirectory(dir=MANIFESTS, prefix=".custom-") as made:
        kustomization = {
            "sortOptions": {"order": "fifo"},
            "resources": [os.path.relpath(folder, made)],
            "images": [{"name": f"{DEFAULT_PREFIX}/{name}", "newName": f"{prefix}/{name}"} for name in IMAGES],
            "configurations": [shutil.copy(MANIFESTS / "catalogue" / "images.yaml", made).rsplit("/", 1)[1]],
            "patches": [{"target": {"kind": "Deployment"}, "patch": json.dumps(patch)}],
        }
        (Path(made) / "kustomization.yaml").write_text(json.dumps(kustomization))
        yield Path(made)


def _progress(kind: str, body: dict[str, Any]) -> str:
    status = body.get("status", {})
    summary: dict[str, Any] = next((c for c in status.get("conditions", ()) if c["type"] in ("Ready", "Complete")), {})
    line = f"{kind} {body['metadata']['name']}: {status.get('phase', 'new')}"
    if summary.get("reason") not in (None, status.get("phase")):
        line += f" ({summary['reason']}: {summary['message']})"
    progress = status.get("progress")
    if progress and progress["total"]:
        line += f", {progress['done']} of {progress['total']} partitions"
    workers = status.get("workers")
    if workers and workers["desired"]:
        line += f", {workers['ready']} of {workers['desired']} workers"
    return line


def _start_seconds(session: dict[str, Any]) -> str:
    stamps = [
        time.mktime(time.strptime(session["startup"][key], "%Y-%m-%dT%H:%M:%SZ")) for key in ("queuedAt", "readyAt")
    ]
    return f"{stamps[1] - stamps[0]:.0f}"


def _figure(figure: dict[str, Any]) -> str:
    value = f"{figure['value']:.6g}" if "value" in figure else "-"
    if figure.get("uncertainty"):
        value += f" ± {figure['uncertainty']:.2g}"
    return " ".join(part for part in (value, figure.get("unit", ""), figure.get("note", "")) if part)


def main() -> int:
    """Run one command and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("up", "clean"), nargs="?", default="up")
    parser.add_argument("--name", default="panosc", help="name of the cluster (default: panosc)")
    arguments = parser.parse_args()
    demo = Demo(arguments.name)
    try:
        demo.up() if arguments.command == "up" else demo.clean()
    except (DemoError, BuildError, cluster.ClusterError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
