"""Jupyter server of a session pod: one user, one token, no way out of the cluster."""

import os
import sys
from typing import Any

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821 (Jupyter provides it)

if not os.environ.get("JUPYTER_TOKEN"):
    # Jupyter would invent a token and print it in the log.
    sys.exit("JUPYTER_TOKEN is not set: give the pod its token from a Secret")

c.ServerApp.ip = "0.0.0.0"
c.ServerApp.port = 8888
c.ServerApp.port_retries = 0
c.ServerApp.open_browser = False
c.ServerApp.root_dir = os.environ["HOME"]
c.PasswordIdentityProvider.allow_password_change = False

# A home on NFS has no trash that anybody empties.
c.FileContentsManager.delete_to_trash = False

# A pod has 30 s to end; a kernel that ignores its shutdown request is killed well before.
c.KernelManager.shutdown_wait_time = 2.0

# There is nothing to ask outside: no news, no update checks, no extension installs.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
