"""What can't be done with `ExamplePrivacy`, said before anything runs."""

from __future__ import annotations

from torch import nn

from hanse.core.corrections import needs_of
from hanse.core.errors import TaskError
from hanse.core.local_work import EVERYTHING, LocalWork
from hanse.trainers.chain import is_bare


def refuse_unprivate(work: LocalWork, module: nn.Module, precision: str) -> None:
    """Refuse work and models whose steps would not hide single examples.

    Raises:
      TaskError: What does not go together, and what does.
    """
    _refuse_work(work, precision)
    for name, layer in module.named_modules():
        problem = _problem(layer)
        if problem is not None:
            kind, hint = type(layer).__name__, problem[1]
            raise TaskError(f"example privacy: the layer `{name or 'model'}` ({kind}) {problem[0]}", hint=hint)


def _refuse_work(work: LocalWork, precision: str) -> None:
    if work.upload != "delta":
        raise TaskError(
            f'example privacy is a matter of local steps, and upload = "{work.upload}" takes none',
            hint='take steps = 1, batch_size = "all" and plain SGD: its delta is the gradient times the learning rate',
        )
    needs = needs_of(work.correction)
    if needs:
        raise TaskError(
            f"example privacy: the correction `{type(work.correction).__name__}` needs {', '.join(needs)}, which would "
            "be measured on the client's examples without noise",
            hint="use a correction that looks at weights alone",
        )
    if work.accumulate > 1:
        raise TaskError(
            f"example privacy adds noise once for each batch; accumulate = {work.accumulate} would average several",
            hint="take a batch_size as many times as large: memory does not grow with it",
        )
    if work.trains != EVERYTHING:
        raise TaskError(
            f"example privacy hides examples in steps of the whole model, and these move {list(work.trains)} alone",
            hint='freeze the rest with pipeline = [{ use = "freeze" }]',
        )
    if work.max_grad_norm is not None:
        raise TaskError(
            "example privacy clips each example's gradient; max_grad_norm would clip their noisy mean once more",
            hint="leave max_grad_norm out, and set clip_norm",
        )
    if work.objective is not None:
        raise TaskError(
            "example privacy clips the gradient of each example's loss, which a term made of a whole batch's "
            "representations is no part of",
            hint="leave the local objective out; a gradient correction, such as FedProx's, will do",
        )
    if work.perturbation is not None:
        raise TaskError(
            "example privacy clips the gradient of each example by itself, and `adversarial` moves whole batches first",
            hint='leave `adversarial` out, or hide clients instead of examples: unit = "client"',
        )
    if precision not in ("float32", "tf32"):
        raise TaskError(
            f"example privacy needs norms that are right, and {precision} rounds and scales what they are made of",
            hint='take precision = "float32"',
        )


def _problem(layer: nn.Module) -> tuple[str, str] | None:
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return "mixes the examples of a batch", "take GroupNorm, which looks at one example at a time"
    if isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.track_running_stats:
        return "keeps statistics of the examples without noise", "take track_running_stats=False"
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        if layer.max_norm is not None:
            return "changes its own rows by what it is asked for, without noise", "leave max_norm out"
        if layer.scale_grad_by_freq:
            return "scales gradients by how often a symbol is in the batch", "leave scale_grad_by_freq out"
    if not is_bare(layer) and _has_gradient_hooks(layer):
        return "has hooks on gradients, which would see single examples'", "remove them for training"
    return None


def _has_gradient_hooks(layer: nn.Module) -> bool:
    own = any(getattr(layer, name) for name in ("_backward_hooks", "_backward_pre_hooks"))
    return own or not is_bare(_parameters_of(layer))


def _parameters_of(layer: nn.Module) -> nn.Module:
    """The layer's own parameters, with nothing around them."""
    bare = nn.Module()
    bare._parameters.update(layer._parameters)
    return bare
