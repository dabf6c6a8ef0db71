"""A JupyterLab session with a recorded run, as the person at the browser finds it."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.cluster.browser import open_browser
from tests.cluster.conftest import OWNER, Facility, Namespace, condition, proposal_data
from tests.cluster.kernel import Kernel, start_kernel

SESSION = "look"
SPEC = {"environment": "jupyter", "owner": OWNER, "data": [proposal_data()], "home": {"size": "1Gi"}}


def is_ready(status: dict[str, Any]) -> bool:
    return condition(status, "Ready").get("status") == "True"


def reachable(namespace: Namespace, status: dict[str, Any]) -> str:
    """Return the session's address as this host reaches it: service names are the cluster's own."""
    address = namespace.get("service", status["tokenSecret"])["spec"]["clusterIP"]
    host, _, port = status["url"].removeprefix("http://").rstrip("/").partition(":")
    assert host == f"{status['tokenSecret']}.{namespace.name}.svc"
    url = f"http://{address}:{port}/"
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(f"{url}api", timeout=5).close()
        except (urllib.error.URLError, TimeoutError):
            assert time.monotonic() < deadline, "the service does not answer"
            time.sleep(0.2)
        else:
            return url


@pytest.fixture(scope="module")
def status(namespace: Namespace) -> dict[str, Any]:
    namespace.apply("AnalysisSession", SESSION, SPEC)
    return namespace.wait("asess", SESSION, is_ready, 180)


@pytest.fixture(scope="module")
def url(namespace: Namespace, status: dict[str, Any]) -> str:
    return reachable(namespace, status)


@pytest.fixture(scope="module")
def kernel(namespace: Namespace, status: dict[str, Any], url: str) -> Iterator[Kernel]:
    with start_kernel(url, namespace.token(status["tokenSecret"])) as running:
        yield running


def test_status_tells_the_start(status: dict[str, Any]) -> None:
    startup = status["startup"]
    stages = [startup[stage] for stage in ("queuedAt", "scheduledAt", "startedAt", "readyAt")]
    assert stages == sorted(stages)
    assert status["phase"] == "Ready"
    assert status["node"]
    assert {c["type"]: c["status"] for c in status["conditions"]} == dict.fromkeys(
        ("Admitted", "DataReady", "Scheduled", "PodReady", "Ready"), "True"
    )


def test_jupyterlab_opens_in_the_browser(
    namespace: Namespace, status: dict[str, Any], url: str, chromium: str, tmp_path: Path
) -> None:
    with open_browser(chromium, tmp_path / "profile") as browser:
        browser.get(f"{url}lab")
        field = WebDriverWait(browser, 30).until(lambda b: b.find_element(By.ID, "password_input"))
        field.send_keys(namespace.token(status["tokenSecret"]))
        browser.find_element(By.ID, "login_submit").click()
        WebDriverWait(browser, 60).until(lambda b: b.find_elements(By.CSS_SELECTOR, ".jp-Launcher-body"))
        launchers = [card.text for card in browser.find_elements(By.CSS_SELECTOR, ".jp-LauncherCard")]
        assert any("Python 3" in text for text in launchers), launchers
        assert "token" not in browser.current_url


def test_nobody_gets_in_without_the_token(url: str) -> None:
    for header in ({}, {"Authorization": "token wrong"}):
        request = urllib.request.Request(f"{url}api/kernels", headers=header)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 403


def test_open_run_by_proposal_and_run(kernel: Kernel, facility: Facility) -> None:
    printed = kernel.run(
        "from extra_data import open_run\n"
        "run = open_run(proposal=700000, run=8)\n"
        "print(len(run.train_ids), run.files[0].filename)"
    )
    trains, path = printed.split()
    assert int(trains) == facility.truth["beamlines"][0]["trains"]
    assert path.startswith("/gpfs/exfel/exp/XMPL/201750/p700000/raw/r0008/")


def test_raw_is_read_only(kernel: Kernel) -> None:
    printed = kernel.run(
        "import errno\n"
        "raw = '/gpfs/exfel/exp/XMPL/201750/p700000/raw/'\n"
        "for path in (raw + 'x', raw + 'r0008/x'):\n"
        "    try:\n        open(path, 'w')\n    except OSError as error:\n        print(errno.errorcode[error.errno])\n"
    )
    assert printed.split() == ["EROFS", "EROFS"]


def test_identity_is_the_owners(kernel: Kernel) -> None:
    printed = kernel.run("import subprocess; print(subprocess.check_output(['id'], text=True))")
    assert printed.strip() == (
        "uid=31415(mmusterfrau) gid=31416(mmusterfrau) groups=31416(mmusterfrau),700000(p700000)"
    )


def test_usr_is_writable_and_belongs_to_the_owner(kernel: Kernel, facility: Facility) -> None:
    kernel.run("open('/gpfs/exfel/exp/XMPL/201750/p700000/usr/note', 'w').write('seen')")
    note = facility.folder("700000", "usr") / "note"
    assert note.read_text() == "seen"
    assert (note.stat().st_uid, note.stat().st_gid) == (31415, 700000)


def test_other_proposals_are_not_there(kernel: Kernel) -> None:
    assert kernel.run("import os; print(os.listdir('/gpfs/exfel/exp/XMPL/201750'))").strip() == "['p700000']"


def test_token_is_not_logged(namespace: Namespace, status: dict[str, Any], kernel: Kernel) -> None:
    kernel.run("pass")
    token = namespace.token(status["tokenSecret"])
    assert token not in namespace.kubectl("logs", status["podName"])
    assert token not in str(namespace.get("asess", SESSION))
    assert token not in namespace.installation.kubectl("-n", "panosc-system", "logs", "deployment/panosc-operator")


def test_home_outlives_the_session(namespace: Namespace, kernel: Kernel) -> None:
    """Last of this file: it deletes the session."""
    kernel.run("import pathlib; pathlib.Path.home().joinpath('kept').write_text('mine')")
    namespace.kubectl("delete", "asess", SESSION, "--wait=true", "--timeout=60s")
    mine = "analysis.panosc.eu/name=" + SESSION
    deadline = time.monotonic() + 60
    while any(namespace.items(kind, mine) for kind in ("pods", "services", "secrets", "networkpolicies")):
        assert time.monotonic() < deadline, "children are left"
        time.sleep(0.3)
    namespace.apply("AnalysisSession", "again", SPEC)
    status = namespace.wait("asess", "again", is_ready, 120)
    with start_kernel(reachable(namespace, status), namespace.token(status["tokenSecret"])) as kernel:
        assert kernel.run("print(open('/home/mmusterfrau/kept').read())").strip() == "mine"
    namespace.kubectl("delete", "asess", "again", "--timeout=60s")
