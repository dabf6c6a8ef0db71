"""Look-ups in the cluster's catalogue whose failure is a message for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from panosc_operator.api.base import Model
from panosc_operator.api.environment import AnalysisEnvironmentSpec, EnvironmentKind, Flavour
from panosc_operator.domain.problem import Problem
from panosc_operator.domain.seen import SeenCustom

Spec = TypeVar("Spec", bound=Model)


def catalogue_entry(kind: str, name: str, entries: Mapping[str, SeenCustom]) -> SeenCustom:
    """Return an object of the catalogue.

    Raises
    ------
    Problem
        If there is none of that name; the reason is ``Unknown<kind>`` without the prefix ``Analysis``.
    """
    if name not in entries:
        known = ", ".join(sorted(entries)) or "none"
        raise Problem(
            f"Unknown{kind.removeprefix('Analysis')}",
            f"There is no {kind} {name!r}. The cluster has: {known}.",
        )
    return entries[name]


def spec_of(seen: SeenCustom, model: type[Spec]) -> Spec:
    """Return the spec of an object as the model that its kind has.

    Raises
    ------
    Problem
        If the stored object does not fit the model: it was made with another version of the CRD.
    """
    if not isinstance(seen.spec, model):
        raise Problem(
            f"Bad{seen.key.kind.removeprefix('Analysis')}",
            f"{seen.key.kind} {seen.key.name!r}: {seen.invalid}",
        )
    return seen.spec


def environment_of(name: str, kind: EnvironmentKind, entries: Mapping[str, SeenCustom]) -> AnalysisEnvironmentSpec:
    """Return an environment that is of the kind asked for.

    Raises
    ------
    Problem
        If there is none of that name or it is of another kind.
    """
    environment = spec_of(catalogue_entry("AnalysisEnvironment", name, entries), AnalysisEnvironmentSpec)
    if environment.kind is not kind:
        raise Problem(
            "WrongEnvironmentKind",
            f"AnalysisEnvironment {name!r} is of kind {environment.kind}; it must be {kind}.",
        )
    return environment


def flavour_of(environment_name: str, environment: AnalysisEnvironmentSpec, name: str | None) -> Flavour:
    """Return a flavour of an environment, by default its first.

    Raises
    ------
    Problem
        If the environment has no such flavour.
    """
    flavour = environment.flavour(name)
    if flavour is None:
        offered = ", ".join(offer.name for offer in environment.flavours)
        raise Problem(
            "UnknownFlavour",
            f"AnalysisEnvironment {environment_name!r} has no flavour {name!r}. It has: {offered}.",
        )
    return flavour
