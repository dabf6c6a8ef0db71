from ipaddress import IPv4Network
from itertools import combinations

import pytest

from dev.cluster.addresses import SLOTS, Addresses, free_slot

ALL = [Addresses(slot) for slot in range(SLOTS)]


def networks(addresses: Addresses) -> list[IPv4Network]:
    return [addresses.link, addresses.pods, addresses.services]


def test_no_two_clusters_share_an_address() -> None:
    for one, other in combinations(ALL, 2):
        assert not any(a.overlaps(b) for a in networks(one) for b in networks(other))
    for one in ALL:
        assert not any(a.overlaps(b) for a, b in combinations(networks(one), 2))


def test_interfaces_have_names_that_the_kernel_takes() -> None:
    names = [addresses.host_interface for addresses in ALL]
    assert len(set(names)) == SLOTS
    assert max(map(len, names)) <= 15


def test_host_and_node_are_the_two_usable_addresses_of_their_link() -> None:
    for addresses in ALL:
        assert [addresses.host, addresses.node] == list(addresses.link.hosts())
        assert addresses.endpoint == f"{addresses.node}:6443"


def test_ranges_hold_more_pods_and_services_than_a_node_runs() -> None:
    assert Addresses(0).pods.num_addresses == Addresses(0).services.num_addresses == 4096


@pytest.mark.parametrize("slot", [-1, SLOTS])
def test_slot_out_of_range_is_refused(slot: int) -> None:
    with pytest.raises(ValueError, match=r"not in 0\.\.15"):
        Addresses(slot)


def test_free_slot_leaves_clusters_and_routes_of_the_host_alone() -> None:
    assert free_slot([], []) == 0
    assert free_slot([0, 1, 3], []) == 2
    vpn = IPv4Network("10.96.0.0/19")  # the services of the first two slots
    assert free_slot([], [vpn]) == 2
    assert free_slot([], [IPv4Network("10.244.0.0/16")]) is None
    assert free_slot(range(SLOTS), []) is None
