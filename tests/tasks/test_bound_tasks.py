"""The tasks that are bound to data by a schema: classification, regression, text."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import hanse.tasks
from hanse.core.errors import SettingError, TaskError
from hanse.data.preprocessing import Scale, Standardize
from hanse.data.schema import DataSchema
from hanse.tasks import (
    MLP,
    BindableTask,
    CharLSTM,
    Classification,
    Linear,
    NextCharacter,
    Regression,
    TwoNN,
    linear_regression,
    logistic_regression,
)
from hanse.tasks.expectations import NumberExpectation
from hanse.tasks.losses import AbsoluteError

CLASSES = DataSchema(input_shape=(4,), target="classes", classes=("a", "b", "c"))
IMAGES = DataSchema(input_shape=(28, 28), target="classes", classes=tuple("0123456789"))
NUMBERS = DataSchema(input_shape=(4,), target="number")
TWO_NUMBERS = DataSchema(input_shape=(4,), target="number", target_shape=(2,))
TEXT = DataSchema(input_shape=(5,), target="next_token", target_shape=(5,), classes=tuple("abcdef"))


def train(task, x, y, steps, lr):
    module = task.module()
    inputs, targets = task.tensors(x, y)
    for _ in range(steps):
        loss = task.loss(module(inputs), targets)
        module.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= lr * parameter.grad
    return module, task.metrics(task.sums(task.measure(module(inputs).detach(), targets)))


@pytest.mark.parametrize("task", [Classification(), Regression(), NextCharacter()])
def test_settings_are_bindable_and_tasks_are_not(task):
    assert isinstance(task, BindableTask)
    schema = {"Classification": CLASSES, "Regression": NUMBERS, "NextCharacter": TEXT}[type(task).__name__]
    assert not isinstance(task.bind(schema), BindableTask)


def test_objectives():
    assert Classification().bind(CLASSES).objective == ("accuracy", "max")
    assert Regression().bind(NUMBERS).objective == ("rmse", "min")
    assert NextCharacter().bind(TEXT).objective == ("accuracy", "max")


def test_tables_are_standardised_unless_told_otherwise():
    assert Classification().bind(CLASSES).preprocess == Standardize()
    assert Classification(preprocess=None).bind(CLASSES).preprocess is None
    assert Classification(model=TwoNN()).bind(IMAGES).preprocess is None
    scale = Scale(divide_by=255)
    assert Classification(model=TwoNN(), preprocess=scale).bind(IMAGES).preprocess is scale


@pytest.mark.parametrize(
    ("task", "schema"),
    [
        (Classification(), NUMBERS),
        (Classification(), TEXT),
        (Regression(), CLASSES),
        (NextCharacter(), CLASSES),
        (NextCharacter(model=MLP()), TEXT),
        (Classification(model=CharLSTM()), CLASSES),
        (Classification(), DataSchema(input_shape=(4,), target="classes", classes=("only",))),
    ],
)
def test_tasks_refuse_other_targets(task, schema):
    with pytest.raises(TaskError):
        task.bind(schema).spec  # noqa: B018 - computing it is what may fail


def test_logistic_regression_learns_a_separable_table():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = rng.normal(size=(90, 4)) + 4 * np.eye(4)[y]
    task = logistic_regression(preprocess=None).bind(CLASSES)
    assert not task.init_params(5).vector.any()
    assert train(task, x, y, 200, 0.1)[1]["accuracy"] > 0.95


def test_linear_regression_finds_the_line():
    task = linear_regression(preprocess=None).bind(DataSchema(input_shape=(1,), target="number"))
    x = np.array([[1.0], [2.0], [3.0]], dtype=np.float32)
    module, found = train(task, x, 2 * x[:, 0], 2000, 0.1)
    assert module.head.weight.item() == pytest.approx(2.0, abs=1e-3)
    assert module.head.bias.item() == pytest.approx(0.0, abs=1e-3)
    assert found["r2"] == pytest.approx(1.0, abs=1e-5)


def test_target_scale_changes_training_and_not_the_units_of_metrics():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 4))
    y = 1000 + 50 * x[:, 0]
    settings = {"model": Linear(), "preprocess": None, "dtype": "float64"}
    plain, scaled = Regression(**settings), Regression(target_scale=50.0, target_offset=1000.0, **settings)
    _, found = train(scaled.bind(NUMBERS), x, y, 2000, 0.1)
    assert found["rmse"] == pytest.approx(0.0, abs=1e-6)
    # before any training both predict a constant: 0, and the offset
    _, start = train(scaled.bind(NUMBERS), x, y, 0, 0.0)
    assert start["rmse"] == pytest.approx(float(np.sqrt(np.mean((y - 1000) ** 2))))
    assert start["loss"] == pytest.approx(start["mse"] / 50**2)
    assert start["mae"] == pytest.approx(float(np.mean(np.abs(y - 1000))))
    _, unscaled = train(plain.bind(NUMBERS), x, y, 0, 0.0)
    assert unscaled["rmse"] == pytest.approx(float(np.sqrt(np.mean(y**2))))


def test_several_targets_and_another_loss():
    task = Regression(loss=AbsoluteError(), preprocess=None).bind(TWO_NUMBERS)
    x, y = np.zeros((5, 4)), np.ones((5, 2))
    task.check(x, y)
    _, found = train(task, x, y, 0, 0.0)
    assert found["loss"] == pytest.approx(found["mae"])
    with pytest.raises(TaskError, match="2 numbers for each example; the targets have 3"):
        task.check(x, np.ones((5, 3)))


def test_regression_refuses_targets_that_are_no_numbers():
    task = Regression(preprocess=None).bind(NUMBERS)
    with pytest.raises(TaskError, match="target of example 1 is not a finite number"):
        task.check(np.zeros((2, 4)), np.array([0.0, np.nan]))


def test_text_counts_tokens():
    task = NextCharacter(model=CharLSTM(hidden=8, layers=1)).bind(TEXT)
    tokens = np.arange(15).reshape(3, 5) % 6
    task.check(tokens, tokens)
    inputs, targets = task.tensors(tokens, tokens)
    sums = task.sums(task.measure(task.module()(inputs).detach(), targets))
    assert sums["count"] == 15.0
    assert set(task.metrics(sums)) == {"loss", "accuracy", "perplexity"}
    with pytest.raises(TaskError, match="label 6 is outside the range 0 to 5 of the 6 symbols"):
        task.check(tokens, np.full((3, 5), 6))
    with pytest.raises(TaskError, match="answered 4 tokens a sequence; the targets have 5"):
        task.check(tokens[:, :4], tokens)
    with pytest.raises(TaskError, match=r"wanted tokens of shape \[n, T\]"):
        task.check(tokens, tokens[:, 0])


def test_regression_refuses_text_as_targets_in_words():
    with pytest.raises(TaskError, match="targets came as"):
        NumberExpectation().check(np.array(["a"]), (1, 1))


def test_settings_are_refused_at_once():
    for make in (
        lambda: Classification(label_smoothing=1.0),
        lambda: Regression(target_scale=0.0),
        lambda: Regression(target_scale=float("inf")),
        lambda: Regression(target_offset=float("nan")),
    ):
        with pytest.raises(SettingError):
            make()


def test_all_names_are_there_and_unknown_ones_are_not():
    for name in hanse.tasks.__all__:
        assert getattr(hanse.tasks, name).__name__ == name
    assert sorted(hanse.tasks.__all__) == dir(hanse.tasks)
    with pytest.raises(AttributeError, match="Clasification"):
        hanse.tasks.Clasification  # noqa: B018 - the attribute is what fails


def test_importing_tasks_does_not_import_a_framework():
    code = """
import sys
import hanse.tasks, hanse.tasks.metrics, hanse.data.preprocessing
from hanse.tasks import CallableTask, Estimator
assert not {"torch", "sklearn"} & set(sys.modules), "heavy imports"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_framework_gets_a_sentence():
    code = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from hanse.core.errors import MissingExtraError
try:
    from hanse.tasks import Classification
except MissingExtraError as error:
    assert "hanse[torch]" in error.hint, error
else:
    raise AssertionError("no error")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
