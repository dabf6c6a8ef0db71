"""Reports: notebooks that are executed with parameters and rendered to one HTML file that needs no network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from panosc_analysis.errors import JobError

REPORT = "report.html"
_HERE = Path(__file__).parent


def render(notebook: str, folder: Path, title: str) -> Path:
    """Execute a notebook of this package on the results in `folder` and write `report.html` beside them.

    Parameters
    ----------
    notebook
        File name; its parameter `folder` is set.
    folder
        Holds `result.json` and the workflow's tables.
    title
        Heading of the report.

    Raises
    ------
    JobError
        WorkflowFailed: a cell of the notebook failed.
    """
    import papermill
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    with _own_kernel() as scratch:
        # Sockets that are files of ours: no port that others on the machine could reach.
        sockets = Config({"KernelManager": {"transport": "ipc", "ip": str(scratch / "kernel")}})
        try:
            executed = papermill.execute_notebook(
                _HERE / notebook,
                None,
                parameters={"folder": str(folder)},
                kernel_name="python3",
                progress_bar=False,
                config=sockets,
            )
        except papermill.PapermillExecutionError as error:
            raise JobError(
                "WorkflowFailed",
                f"the report {notebook} failed in cell {error.exec_count}: {error.ename}: {error.evalue}",
            ) from error
        except RuntimeError as error:
            raise JobError("WorkflowFailed", f"the report {notebook} could not be made: {error}") from error
    executed.metadata["title"] = title
    exporter = HTMLExporter(
        template_name="template",
        extra_template_basedirs=[str(_HERE)],
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    body, _ = exporter.from_notebook_node(executed)
    path = folder / REPORT
    path.write_text(body, encoding="utf-8")
    return path


@contextmanager
def _own_kernel() -> Iterator[Path]:
    """Make the kernel `python3` this interpreter, whatever kernels and settings the user has.

    Everything that Jupyter and IPython write while a notebook runs goes into a temporary folder, so neither the home
    folder nor the environment has to be writable.
    """
    from ipykernel.kernelspec import write_kernel_spec

    with TemporaryDirectory(prefix="panosc-report-") as scratch:
        write_kernel_spec(Path(scratch) / "kernels" / "python3")
        settings = {
            "JUPYTER_PATH": scratch,
            "JUPYTER_RUNTIME_DIR": f"{scratch}/runtime",
            "JUPYTER_CONFIG_DIR": f"{scratch}/config",
            "IPYTHONDIR": f"{scratch}/ipython",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            yield Path(scratch)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
