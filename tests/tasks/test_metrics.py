import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from hanse.tasks.losses import CrossEntropy, Huber, SquaredError, TokenCrossEntropy
from hanse.tasks.measures import ClassMeasure, NumberMeasure, TokenMeasure, _compare_labels, _count_pairs
from hanse.tasks.metrics import class_metrics, mean_metrics, number_metrics, token_metrics
from hanse.tasks.torch_task import TorchTask


def as_sums(measured):
    return TorchTask.sums(None, measured)


def add(parts):
    return {name: sum(part[name] for part in parts) for name in parts[0]}


@pytest.mark.parametrize("finish", [class_metrics, mean_metrics, number_metrics, token_metrics])
def test_nothing_measured_gives_no_metrics(finish):
    assert finish({}) == {}
    assert finish({"count": 0.0}) == {}
    assert finish({"count": 0.0, "loss": 0.0}) == {}


def test_two_classes_by_hand():
    # labels 1 1 1 0, predictions 1 0 0 0: class 1 has tp 1, fn 2; class 0 has tp 1, fp 2
    sums = {"loss": 2.0, "count": 4.0, "correct": 2.0}
    sums |= {"tp/0": 1.0, "fp/0": 2.0, "fn/0": 0.0, "tp/1": 1.0, "fp/1": 0.0, "fn/1": 2.0}
    found = class_metrics(sums)
    assert found == pytest.approx(
        {
            "loss": 0.5,
            "accuracy": 0.5,
            "balanced_accuracy": (1 + 1 / 3) / 2,
            "macro_f1": (2 / 4 + 2 / 4) / 2,
            "sensitivity": 1 / 3,
            "specificity": 1.0,
        }
    )


def test_absent_class_is_left_out_and_never_nan():
    healthy_only = {"loss": 1.0, "count": 2.0, "correct": 2.0}
    healthy_only |= {"tp/0": 2.0, "fp/0": 0.0, "fn/0": 0.0, "tp/1": 0.0, "fp/1": 0.0, "fn/1": 0.0}
    found = class_metrics(healthy_only)
    assert "sensitivity" not in found
    assert found["balanced_accuracy"] == found["macro_f1"] == found["specificity"] == 1.0


@settings(deadline=None, max_examples=60)
@given(data=st.data(), num_classes=st.integers(2, 6), count=st.integers(1, 50))
def test_agrees_with_scikit_learn(data, num_classes, count):
    draw = st.lists(st.integers(0, num_classes - 1), min_size=count, max_size=count)
    labels, predicted = (np.array(data.draw(draw)) for _ in range(2))
    outputs = torch.nn.functional.one_hot(torch.from_numpy(predicted), num_classes).double()
    found = class_metrics(as_sums(ClassMeasure(CrossEntropy())(outputs, torch.from_numpy(labels))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of predicted classes that have no example
        wanted = {
            "accuracy": reference.accuracy_score(labels, predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted),
            "macro_f1": reference.f1_score(labels, predicted, average="macro", zero_division=0),
            "loss": reference.log_loss(labels, outputs.softmax(1).numpy(), labels=range(num_classes)),
        }
        if num_classes == 2 and labels.any():
            wanted["sensitivity"] = reference.recall_score(labels, predicted)
        if num_classes == 2 and not labels.all():
            wanted["specificity"] = reference.recall_score(labels, predicted, pos_label=0)
    assert found == pytest.approx(wanted, rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(cuts=st.lists(st.integers(0, 60), max_size=5), num_classes=st.sampled_from([2, 3, 10, 20, 21, 40]))
def test_classes_measured_in_parts_are_measured_as_a_whole(cuts, num_classes):
    generator = torch.Generator().manual_seed(len(cuts) + num_classes)
    outputs = torch.randn(60, num_classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(num_classes, (60,), generator=generator)
    check_parts(ClassMeasure(CrossEntropy(label_smoothing=0.1)), class_metrics, outputs, labels, cuts)


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, 60), max_size=5), targets=st.sampled_from([(), (1,), (3,)]))
def test_numbers_measured_in_parts_are_measured_as_a_whole(cuts, targets):
    generator = torch.Generator().manual_seed(len(cuts))
    outputs, wanted = (torch.randn(60, *targets, generator=generator, dtype=torch.float64) for _ in range(2))
    check_parts(NumberMeasure(Huber(), 2.0, 5.0), number_metrics, outputs, wanted, cuts)


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, 60), max_size=5))
def test_tokens_measured_in_parts_are_measured_as_a_whole(cuts):
    generator = torch.Generator().manual_seed(len(cuts))
    outputs = torch.randn(60, 5, 7, generator=generator, dtype=torch.float64)
    tokens = torch.randint(7, (60, 5), generator=generator)
    check_parts(TokenMeasure(TokenCrossEntropy()), token_metrics, outputs, tokens, cuts)


