"""The difference of wanted and seen: what to write and what to delete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from panosc_operator.domain.decision import Child, Mode
from panosc_operator.domain.names import APPLIED_HASH
from panosc_operator.domain.seen import Key, Seen


@dataclass(frozen=True)
class Difference:
    """Writes in the order wanted, and what is owned but not wanted."""

    writes: tuple[Child, ...]
    deletions: tuple[Seen, ...]


def difference(
    wanted: Iterable[Child] | None, owned: Iterable[Seen], lookup: Callable[[Key], Seen | None]
) -> Difference:
    """Compare.

    Parameters
    ----------
    wanted
        The children wanted; ``None`` leaves everything as it is.
    owned
        The objects whose controller the parent is.
    lookup
        Finds an object that was seen, owned or shared.
    """
    if wanted is None:
        return Difference((), ())
    children = tuple(wanted)
    keys = {child.key for child in children}
    return Difference(
        writes=tuple(child for child in children if _differs(child, lookup(child.key))),
        deletions=tuple(seen for seen in owned if seen.key not in keys and not seen.deleting),
    )


def _differs(child: Child, seen: Seen | None) -> bool:
    if seen is None or child.mode is Mode.REPLACE:
        return True
    return child.mode is Mode.APPLY and seen.applied_hash != content_hash(child.manifest)


def content_hash(manifest: Mapping[str, Any]) -> str:
    """Return a hash of what a manifest says."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]


def with_hash(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest with the annotation by which its next version is told from it."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED_HASH: content_hash(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}
