"""`ClippedSums`: the sum of a batch's clipped per-example gradients, by one forward and one backward pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import vmap

from hanse.core.errors import HanseError, NonFiniteUpdateError
from hanse.tasks.global_generator import seeded
from hanse.trainers.private.dense_backward import DenseBackward
from hanse.trainers.private.example_gradients import ExampleGradients, Whole, added
from hanse.trainers.private.layers import CoveredLayer, covered
from hanse.trainers.private.padded_embeddings import PaddedEmbeddings
from hanse.trainers.private.recording import Recording, in_place_of, left_untouched, recorded
from hanse.trainers.private.row_wise import is_row_wise, total_loss

_CPU_BYTES = 24 << 20  # what one piece of a batch may write out: more is not in a cache, less is more calls
_GPU_BYTES = 1 << 30
_DENORMAL = 1e-30  # scales below lose digits in float32

Piece = tuple[list[int], ExampleGradients]
"""Positions of parameters, and the examples' gradients with regard to them."""


class _ElsewhereError(Exception):
    """Parameters are used outside of the layer that they belong to, or twice."""

    def __init__(self, positions: set[int]) -> None:
        super().__init__(positions)
        self.positions = positions


@dataclass(frozen=True)
class _Way:
    """How batches of one shape are done: examples at once, or None for one after another."""

    at_once: int | None


