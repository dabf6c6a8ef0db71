"""The operator as a process of its own, with the rights of its ServiceAccount and no more."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.control_plane.api import Api, eventually

NAMESPACE = "panosc-system"
ACCOUNT = "panosc-operator"
KEY = b"0123456789abcdef0123456789abcdef"
IMAGE = "localhost/panosc/operator:0.1.0"
_START_SECONDS = 60.0
"""Python and its libraries alone take several on a busy machine."""
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def account_kubeconfig(admin: Api, folder: Path) -> tuple[Path, str]:
    """Write a kubeconfig of the operator's ServiceAccount; return its path and the token in it."""
    token = admin.kubectl("create", "token", ACCOUNT, f"--namespace={NAMESPACE}", "--duration=4h").strip()
    config = yaml.safe_load(admin.kubeconfig.read_text())
    config["users"] = [{"name": ACCOUNT, "user": {"token": token}}]
    for context in config["contexts"]:
        context["context"]["user"] = ACCOUNT
    path = folder / "operator.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path, token


class OperatorProcess:
    """One replica of the operator; it can be started again after its end.

    Parameters
    ----------
    kubeconfig
        Of the ServiceAccount.
    folder
        For its key and its log.
    name
        Of the log file.
    """

    def __init__(self, kubeconfig: Path, folder: Path, name: str) -> None:
        self._kubeconfig = kubeconfig
        self._key = folder / "key"
        self._key.write_bytes(KEY)
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until its store is filled."""
        assert not self.running
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PANOSC_", "KUBE"))},
            "KUBECONFIG": str(self._kubeconfig),
            "PANOSC_NAMESPACE": NAMESPACE,
            "PANOSC_KEY_FILE": str(self._key),
            "PANOSC_IMAGE": IMAGE,
            "PANOSC_HTTP_PORT": str(self._port),
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "panosc_operator"], env=environment, stdout=log, stderr=log
            )
        eventually("the operator is ready", self.ready, _START_SECONDS)

    def kill(self) -> None:
        """End it without a chance to say good-bye."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """Ask it to end; return its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout=20)

    def get(self, path: str) -> tuple[int, str]:
        """Return status and text of an answer of its HTTP server; status 0 for none."""
        try:
            with _NO_PROXY.open(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def ready(self) -> bool:
        """Whether ``/readyz`` says so; fails at once if the process has ended."""
        if not self.running:
            raise RuntimeError(f"the operator ended: {self.log.read_text()[-2000:]}")
        return self.get("/readyz")[0] == 200

    def metric(self, sample: str, **labels: str) -> float:
        """Return the sum of the samples of that name that have these labels."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return sum(
            found.value
            for family in families
            for found in family.samples
            if found.name == sample and labels.items() <= found.labels.items()
        )

    def leads(self) -> bool:
        """Whether it holds the Lease, as it says itself."""
        return self.metric("panosc_leader") == 1

    def wait_to_lead(self, seconds: float = 20.0) -> None:
        """Wait until it leads."""
        eventually("the operator leads", self.leads, seconds)

    def wait_for_passes(self, api: Api) -> None:
        """Wait until it has looked at every session and job at least once since it started."""
        wanted = {kind: len(api.list(kind)) for kind in ("AnalysisSession", "AnalysisJob")}

        def passed() -> bool:
            idle = self.metric("panosc_workqueue_depth") == 0
            return idle and all(self.metric("panosc_reconcile_total", kind=kind) >= n for kind, n in wanted.items())

        eventually("the operator has looked at everything", passed)


def forget_leader(api: Api) -> None:
    """Clear the Lease of a replica that was killed: what waiting for its end would do, in less time."""
    api.patch("Lease", NAMESPACE, "panosc-operator", {"spec": {"holderIdentity": ""}})
