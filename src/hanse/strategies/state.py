"""`ModelState`: the server state of strategies that keep nothing but the model."""

from __future__ import annotations

from dataclasses import dataclass

from hanse.core.params import Params


@dataclass(frozen=True)
class ModelState:
    """The model and nothing else."""

    params: Params
