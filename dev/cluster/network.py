"""The network of a cluster: a namespace of its own with one link, to the host."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path

from dev.cluster.addresses import Addresses
from dev.cluster.host import ClusterError, run, unmount_under

_NAMESPACES = Path("/run/netns")


def namespace(name: str) -> Path:
    """Return the file of the network namespace of cluster `name`."""
    return _NAMESPACES / f"panosc-{name}"


def routes_of_host() -> list[IPv4Network]:
    """Return the networks that the host has routes to, the default route left out."""
    destinations = [route["dst"] for route in json.loads(run("ip", "-json", "-4", "route", "show"))]
    return [IPv4Network(destination) for destination in destinations if destination != "default"]


def create(name: str, addresses: Addresses) -> None:
    """Make the namespace, its link and the host's routes to it.

    Nothing in the namespace has a route to the outside. Services get a route to an interface without
    neighbours, for the kernel looks for a route before kube-proxy's rules translate the address.
    """
    net, host, prefix = namespace(name).name, addresses.host_interface, addresses.link.prefixlen
    remove(name, addresses)
    for command in (
        f"netns add {net}",
        f"link add {host} type veth peer name node0 netns {net}",
        f"addr add {addresses.host}/{prefix} dev {host}",
        f"link set {host} up",
        f"-n {net} link set lo up",
        f"-n {net} addr add {addresses.node}/{prefix} dev node0",
        f"-n {net} link set node0 up",
        f"-n {net} link add services type bridge",
        f"-n {net} link set services up",
        f"-n {net} route add {addresses.services} dev services src {addresses.node}",
        f"route add {addresses.pods} via {addresses.node} dev {host}",
        f"route add {addresses.services} via {addresses.node} dev {host}",
    ):
        run("ip", *command.split())
    settings = (
        "net.ipv4.ip_forward=1",
        "net.ipv4.icmp_ratelimit=0",  # a pod that calls the outside is told at once that there is no way
    )
    run("nsenter", f"--net={namespace(name)}", "sysctl", "--quiet", "--write", *settings)


def complete(name: str, addresses: Addresses) -> bool:
    """Whether all of it is there: the last thing that `create` adds on the host is."""
    if not namespace(name).exists():
        return False
    try:
        routes = json.loads(run("ip", "-json", "-4", "route", "show", "dev", addresses.host_interface))
    except ClusterError:
        return False
    return str(addresses.services) in {route["dst"] for route in routes}


def remove(name: str, addresses: Addresses) -> None:
    """Remove the namespace; the link and the routes go with it."""
    if Path("/sys/class/net", addresses.host_interface).exists():
        run("ip", "link", "delete", addresses.host_interface)
    if namespace(name).exists():
        run("ip", "netns", "delete", namespace(name).name)
    if _NAMESPACES.is_dir() and not any(_NAMESPACES.iterdir()):
        unmount_under(_NAMESPACES)  # `ip netns add` mounted it
