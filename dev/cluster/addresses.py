"""Address ranges of the clusters, so that several of them live side by side on one host."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

SLOTS = 16
_LINKS = IPv4Network("172.30.255.0/24")
_PODS = IPv4Network("10.244.0.0/16")
_SERVICES = IPv4Network("10.96.0.0/16")
_API_SERVER_PORT = 6443


@dataclass(frozen=True)
class Addresses:
    """The addresses of the cluster in one slot.

    The host and the node are the two ends of a link of their own; the host reaches pods and
    services through the node.

    Parameters
    ----------
    slot
        Number of the cluster on this host, ``0 <= slot < SLOTS``.

    Raises
    ------
    ValueError
        If the slot is out of range.
    """

    slot: int

    def __post_init__(self) -> None:
        if not 0 <= self.slot < SLOTS:
            raise ValueError(f"slot {self.slot} is not in 0..{SLOTS - 1}")

    @property
    def link(self) -> IPv4Network:
        """Network of the link between host and node: 4 addresses, 2 of them usable."""
        return list(_LINKS.subnets(new_prefix=30))[self.slot]

    @property
    def host(self) -> IPv4Address:
        """Address under which the node and its pods reach the host."""
        return self.link[1]

    @property
    def node(self) -> IPv4Address:
        """Address under which the host reaches the API server and the cluster's DNS."""
        return self.link[2]

    @property
    def pods(self) -> IPv4Network:
        """Range of the pods: 4096 addresses."""
        return list(_PODS.subnets(new_prefix=20))[self.slot]

    @property
    def services(self) -> IPv4Network:
        """Range of the services' cluster IPs: 4096 addresses."""
        return list(_SERVICES.subnets(new_prefix=20))[self.slot]

    @property
    def endpoint(self) -> str:
        """``HOST:PORT`` of the API server."""
        return f"{self.node}:{_API_SERVER_PORT}"

    @property
    def port(self) -> int:
        """Port of the API server."""
        return _API_SERVER_PORT

    @property
    def host_interface(self) -> str:
        """Name of the link's end on the host (at most 15 characters, so not the cluster's name)."""
        return f"panosc{self.slot}"

    def overlaps(self, network: IPv4Network) -> bool:
        """Whether `network` takes addresses of this cluster."""
        return any(network.overlaps(own) for own in (self.link, self.pods, self.services))


def free_slot(taken: Collection[int], routed: Collection[IPv4Network]) -> int | None:
    """Return the lowest slot whose ranges nobody uses.

    Parameters
    ----------
    taken
        Slots of the clusters that exist.
    routed
        Networks that the host has routes to.

    Returns
    -------
    int or None
        None if every slot is taken or overlaps with a route of the host.
    """
    for slot in range(SLOTS):
        if slot not in taken and not any(Addresses(slot).overlaps(network) for network in routed):
            return slot
    return None
