"""What does not go together is refused when the pipeline is built, in a sentence that names both parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from hanse.aggregators.mean import Mean
from hanse.aggregators.sum import Sum
from hanse.core.errors import PipelineError
from hanse.core.protocols import Stage
from hanse.pipeline.clip import Clip
from hanse.pipeline.entropy import Zstd
from hanse.pipeline.freeze import Freeze
from hanse.pipeline.gaussian import CentralGaussian
from hanse.pipeline.low_rank import LowRank
from hanse.pipeline.modular import Modular
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.rotate import Rotate
from hanse.pipeline.sign import Sign
from hanse.pipeline.sparsify import RandomK, TopK

CLIP = Clip(norm=1.0)


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ((Quantize(), CLIP), "`Clip` works on numbers, and `Quantize` left of it makes uint8"),
        ((Sign(), Rotate()), "`Rotate` works on numbers, and `Sign`"),
        ((Quantize(), TopK()), "`TopK` works on numbers"),
        ((Modular(range=1.0), Quantize()), "`Quantize` works on numbers, and `Modular` left of it makes uint16"),
        ((Zstd(), CLIP), "`Clip` stands right of `Zstd`, whose encodings differ in size"),
        ((Quantize(), Zstd(), Zstd()), "right of `Zstd`"),
        ((Rotate(), TopK()), "`TopK` keeps at the client what it did not send, and `Rotate`"),
        ((Rotate(), CLIP, Sign()), "`Sign` keeps at the client"),
        ((RandomK(), RandomK(feedback=True)), "`RandomK` keeps at the client"),
        ((CLIP, Freeze(tensors=("b",))), "`Freeze` restricts what clients train, and `Clip` stands left of it"),
        ((Freeze(tensors=("b",)), RandomK(structured=True)), "`Freeze` and `RandomK` both restrict what clients train"),
        ((TopK(), TopK()), "`TopK` and `TopK` both send a vector `stage.top.places`"),
        ((Clip(norm=1.0, adaptive=True),) * 2, "`Clip` and `Clip` both send a vector `stage.clip.below`"),
        ((Quantize(), Clip(norm=1.0, adaptive=True)), "works on numbers"),
        (
            (TopK(), Clip(norm=1.0, adaptive=True)),
            "`Clip` learns from the aggregate, but replies are opened one by one",
        ),
    ],
)
def test_chains_that_make_no_sense(stages: tuple[Stage, ...], says: str) -> None:
    with pytest.raises(PipelineError, match=says) as caught:
        Pipeline(stages=stages, aggregator=Sum(), weighting="uniform")
    assert caught.value.hint


@pytest.mark.parametrize(
    "stages",
    [
        (CLIP, Rotate(), Quantize(), Zstd()),
        (Clip(norm=1.0, adaptive=True), Rotate(), Quantize()),
        (TopK(), Rotate(), Quantize()),
        (TopK(), Quantize(), Zstd()),
        (Rotate(), TopK(feedback=False)),
        (RandomK(), Rotate(), Modular(range=1.0), Zstd()),
        (CLIP, CLIP),
        (Zstd(),),
        (Freeze(tensors=("b",)), LowRank(), Quantize()),
        (RandomK(structured=True), Rotate(), Quantize()),
    ],
)
def test_chains_that_do(stages: tuple[Stage, ...]) -> None:
    Pipeline(stages=stages, aggregator=Sum(), weighting="uniform")


def test_modular_numbers_need_a_sum_and_like_weights() -> None:
    stages = (Modular(range=1.0),)
    with pytest.raises(PipelineError, match=r"stage `Modular`.*aggregator `Mean` gives no sum") as caught:
        Pipeline(stages=stages, weighting="uniform")
    assert 'use = "sum"' in (caught.value.hint or "")
    with pytest.raises(PipelineError, match=r"stage `Modular`.*clients by examples"):
        Pipeline(stages=stages, aggregator=Sum())


PRIVATE: dict[str, Any] = {
    "stages": (CLIP, Rotate()),
    "aggregator": Sum(expected=4.0),
    "weighting": "uniform",
    "mechanism": CentralGaussian(noise_multiplier=1.0),
}


@dataclass(frozen=True)
class NeedsAll(Mean):
    @property
    def needs_all(self) -> bool:
        return True

    sums = True
    expected = 3.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stages": (Rotate(),)}, "no stage bounds that"),
        ({"weighting": "examples"}, "strategy weighs clients by examples"),
        ({"aggregator": Mean()}, "aggregator `Mean` gives none"),
        ({"aggregator": NeedsAll()}, "aggregator `NeedsAll` gives none"),
        ({"aggregator": Sum()}, "hides who answered"),
        ({"stages": (TopK(), CLIP)}, "`TopK` stands left of the clip and is not additive"),
        ({"stages": (Clip(norm=1.0, kind="linf"),)}, "`Clip` gives no bound in L2"),
        ({"stages": (CLIP, Clip(norm=1.0, kind="linf"))}, "`Clip` gives no bound in L2"),
    ],
)
def test_what_a_mechanism_needs(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(PipelineError, match=says) as caught:
        Pipeline(**{**PRIVATE, **changes})
    assert caught.value.hint


def test_where_replies_are_opened_with_a_mechanism() -> None:
    assert Pipeline(**PRIVATE).opened_up_to == 1
    stages = (Rotate(), CLIP, Quantize())
    assert Pipeline(**{**PRIVATE, "stages": stages}).opened_up_to == 2
    assert Pipeline(**{**PRIVATE, "stages": (CLIP, TopK(feedback=False), Rotate())}).opened_up_to == 1
    assert replace(Pipeline(**PRIVATE), mechanism=None).opened_up_to == 2
