"""From the proposals that an object names to volumes, claims and mounts.

Pods mount data by claims alone (*restricted* forbids hostPath and nfs in a pod): each area in use in a namespace has
one static volume and one claim, owned by the DataSource.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from panosc_operator.api.base import API_VERSION
from panosc_operator.api.data import ProposalData
from panosc_operator.api.datasource import Area, AreaName, DataSourceSpec, Visibility
from panosc_operator.domain import names
from panosc_operator.domain.catalogue import catalogue_entry, spec_of
from panosc_operator.domain.decision import Child, Mode
from panosc_operator.domain.problem import Problem
from panosc_operator.domain.seen import SeenCustom

CHECK_ROOT = "/panosc/areas"
_MAX_RUNS = 1000
_EUXFEL_PROPOSAL = "/{instrument}/{cycle}/p{proposal}/"


@dataclass(frozen=True)
class Mount:
    """One area of one proposal in a pod."""

    source: str
    source_uid: str
    area: Area
    proposal: str
    folder: str
    """The proposal's folder, relative to the root of the area's volume."""
    path: str
    """The absolute path of that folder in the pod."""
    visibility: Visibility

    @property
    def claim(self) -> str:
        """The claim's name, which is also the name of the volume in a pod."""
        return names.data_claim(self.source, self.area.name)

    @property
    def mount_path(self) -> str:
        """Where the pod mounts it: the proposal's folder, or the area that the folder is in."""
        return self.path if self.visibility is Visibility.PROPOSAL else self.path.removesuffix(f"/{self.folder}")


def resolve(data: Iterable[ProposalData], sources: Mapping[str, SeenCustom]) -> tuple[Mount, ...]:
    """Find the areas of the proposals that an object names.

    Raises
    ------
    Problem
        If a source or area is unknown, or a path needs an instrument or cycle that is not given.
    """
    mounts = tuple(mount for item in data for mount in _resolve_item(item, sources))
    _check_conflicts(mounts)
    return mounts


def _check_conflicts(mounts: Iterable[Mount]) -> None:
    """Refuse two areas at one path: only one would be there, or raw would be seen through a writable mount."""
    areas: dict[str, Mount] = {}
    for mount in mounts:
        other = areas.setdefault(mount.mount_path, mount)
        if other.claim != mount.claim:
            raise Problem(
                "MountConflict",
                f"Area '{other.area.name}' of {other.source!r} and area '{mount.area.name}' of {mount.source!r} would "
                f"both be mounted at {mount.mount_path}: name one of them in areas, or ask the platform team for "
                "different paths.",
            )


def _resolve_item(item: ProposalData, sources: Mapping[str, SeenCustom]) -> Iterable[Mount]:
    seen = catalogue_entry("DataSource", item.source, sources)
    source = spec_of(seen, DataSourceSpec)
    for name in item.areas or tuple(area.name for area in source.areas):
        area = source.area(name)
        if area is None:
            offered = ", ".join(area.name for area in source.areas)
            raise Problem("UnknownArea", f"DataSource {item.source!r} has no area '{name}'; it has {offered}.")
        yield Mount(
            source=item.source,
            source_uid=seen.uid,
            area=area,
            proposal=item.proposal,
            folder=_fill(area.folder, item),
            path=_fill(area.path, item),
            visibility=source.visibility,
        )


def _fill(template: str, item: ProposalData) -> str:
    values = {"instrument": item.instrument, "cycle": item.cycle, "proposal": item.proposal}
    missing = [field for field, value in values.items() if value is None and f"{{{field}}}" in template]
    if missing:
        raise Problem(
            "IncompleteData",
            f"Proposal {item.proposal}: set {missing[0]}; the paths of {item.source!r} name it.",
        )
    return _format(template, item.source, **values)


def _format(template: str, source: str, **values: Any) -> str:
    """Fill in a template of a DataSource."""
    try:
        return template.format(**values)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        allowed = ", ".join(f"{{{name}}}" for name in values)
        raise Problem(
            "BadDataSource",
            f"DataSource {source!r}: {template!r} cannot be filled in ({type(error).__name__}: {error}); "
            f"it may name {allowed}.",
        ) from error


def run_folders(mounts: Iterable[Mount], proposal: str, area: AreaName, runs: str) -> list[tuple[int, str]]:
    """Return number and absolute folder of each run that is named.

    Raises
    ------
    Problem
        If the area is not mounted or holds no runs, or a range is reversed or too long.
    """
    mount = next((m for m in mounts if m.proposal == proposal and m.area.name == area), None)
    if mount is None or mount.area.run_folder is None:
        raise Problem(
            "NoRuns",
            f"Proposal {proposal}: area '{area}' is not mounted, or its DataSource gives no runFolder.",
        )
    template, source = mount.area.run_folder, mount.source
    return [(number, f"{mount.path}/{_format(template, source, run=number)}") for number in run_numbers(runs)]


