"""Command line: `panosc-analysis list | schema | simulate | run | drive`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

    from panosc_analysis.execution import Progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0 done, 2 wrong input, parameters or usage, 1 anything else."""
    options = _parser().parse_args(arguments)
    from panosc_analysis.errors import JobError

    try:
        code: int = options.command(options)
    except JobError as error:
        print(f"panosc-analysis: {' '.join(error.message.split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("panosc-analysis: interrupted, nothing was written", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="panosc-analysis", description="Analyses of photon and neutron data.")
    parser.add_argument("--version", action="version", version=version("panosc-analysis"))
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser("list", help="list the workflows")
    command.set_defaults(command=_list)

    command = commands.add_parser("schema", help="print a workflow's parameters as JSON schema")
    command.add_argument("workflow", metavar="NAME")
    command.set_defaults(command=_schema)

    command = commands.add_parser("simulate", help="write input for a workflow, with known truth")
    command.add_argument("workflow", metavar="NAME")
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the runs are written")
    command.add_argument("--trains", type=int, metavar="N", help="trains of the first run (default: as published)")
    command.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the random numbers (default: 0)")
    command.set_defaults(command=_simulate)

    command = commands.add_parser("run", help="run a workflow on this machine")
    command.add_argument("workflow", metavar="NAME")
    command.add_argument("--input", type=Path, nargs="+", required=True, metavar="DIR", help="run folders")
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make for the results")
    command.add_argument("--parameters", type=Path, metavar="FILE", help="parameters as YAML or JSON")
    command.add_argument(
        "--workers", type=int, default=min(4, os.cpu_count() or 1), metavar="N", help="processes (default: %(default)s)"
    )
    command.set_defaults(command=_run)

    command = commands.add_parser("drive", help="run the job of PANOSC_JOB (in a driver pod)")
    command.set_defaults(command=_drive)
    return parser


def _list(_: argparse.Namespace) -> int:
    from panosc_analysis import workflows

    for name in workflows.names():
        workflow = workflows.load(name)
        print(f"{name:20} {workflow.VERSION:8} {workflow.TITLE}")
    return 0


def _schema(options: argparse.Namespace) -> int:
    from panosc_analysis import workflows

    workflow = workflows.load(options.workflow)
    schema = {
        "name": workflow.NAME,
        "version": workflow.VERSION,
        "title": workflow.TITLE,
        "description": workflow.DESCRIPTION,
        "parameters": workflow.Parameters.model_json_schema(),
    }
    print(json.dumps(schema, indent=2, ensure_ascii=False))
    return 0


def _simulate(options: argparse.Namespace) -> int:
    from panosc_analysis.errors import InputError

    simulations = {entry.name: entry for entry in entry_points(group="panosc_analysis.simulations")}
    if options.workflow not in simulations:
        raise InputError(
            "InvalidParameters", f"no simulation for {options.workflow!r}: there are {', '.join(sorted(simulations))}"
        )
    simulate: Callable[..., list[Path]] = simulations[options.workflow].load()
    for run in simulate(options.output, trains=options.trains, seed=options.seed):
        print(run)
    return 0


def _run(options: argparse.Namespace) -> int:
    from uuid import uuid4

    from panosc_analysis.errors import InputError
    from panosc_analysis.execution import Job, Tracker, execute
    from panosc_analysis.quantity import Quantity

    if options.workers < 1:
        raise InputError("InvalidParameters", f"--workers {options.workers}: at least 1")
    job = Job(
        name=options.output.name,
        uid=str(uuid4()),
        workflow=options.workflow,
        parameters=_parameters(options.parameters),
        inputs=tuple(run.absolute() for run in options.input),
        output=options.output.absolute(),
    )
    with _shown() as show:
        commit = execute(job, lambda _: _local_cluster(options.workers), Tracker(show))
    for name, quantity in commit.result["summary"].items():
        print(f"{name:24} {Quantity(**quantity)}")
    print(f"report: {commit.path / 'report.html'}")
    return 0


def _parameters(path: Path | None) -> dict[str, Any]:
    """Read the parameters' file."""
    if path is None:
        return {}
    import yaml

    from panosc_analysis.errors import InputError

    try:
        parameters = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError("InvalidParameters", f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError("InvalidParameters", f"{path} is neither YAML nor JSON: {error}") from error
    if parameters is not None and not isinstance(parameters, dict):
        raise InputError("InvalidParameters", f"{path} must hold a mapping of names to values")
    return parameters or {}


@contextmanager
def _local_cluster(workers: int) -> Iterator[Client]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    """Show progress on stderr: one line rewritten in a terminal, a line per stage and tenth elsewhere."""
    terminal = sys.stderr.isatty()
    last = ""

    def show(progress: Progress) -> None:
        nonlocal last
        share = progress.done / progress.total if progress.total else 0.0
        step = share if terminal else int(share * 10) / 10
        running = progress.stage == "Running" and progress.total
        line = f"{progress.stage:18}{step:5.0%} of {progress.total} partitions" if running else str(progress.stage)
        if line != last:
            last = line
            print(f"\r\x1b[K{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if terminal and last:
            print(file=sys.stderr)


def _drive(_: argparse.Namespace) -> int:
    from panosc_analysis.driver import drive

    return drive()


if __name__ == "__main__":
    sys.exit(main())
