"""CPU threads for the length of a run."""

from __future__ import annotations

import sys

import pytest
import torch

from hanse.trainers.threads import limited_threads


def test_as_many_as_before_afterwards_also_after_an_error() -> None:
    torch.set_num_threads(2)

    def fail() -> None:
        with limited_threads(1):
            assert torch.get_num_threads() == 1
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.get_num_threads() == 2


def test_nothing_where_torch_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    with limited_threads(1):
        assert "torch" not in sys.modules
