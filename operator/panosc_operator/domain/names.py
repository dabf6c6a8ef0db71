"""Names of children, labels and annotations: all of them functions of the parent.

What lasts is ``<name>-<hash of uid>``, what belongs to one run ``<name>-<hash of uid>-<run>``, so that a restarted
session never meets its old pod, and a repeated write meets what the first one made.
"""

from __future__ import annotations

import hashlib

from panosc_operator.api.base import GROUP

MANAGED_BY = "app.kubernetes.io/managed-by"
OPERATOR = "panosc-operator"
PARENT_KIND = f"{GROUP}/kind"
PARENT_NAME = f"{GROUP}/name"
PARENT_UID = f"{GROUP}/uid"
RUN = f"{GROUP}/run"
APPLIED_HASH = f"{GROUP}/applied"
DATA_VOLUME = f"{GROUP}/data-volume"
PASSWD = f"{GROUP}/passwd"
GROUPS = f"{GROUP}/group"

DNS_LABEL = 63
DASK_CLUSTER = 50  # dask-kubernetes refuses longer names of a DaskCluster


def short_hash(text: str) -> str:
    """Return eight hexadecimal digits that stand for the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _joined(name: str, suffix: str, limit: int) -> str:
    return f"{name[: limit - len(suffix) - 1].rstrip('-')}-{suffix}"


def lasting_name(name: str, uid: str) -> str:
    """Return the name of a child that outlives the runs of its parent."""
    return _joined(name, short_hash(uid), DNS_LABEL)


def run_name(name: str, uid: str, run: int, limit: int = DNS_LABEL) -> str:
    """Return the name of a child that belongs to one run of its parent."""
    return _joined(name, f"{short_hash(uid)}-{run}", limit)


def home_claim(username: str) -> str:
    """Return the name of a user's home claim: usernames may hold what object names may not."""
    return f"home-{short_hash(username)}"


def data_claim(source: str, area: str) -> str:
    """Return the name of the claim of a data source's area in any namespace."""
    return _joined(f"data-{source}", f"{area}-{short_hash(source)}", DNS_LABEL)


def data_volume(source: str, area: str, namespace: str) -> str:
    """Return the name of the volume behind a namespace's claim of an area."""
    return _joined(f"data-{source}", f"{area}-{short_hash(f'{source}/{namespace}')}", DNS_LABEL)
