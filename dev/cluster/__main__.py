"""Command line: ``python -m dev.cluster COMMAND``."""

from __future__ import annotations

import argparse
import sys

from dev import cluster
from dev.cluster.status import describe


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dev.cluster",
        description="A real Kubernetes on this machine, for development and tests.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("--name", default=cluster.DEFAULT_NAME, help="name of the cluster (%(default)s)")
        return command

    add("build", "build its programs, which `up` would do too, and start nothing")
    up = add("up", "build and start what is missing")
    up.add_argument("--control-plane-only", action="store_true", help="no node: no pod will run")
    down = add("down", "stop it; `up` restarts it in seconds")
    down.add_argument("--wipe", action="store_true", help="remove objects, images, volumes and logs too")
    add("status", "what runs")
    load = add("load", "bring images to the node")
    load.add_argument("images", nargs="+", metavar="IMAGE", help="an image of buildah, or an archive's path")
    add("kubeconfig", "print the path of the kubeconfig")
    return parser


def main() -> int:
    """Run one command; return the exit status."""
    arguments = _parser().parse_args()
    try:
        match arguments.command:
            case "build":
                cluster.build()
            case "up":
                print(cluster.up(arguments.name, arguments.control_plane_only))
            case "down":
                cluster.down(arguments.name, arguments.wipe)
            case "status":
                print(describe(arguments.name))
            case "load":
                cluster.load(arguments.name, arguments.images)
            case "kubeconfig":
                print(cluster.kubeconfig(arguments.name))
    except (cluster.ClusterError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command takes it up again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
