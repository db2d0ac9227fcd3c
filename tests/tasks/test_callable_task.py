import numpy as np
import pytest

from hanse.core.errors import TaskError
from hanse.core.local_work import LocalWork
from hanse.tasks import BindableTask, CallableTask, PlainTask

X = np.arange(6.0).reshape(6, 1)
Y = np.arange(6.0) + 1
ONCE = LocalWork()


def init():
    return {"mean": np.zeros(1)}


def train(weights, x, y, seed):
    weights["mean"] += 0.5 * (y.mean() - weights["mean"])
    return weights


def evaluate(weights, x, y):
    return {"loss": ((y - weights["mean"]) ** 2).sum(), "count": len(y)}


TASK = CallableTask(init=init, train=train, evaluate=evaluate)


def test_fits_the_protocol_and_is_ready():
    assert isinstance(TASK, PlainTask)
    assert not isinstance(TASK, BindableTask)
    assert TASK.objective == ("loss", "min")


def test_one_round_by_hand():
    start = TASK.init_params(7)
    trained, sums, steps = TASK.train_plain(start, X, Y, ONCE, 0)
    assert trained.arrays()["mean"].tolist() == [1.75]  # half way to 3.5
    assert start.arrays()["mean"].tolist() == [0.0]  # though `train` works in place
    assert TASK.metrics(sums) == {"loss": pytest.approx(np.mean((Y - 1.75) ** 2))}
    assert steps == 1


def test_parts_add_up_and_nothing_is_nothing():
    params = TASK.init_params(0)
    parts = [TASK.evaluate_plain(params, X[rows], Y[rows]) for rows in (slice(0, 2), slice(2, 2), slice(2, 6))]
    whole = TASK.evaluate_plain(params, X, Y)
    assert sum(part.get("loss", 0.0) for part in parts) == pytest.approx(whole["loss"])
    assert parts[1] == {"count": 0.0}
    assert TASK.metrics(parts[1]) == {}


def test_seed_reaches_train():
    seen = []

    def noting(weights, x, y, seed):
        seen.append(seed)
        return weights

    task = CallableTask(init=init, train=noting, evaluate=evaluate)
    task.train_plain(task.init_params(0), X, Y, ONCE, 41)
    assert seen == [41]


def test_check_tries_evaluate():
    TASK.check(X, Y)
    TASK.check(X[:0], Y[:0])
    broken = CallableTask(init=init, train=train, evaluate=lambda w, x, y: 1 / 0)
    with pytest.raises(TaskError, match="`evaluate` failed: ZeroDivisionError"):
        broken.check(X, Y)
    for wrong in ({"loss": 1.0}, 3.0):
        with pytest.raises(TaskError, match="wanted additive sums by name, among them `count`"):
            CallableTask(init=init, train=train, evaluate=lambda w, x, y, wrong=wrong: wrong).check(X, Y)


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        ({"mean": np.zeros(2)}, r"`train` returned arrays `mean` \[2\]; the task has `mean` \[1\]"),
        ({"other": np.zeros(1)}, r"`other` \[1\]; the task has `mean`"),
        ({}, "at least one"),
        (None, "returned NoneType"),
        ({"mean": np.array(["a"])}, "wanted an array of numbers"),
    ],
)
def test_weights_of_another_shape_get_a_sentence(returned, sentence):
    task = CallableTask(init=init, train=lambda w, x, y, seed: returned, evaluate=evaluate)
    with pytest.raises(TaskError, match=sentence):
        task.train_plain(task.init_params(0), X, Y, ONCE, 0)


def test_gradients_are_refused():
    with pytest.raises(TaskError, match="shows no gradients"):
        TASK.train_plain(TASK.init_params(0), X, Y, LocalWork(upload="gradient"), 0)
