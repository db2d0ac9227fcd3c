"""Whether updates that are to become one describe the same tensors."""

from __future__ import annotations

from collections.abc import Mapping

from hanse.core.errors import SpecMismatchError
from hanse.core.messages import Update
from hanse.core.params import ParamSpec


def check_layout(update: Update, spec: ParamSpec, extras: Mapping[str, ParamSpec] | None) -> None:
    """Whether an update is laid out as others are.

    Args:
      update: The update.
      spec: Layout of the others' deltas.
      extras: Layouts of the vectors that the others brought beside them; None where there are no others.

    Raises:
      SpecMismatchError: It is not, or it lacks a vector, or has another one.
    """
    where = f"round {update.round}: client `{update.client}`"
    difference = spec.difference(update.delta.spec)
    if difference:
        raise SpecMismatchError(f"{where}: its update {difference}")
    if extras is None:
        return
    if set(update.extras) != set(extras):
        raise SpecMismatchError(f"{where} brought vectors {sorted(update.extras)}; others brought {sorted(extras)}")
    for name, extra in update.extras.items():
        check_vector(where, name, extras[name], extra.spec)


def check_vector(where: str, name: str, wanted: ParamSpec | None, got: ParamSpec | None) -> None:
    """Whether two vectors of one name are laid out alike; raises `SpecMismatchError` where not, or one is missing."""
    if wanted is None or got is None:
        raise SpecMismatchError(f"{where}: only one of them has a vector `{name}`")
    difference = wanted.difference(got)
    if difference:
        raise SpecMismatchError(f"{where}: its vector `{name}` {difference}")
