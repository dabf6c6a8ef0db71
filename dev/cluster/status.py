"""What of a cluster runs, for people."""

from __future__ import annotations

from pathlib import Path

from dev.cluster.cluster import Cluster
from dev.cluster.external_cluster import external, external_kubeconfig, external_name


def describe(name: str) -> str:
    """Return a table of the cluster's programs with its addresses."""
    if external():
        return f"cluster     {external_name()} (external)\nkubeconfig  {external_kubeconfig()}"
    cluster = Cluster.get(name)
    addresses = cluster.configuration.addresses
    return "\n".join(
        [
            f"cluster     {name}",
            f"kubeconfig  {cluster.configuration.kubeconfig}",
            f"API server  {cluster.configuration.server}",
            f"pods        {addresses.pods}",
            f"services    {addresses.services}",
            f"DNS         {addresses.node}",
            *(_line(cluster, service) for service in cluster.services()),
        ]
    )


def _line(cluster: Cluster, service: str) -> str:
    process = cluster.process(service)
    if process is None:
        return f"  {service:24} not running"
    return f"  {service:24} process {process.pid:7}  {_resident_memory(process.pid) / 1e6:6.0f} MB"


def _resident_memory(pid: int) -> int:
    """Return the bytes that a process keeps in memory: VmRSS of proc(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
