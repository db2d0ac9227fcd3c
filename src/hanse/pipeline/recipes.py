"""Pipelines for common needs."""

from __future__ import annotations

from hanse.core.protocols import Weighting
from hanse.pipeline.pipeline import Pipeline


def plain(*, weighting: Weighting = "examples") -> Pipeline:
    """Updates as they are, and their mean.

    >>> plain(weighting="uniform").stages
    ()
    """
    return Pipeline(weighting=weighting)
