"""Cells executed through a Jupyter server's own kernel API, as JupyterLab does it."""

from __future__ import annotations

import contextlib
import json
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import websocket


class CellError(Exception):
    """A cell raised an exception; the message is its traceback."""


class Kernel:
    """A running kernel."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket = socket

    def run(self, code: str) -> str:
        """Execute a cell and return what it printed."""
        identifier = uuid.uuid4().hex
        header = {"msg_id": identifier, "msg_type": "execute_request", "username": "", "session": identifier}
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        request = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        self._socket.send(json.dumps(request))
        printed: list[str] = []
        while True:
            message = json.loads(self._socket.recv())
            if message["parent_header"].get("msg_id") != identifier:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                printed.append(content["text"])
            elif kind == "error":
                raise CellError("\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle":
                return "".join(printed)


@contextmanager
def start_kernel(url: str, token: str) -> Iterator[Kernel]:
    """Start a kernel on a Jupyter server and shut it down afterwards."""
    header = {"Authorization": f"token {token}"}

    def ask(method: str, path: str) -> Any:
        request = urllib.request.Request(f"{url}{path}", method=method, headers=header, data=b"{}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    identifier = ask("POST", "api/kernels")["id"]
    address = f"{url.replace('http', 'ws', 1)}api/kernels/{identifier}/channels"
    socket = websocket.create_connection(address, header=header, timeout=120)
    try:
        yield Kernel(socket)
    finally:
        socket.close()
        with contextlib.suppress(OSError):  # the test may have deleted the session
            ask("DELETE", f"api/kernels/{identifier}")
