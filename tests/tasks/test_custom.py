import numpy as np
import pytest
import torch
from torch import nn

from hanse.core.errors import SettingError, TaskError
from hanse.tasks import module_task
from hanse.tasks.losses import Huber

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
Y = np.arange(8) % 3


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x)


def evaluate(task, y=Y):
    inputs, targets = task.tensors(X, y)
    return task.metrics(task.sums(task.measure(task.module()(inputs).detach(), targets)))


def test_a_class_is_initialised_by_the_seed():
    task = module_task(Net)
    task.check(X, Y)
    assert task.init_params(1).sha256() != task.init_params(2).sha256()
    assert set(evaluate(task)) == {"loss", "accuracy", "balanced_accuracy", "macro_f1"}


def test_an_instance_brings_its_weights_and_is_never_changed():
    net = Net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    task = module_task(net)
    for seed in (1, 2):
        np.testing.assert_array_equal(task.init_params(seed).arrays()["head.weight"], before["head.weight"].numpy())
    made = task.module()
    assert made is not net
    with torch.no_grad():
        made.head.weight.zero_()
        net.head.bias.fill_(9.0)  # and what the user does to it later does not reach the task
    assert torch.equal(net.head.weight, before["head.weight"])
    np.testing.assert_array_equal(task.init_params(1).arrays()["head.bias"], before["head.bias"].numpy())


def test_float64_does_not_reach_into_the_users_instance():
    net = Net()
    module_task(net, dtype="float64").module()
    assert net.head.weight.dtype == torch.float32


def test_own_metrics_stand_beside_the_losses_own():
    metrics = {
        "top2": lambda outputs, targets: (outputs.topk(2).indices == targets[:, None]).any(1),
        "spread": lambda outputs, targets: outputs.std(),
    }
    task = module_task(Net, metrics=metrics)
    found = evaluate(task)
    assert 0 <= found["accuracy"] <= found["top2"] <= 1
    assert found["spread"] == pytest.approx(task.module()(torch.from_numpy(X)).std().item(), rel=1e-6)


def test_a_function_as_loss():
    task = module_task(Net, nn.CrossEntropyLoss(), metrics={"hits": lambda o, t: o.argmax(1) == t})
    task.check(X, Y)
    found, wanted = evaluate(task), evaluate(module_task(Net))
    assert found == pytest.approx({"loss": wanted["loss"], "hits": wanted["accuracy"]}, rel=1e-6)
    assert task.objective == ("loss", "min")


def test_targets_of_a_function_keep_their_kind():
    task = module_task(Net, nn.MSELoss())
    assert task.tensors(X, Y)[1].dtype == torch.int64
    assert task.tensors(X, Y.astype(np.float64))[1].dtype == torch.float32


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", Huber(delta=2.0)])
def test_losses_for_numbers(loss):
    task = module_task(lambda: nn.Linear(4, 1), loss)
    y = X @ np.array([1.0, 2.0, 3.0, 4.0])
    task.check(X, y)
    assert set(evaluate(task, y)) == {"loss", "mse", "rmse", "mae", "r2"}


@pytest.mark.parametrize("shape", [lambda: nn.Linear(4, 1), lambda: nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))])
def test_one_logit_for_two_classes(shape):
    task = module_task(shape, "binary_cross_entropy")
    task.check(X, Y % 2)
    assert {"accuracy", "sensitivity", "specificity"} <= set(evaluate(task, Y % 2))
    with pytest.raises(TaskError, match="label 2 is outside the range 0 to 1"):
        task.check(X, Y)


def test_one_logit_wants_one_output():
    with pytest.raises(TaskError, match=r"shape \[n, 3\]; wanted one logit an example"):
        module_task(Net, "binary_cross_entropy").check(X, Y % 2)


def test_one_logit_wants_one_label():
    with pytest.raises(TaskError, match=r"targets came with shape \[8, 1\]"):
        module_task(lambda: nn.Linear(4, 1), "binary_cross_entropy").check(X, Y[:, None] % 2)


def test_tokens():
    def make():
        return nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6))

    task = module_task(make, "token_cross_entropy", input_kind="index", num_classes=6)
    tokens = np.arange(12).reshape(3, 4) % 6
    task.check(tokens, tokens)
    with pytest.raises(TaskError, match=r"shape \[n, 4, 6\], 6 for each token; the data has 5 symbols"):
        module_task(make, "token_cross_entropy", input_kind="index", num_classes=5).check(tokens, tokens % 5)


def test_fields_are_passed_on():
    task = module_task(Net, name="mine", objective=("loss", "min"))
    assert (task.name, task.objective) == ("mine", ("loss", "min"))


def test_unknown_loss_gets_the_nearest():
    with pytest.raises(SettingError) as caught:
        module_task(Net, "crossentropy")
    assert "did you mean `cross_entropy`" in caught.value.hint
    with pytest.raises(SettingError, match="got int"):
        module_task(Net, 3)


def test_a_module_that_can_not_be_copied_gets_a_sentence():
    net = Net()
    net.cache = net.head(torch.zeros(1, 4))  # part of a graph
    with pytest.raises(TaskError, match="Net can't be copied") as caught:
        module_task(net)
    assert "class" in caught.value.hint


def test_wrong_ranks_get_a_sentence():
    with pytest.raises(TaskError, match=r"targets came with shape \[8, 1\]; wanted one label"):
        module_task(Net).check(X, Y[:, None])
    with pytest.raises(TaskError, match=r"outputs have shape \[n\]; wanted \[n, C\]"):
        module_task(lambda: nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))).check(X, Y)
    with pytest.raises(TaskError, match="labels came as float64; wanted whole numbers from 0 to 2"):
        module_task(Net, num_classes=3).check(X, Y.astype(np.float64))