def run_numbers(runs: str) -> list[int]:
    """Return the run numbers of an expression such as ``8-9,12``, in order and each once."""
    numbers: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", runs):
        start, stop = int(first), int(last or first)
        if stop < start:
            raise Problem("BadRuns", f"The range of runs {first}-{last} is reversed.")
        if stop - start >= _MAX_RUNS:
            raise Problem("BadRuns", f"The range of runs {first}-{last} is longer than {_MAX_RUNS}: split the job.")
        numbers.update(range(start, stop + 1))
    if len(numbers) > _MAX_RUNS:
        raise Problem("BadRuns", f"{len(numbers)} runs are more than {_MAX_RUNS}: split the job.")
    return sorted(numbers)


def storage(mounts: Iterable[Mount], namespace: str) -> tuple[Child, ...]:
    """Return the volumes and claims that the mounts need in a namespace, each once."""
    unique = {mount.claim: mount for mount in mounts}
    return tuple(
        Child(manifest, Mode.CREATE)
        for mount in unique.values()
        for manifest in (_volume(mount, namespace), _claim(mount, namespace))
    )


def _metadata(mount: Mount, name: str) -> dict[str, Any]:
    owner = {"apiVersion": API_VERSION, "kind": "DataSource", "name": mount.source, "uid": mount.source_uid}
    return {
        "name": name,
        "labels": {names.MANAGED_BY: names.OPERATOR},
        "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": False}],
    }


def _access(mount: Mount) -> dict[str, Any]:
    return {
        "accessModes": ["ReadOnlyMany" if mount.area.read_only else "ReadWriteMany"],
        "storageClassName": "",
        "volumeMode": "Filesystem",
    }


# A static volume has no size of its own; the binder wants one that is at least the claim's.
_NOMINAL_SIZE = {"storage": "1Pi"}


def _volume_label(mount: Mount, namespace: str) -> dict[str, str]:
    return {names.DATA_VOLUME: names.data_volume(mount.source, mount.area.name, namespace)}


def _volume(mount: Mount, namespace: str) -> dict[str, Any]:
    (kind, volume), *_ = mount.area.volume.to_kubernetes().items()
    if kind in ("nfs", "csi"):
        volume = volume | {"readOnly": mount.area.read_only}
    metadata = _metadata(mount, names.data_volume(mount.source, mount.area.name, namespace))
    metadata["labels"] |= _volume_label(mount, namespace)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": metadata,
        "spec": {
            **_access(mount),
            "capacity": _NOMINAL_SIZE,
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": mount.claim,
            },
            kind: volume,
        },
    }  # fmt: skip


def _claim(mount: Mount, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(mount, mount.claim) | {"namespace": namespace},
        "spec": {
            **_access(mount),
            # By a label that is this volume's alone. A binder that meets the claim before it knows the volume looks
            # again at its next round, up to 15 s later: that is the wait of a namespace's first session at times.
            "selector": {"matchLabels": _volume_label(mount, namespace)},
            "resources": {"requests": _NOMINAL_SIZE},
        },
    }


def pod_volumes(mounts: Iterable[Mount]) -> list[dict[str, Any]]:
    """Return the volumes of a pod, one for each claim."""
    read_only = {mount.claim: mount.area.read_only for mount in mounts}
    return [
        {"name": claim, "persistentVolumeClaim": {"claimName": claim, "readOnly": value}}
        for claim, value in read_only.items()
    ]


def pod_mounts(mounts: Iterable[Mount]) -> list[dict[str, Any]]:
    """Return the mounts of a session's or job's container: each proposal at its path at the facility."""
    result: dict[str, dict[str, Any]] = {}
    for mount in mounts:
        entry: dict[str, Any] = {
            "name": mount.claim,
            "mountPath": mount.mount_path,
            "readOnly": mount.area.read_only,
        }
        if mount.visibility is Visibility.PROPOSAL:
            entry["subPath"] = mount.folder
        result[mount.mount_path] = entry
    return list(result.values())


def check_mounts(mounts: Iterable[Mount]) -> list[dict[str, Any]]:
    """Return the mounts of the data check: the root of each area, read-only.

    The kubelet creates a missing ``subPath`` folder, as root; so nothing may be mounted by ``subPath`` before the
    check has seen the folder.
    """
    claims = dict.fromkeys(mount.claim for mount in mounts)
    return [{"name": claim, "mountPath": f"{CHECK_ROOT}/{claim}", "readOnly": True} for claim in claims]


def check_arguments(mounts: Iterable[Mount]) -> list[str]:
    """Return what the data check has to look at: ``<folder as the check sees it>=<path at the facility>``."""
    return [f"{CHECK_ROOT}/{mount.claim}/{mount.folder}={mount.path}" for mount in mounts]


def environment_variables(mounts: Iterable[Mount]) -> list[dict[str, str]]:
    """Return what lets EXtra-data's ``open_run(proposal, run)`` find the proposals.

    EXtra-data looks for ``<root>/<instrument>/<cycle>/p<proposal>``, so only paths of that form have a root.
    """
    for mount in mounts:
        if mount.area.path.endswith(_EUXFEL_PROPOSAL + mount.area.name):
            return [{"name": "EXTRA_DATA_DATA_ROOT", "value": str(PurePosixPath(mount.path).parents[3])}]
    return []