def check_parts(measure, finish, outputs, targets, cuts):
    """Federated evaluation (any cut into clients, empty ones too) is pooled evaluation."""
    edges = [0, *sorted(cuts), len(outputs)]
    parts = [as_sums(measure(outputs[a:b], targets[a:b])) for a, b in pairwise(edges)]
    whole = as_sums(measure(outputs, targets))
    assert add(parts) == pytest.approx(whole, rel=1e-12, abs=1e-12)
    for name, value in whole.items():
        if name.split("/")[0] in ("count", "correct", "tp", "fp", "fn"):
            assert add(parts)[name] == value
    assert finish(add(parts)) == pytest.approx(finish(whole), rel=1e-9)


@pytest.mark.parametrize("targets", [(), (3,)])
def test_regression_agrees_with_scikit_learn(targets):
    rng = np.random.default_rng(5)
    wanted = rng.normal(100.0, 30.0, size=(200, *targets))
    given = wanted + rng.normal(0.0, 10.0, size=wanted.shape)
    measured = NumberMeasure(SquaredError())(torch.from_numpy(given), torch.from_numpy(wanted))
    found = number_metrics(as_sums(measured))
    mse = reference.mean_squared_error(wanted, given)
    assert found == pytest.approx(
        {
            "loss": mse,
            "mse": mse,
            "rmse": math.sqrt(mse),
            "mae": reference.mean_absolute_error(wanted, given),
            "r2": reference.r2_score(wanted, given),
        },
        rel=1e-10,
    )


def test_targets_that_do_not_vary_have_no_r2():
    wanted = torch.full((7,), 0.1, dtype=torch.float64)
    found = number_metrics(as_sums(NumberMeasure(SquaredError())(wanted + 1, wanted)))
    assert found["mse"] == pytest.approx(1.0)
    assert "r2" not in found


def test_perplexity_by_hand_and_bounded():
    # uniform over four symbols: one in four is meant, and the loss is log 4
    outputs, tokens = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)
    found = token_metrics(as_sums(TokenMeasure(TokenCrossEntropy())(outputs, tokens)))
    assert found == pytest.approx({"loss": math.log(4), "accuracy": 1.0, "perplexity": 4.0})
    assert math.isfinite(token_metrics({"loss": 1e9, "count": 1.0, "correct": 0.0})["perplexity"])


def test_half_precision_outputs_are_summed_in_double():
    measured = ClassMeasure(CrossEntropy())(torch.zeros(4, 3, dtype=torch.bfloat16), torch.tensor([0, 1, 2, 0]))
    assert {value.dtype for value in measured.values()} == {torch.float64}


@pytest.mark.parametrize("count", [0, 1, 100])
def test_both_ways_to_count_agree(count):
    generator = torch.Generator().manual_seed(count)
    predicted, labels = (torch.randint(4, (count,), generator=generator) for _ in range(2))
    ways = [way(predicted, labels, 4) for way in (_count_pairs, _compare_labels)]
    assert [part.tolist() for part in ways[0]] == [part.tolist() for part in ways[1]]
    assert ways[0][1].tolist() == np.bincount(predicted, minlength=4).tolist()