class ClippedSums:
    """Σ_i g_i min(1, C / ‖g_i‖₂), where g_i is the gradient of the loss of example i as a batch of its own.

    - Layers that `covered` knows: from what the layer was given and the gradient of what it gave, without writing g_i
      out where that is more work ("ghost norms"). Both are kept, so that the weighted sum needs no second backward
      pass ("book-keeping").
    - Plain stacks of dense layers: the same, written out (`DenseBackward`).
    - All other parameters: one copy for each example, and the gradient of each copy.
    - Models of which `torch.vmap` makes nothing: one example after another, with a line that says so.

    An example whose gradient has no finite norm counts as zero, so that whatever it holds moves the sum by at most C.

    Unless a model is a plain sequence of layers that take each example by itself, it is run in `torch.vmap`, one lane
    an example: whatever its code does, it sees one example at a time.

    Args:
      module: In training mode, with its weights in place.
      parameters: Those that are trained; the sums come in their order.
      loss: `(outputs, targets)` to the mean over examples.
      note: Told in words where examples are done one after another.

    Attributes:
      num_zeroed: Examples so far that counted as zero, each as often as it was in a batch. Not to be told to anybody
        who must not know of single examples.

    References:
      Abadi et al. 2016, arXiv:1607.00133; Bu, Mao, Xu 2022, arXiv:2205.10683 (which layers' gradients to write out);
      Bu, Wang, Zha, Karypis 2023, arXiv:2210.00038 (book-keeping).
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Sequence[nn.Parameter],
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._module = module
        self._parameters = list(parameters)
        self._loss = loss
        self._note = note
        self._row_wise = is_row_wise(module)
        self._place = {id(parameter): i for i, parameter in enumerate(self._parameters)}
        self._forms: dict[nn.Module, CoveredLayer] = {}
        for layer in module.modules():
            form = covered(layer)
            if form is not None and layer._parameters and all(p is None or p.requires_grad for p in layer.parameters()):
                self._forms[layer] = form
        self._ways: dict[object, _Way] = {}
        self._dense = DenseBackward.of(module, loss)
        self.num_zeroed = 0

    @torch.no_grad()
    def __call__(self, x: Tensor, y: Tensor, clip_norm: float) -> list[Tensor]:
        """The sums, in memory that may be written; zeros for no examples.

        Args:
          x: Inputs, `[n, …]`.
          y: Targets, `[n, …]`.
          clip_norm: C > 0, the bound on the L2 norm over all parameters together.

        Raises:
          NonFiniteUpdateError: Weights are not finite, and so no gradient is.
          TaskError: The model changes its buffers, or its own weights.
        """
        totals: dict[int, Tensor] = {}
        way = self._way(x, y) if len(x) else _Way(1)
        at_once = way.at_once or 1
        cut = zip(torch.split(x, at_once), torch.split(y, at_once), strict=True)
        for inputs, targets in cut if len(x) else ():
            with left_untouched(self._module):
                pieces = self._alone(inputs, targets) if way.at_once is None else self._pieces(inputs, targets)
            self._add(totals, pieces, clip_norm)
        return [
            totals[i] if i in totals else torch.zeros_like(parameter, memory_format=torch.contiguous_format)
            for i, parameter in enumerate(self._parameters)
        ]

    def _way(self, x: Tensor, y: Tensor) -> _Way:
        kind = x.shape[1:], x.dtype, y.shape[1:], y.dtype
        if kind not in self._ways:
            # on zeros: one client's own numbers must not settle how others are done
            inputs, targets = (torch.zeros_like(t[:1]).expand(2, *t.shape[1:]).clone() for t in (x, y))
            generators = [torch.default_generator]
            if x.device.type == "cuda":
                generators.append(torch.cuda.default_generators[x.device.index or 0])
            with seeded(0, generators):  # nor may their random numbers depend on who was first
                self._ways[kind] = self._tried(inputs, targets)
        return self._ways[kind]

    def _tried(self, x: Tensor, y: Tensor) -> _Way:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of PyTorch, where it would loop over examples itself
                with left_untouched(self._module):
                    numbers = self._workspace(x, y)
        except HanseError:
            raise
        except Exception as error:  # noqa: BLE001 - what vmap can't do fails in many ways
            first = (str(error).strip().splitlines() or [""])[0][:160]
            self._note(
                "trainer: per-example gradients are made one example after another, for the model can't be run on "
                f"all side by side: {type(error).__name__}: {first}"
            )
            return _Way(None)
        bound = _CPU_BYTES if x.device.type == "cpu" else _GPU_BYTES
        return _Way(max(1, bound // max(1, numbers * self._parameters[0].element_size())))

    def _workspace(self, x: Tensor, y: Tensor) -> int:
        """Numbers that one example of a batch takes."""
        recording, expanded = self._passed(x, y)
        numbers = sum(gradient[0].numel() * 2 for gradient in expanded.values())
        for layer, uses in recording.of.items():
            for given, grad in uses:
                numbers += 2 * (given[0].numel() + grad[0].numel()) + self._forms[layer].workspace(given, grad)
        return numbers

    def _pieces(self, x: Tensor, y: Tensor) -> list[Piece]:
        if self._dense is not None and self._dense.suits(x, y):
            found = self._dense(x, y)
            return [(self._positions(layer), own) for layer, own in zip(self._dense.layers, found, strict=True)]
        recording, expanded = self._passed(x, y)
        pieces: list[Piece] = [([i], Whole([gradient])) for i, gradient in expanded.items()]
        for layer, [(given, grad)] in recording.of.items():
            pieces.append((self._positions(layer), self._forms[layer].gradients(given, grad)))
        return pieces

    def _passed(self, x: Tensor, y: Tensor) -> tuple[Recording, dict[int, Tensor]]:
        """Forward and backward; what covered layers recorded, and other parameters' gradients `[n, …]` by position."""
        while True:
            try:
                return self._once(x, y)
            except _ElsewhereError as found:
                self._forms = {
                    layer: form
                    for layer, form in self._forms.items()
                    if not found.positions.intersection(self._positions(layer))
                }

    def _once(self, x: Tensor, y: Tensor) -> tuple[Recording, dict[int, Tensor]]:
        inside = {i for layer in self._forms for i in self._positions(layer)}
        outside = [i for i in range(len(self._parameters)) if i not in inside]
        lanes = bool(outside) or not self._row_wise
        with recorded(self._forms, lanes=lanes) as recording, torch.enable_grad():
            copies = [self._copies(i, len(x)) for i in outside]
            total = self._lanes(x, y, dict(zip(outside, copies, strict=True))) if lanes else self._rows(x, y)
            known = [self._parameters[i] for i in sorted(inside)]
            found = torch.autograd.grad(total, [*copies, *known], allow_unused=True)
        others = found[len(copies) :]
        elsewhere = {i for i, gradient in zip(sorted(inside), others, strict=True) if gradient is not None}
        seen: set[int] = set()
        for layer, uses in recording.of.items():
            own = set(self._positions(layer))
            if len(uses) > 1 or own & seen:
                elsewhere |= own
            seen |= own
        if elsewhere:
            raise _ElsewhereError(elsewhere)
        gradients = zip(outside, found, strict=False)
        return recording, {i: gradient.detach() for i, gradient in gradients if gradient is not None}

    def _rows(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of the examples' losses, of one pass over a batch."""
        return total_loss(self._loss, self._module(x), y)

    def _lanes(self, x: Tensor, y: Tensor, copies: dict[int, Tensor]) -> Tensor:
        """The sum of the examples' losses, each that of a batch of one."""

        def one(own: dict[int, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
            with in_place_of({id(self._parameters[i]): copy for i, copy in own.items()}, self._module):
                outputs = self._module(inputs.unsqueeze(0))
            return self._loss(outputs, targets.unsqueeze(0))

        with PaddedEmbeddings():
            return vmap(one, randomness="different")(copies, x, y).sum()

    def _alone(self, x: Tensor, y: Tensor) -> list[Piece]:
        """One example's gradients, by plain autograd."""
        with torch.enable_grad():
            found = torch.autograd.grad(self._loss(self._module(x), y), self._parameters, allow_unused=True)
        used = [(i, g.to_dense() if g.is_sparse else g) for i, g in enumerate(found) if g is not None]
        return [([i], Whole([gradient.unsqueeze(0)])) for i, gradient in used]

    def _copies(self, i: int, count: int) -> Tensor:
        parameter = self._parameters[i].detach()
        return parameter.expand(count, *parameter.shape).requires_grad_()

    def _positions(self, layer: nn.Module) -> list[int]:
        both = (layer._parameters.get(name) for name in ("weight", "bias"))
        return [self._place[id(parameter)] for parameter in both if parameter is not None]

    def _add(self, totals: dict[int, Tensor], pieces: list[Piece], clip_norm: float) -> None:
        """Add the clipped gradients of a piece's examples."""
        if not pieces:
            return
        norms = added([gradients.squares() for _, gradients in pieces]).sqrt_()
        if not bool(torch.isfinite(norms).all()):
            pieces = self._finite(pieces, norms)
        scales = clip_norm / norms.clamp_(min=clip_norm)
        if scales.min().item() > _DENORMAL:
            scales = scales.to(self._parameters[0].dtype)
        for positions, gradients in pieces:
            for i, total in zip(positions, gradients.weighted(scales), strict=True):
                totals[i] = totals[i].add_(total) if i in totals else total

    def _finite(self, pieces: list[Piece], norms: Tensor) -> list[Piece]:
        """With zeros for the examples that have no finite norm, in `norms` too: `min(1, C / nan)` would be 1."""
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self._parameters):
            # these come of noisy steps, so that it may be known
            raise NonFiniteUpdateError(
                "the model's weights are no longer finite",
                hint="nothing was released; a smaller learning rate usually helps",
            )
        bad = ~torch.isfinite(norms)
        self.num_zeroed += int(bad.sum())
        norms.masked_fill_(bad, 0)
        return [(positions, gradients.zeroed(bad)) for positions, gradients in pieces]
