import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn import linear_model, naive_bayes, svm
from sklearn.metrics import log_loss

from hanse.core.corrections import Proximal
from hanse.core.errors import TaskError
from hanse.core.local_work import LocalWork
from hanse.core.params import Params
from hanse.data.preprocessing import Standardize
from hanse.data.schema import DataSchema
from hanse.tasks import Estimator, PlainTask

NUMBERS = DataSchema(input_shape=(4,), target="number")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 4)).astype(np.float32)
LINE = X @ np.array([1.0, 2.0, 3.0, 4.0]) + 5
ONCE = LocalWork(epochs=1)


def classes(count):
    return DataSchema(input_shape=(4,), target="classes", classes=tuple(map(str, range(count))))


def labelled(count):
    y = np.arange(90) % count
    return X + 3 * np.eye(4, dtype=np.float32)[y], y


def fit(estimator, schema, x, y, work=ONCE, seed=1):
    task = Estimator(estimator=estimator, preprocess=None).bind(schema)
    params = task.init_params(0)
    task.check(x, y)
    trained, sums, steps = task.train_plain(params, x, y, work, seed)
    assert not params.vector.any()  # the broadcast weights stay as they are
    return task, trained, task.metrics(sums), steps


REGRESSORS = [
    linear_model.LinearRegression(),
    linear_model.Ridge(alpha=1e-6),
    linear_model.Lasso(alpha=1e-6),
    linear_model.ElasticNet(alpha=1e-6),
    linear_model.HuberRegressor(),
    linear_model.SGDRegressor(),
]
CLASSIFIERS = [
    linear_model.LogisticRegression(),
    linear_model.SGDClassifier(loss="log_loss"),
    linear_model.SGDClassifier(loss="hinge"),
    linear_model.Perceptron(),
    linear_model.RidgeClassifier(),
    svm.LinearSVC(),
]


@pytest.mark.parametrize("estimator", REGRESSORS, ids=lambda e: type(e).__name__)
def test_regressors_learn(estimator):
    task, trained, found, _ = fit(estimator, NUMBERS, X, LINE, LocalWork(epochs=50))
    assert isinstance(task, PlainTask)
    assert found["r2"] > 0.99
    np.testing.assert_allclose(trained.arrays()["coef_"], [1, 2, 3, 4], atol=0.1)
    np.testing.assert_allclose(trained.arrays()["intercept_"], 5, atol=0.1)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=lambda e: type(e).__name__)
def test_classifiers_learn(estimator, num_classes):
    x, y = labelled(num_classes)
    _, _, found, _ = fit(estimator, classes(num_classes), x, y, LocalWork(epochs=10))
    assert found["accuracy"] > 0.85


def test_closed_form_is_what_the_estimator_does_by_itself():
    y = LINE + X[:, 0] ** 2
    _, trained, _, steps = fit(linear_model.LinearRegression(), NUMBERS, X, y)
    wanted = linear_model.LinearRegression().fit(X.astype(np.float64), y)
    np.testing.assert_allclose(trained.arrays()["coef_"], wanted.coef_, rtol=1e-9)
    assert steps == 1


def test_evaluation_is_what_the_estimator_says():
    x, y = labelled(3)
    task, trained, _, _ = fit(linear_model.LogisticRegression(), classes(3), x, y)
    wanted = linear_model.LogisticRegression().fit(x.astype(np.float64), y)
    found = task.metrics(task.evaluate_plain(trained, x, y))
    assert found["accuracy"] == wanted.score(x, y)
    assert found["loss"] == pytest.approx(log_loss(y, wanted.predict_proba(x)), rel=1e-6)


def test_sums_of_parts_are_the_sums_of_the_whole():
    x, y = labelled(3)
    task, trained, _, _ = fit(linear_model.LogisticRegression(), classes(3), x, y)
    parts = [task.evaluate_plain(trained, x[rows], y[rows]) for rows in (slice(0, 1), slice(1, 50), slice(50, 90))]
    whole = task.evaluate_plain(trained, x, y)
    assert {name: sum(part[name] for part in parts) for name in whole} == pytest.approx(whole, rel=1e-12)
    assert task.evaluate_plain(trained, x[:0], y[:0]) == {"count": 0.0}


def test_epochs_are_passes_and_the_first_continues_from_the_broadcast_weights():
    x, y = labelled(2)
    sgd = linear_model.SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01)
    task, once, _, steps = fit(sgd, classes(2), x, y)
    assert steps == 1
    again, _, _ = task.train_plain(once, x, y, ONCE, 2)
    assert (again - once).l2_norm() > 0
    assert (
        task.metrics(task.evaluate_plain(again, x, y))["loss"] < task.metrics(task.evaluate_plain(once, x, y))["loss"]
    )
    assert task.train_plain(once, x, y, LocalWork(epochs=4), 2)[2] == 4
    assert task.train_plain(once, x, y, LocalWork(steps=7, batch_size=40), 2)[2] == 7


def test_one_pass_by_hand():
    # squared loss, constant rate 0.1, one example x = 2, y = 3 from w = 1, b = 0:
    # the error is 2 − 3 = −1, so w ← 1 + 0.1 · 2 and b ← 0.1
    sgd = linear_model.SGDRegressor(learning_rate="constant", eta0=0.1, alpha=0.0, penalty=None)
    task = Estimator(estimator=sgd, preprocess=None).bind(DataSchema(input_shape=(1,), target="number"))
    start = Params.from_arrays({"coef_": np.array([1.0]), "intercept_": np.array([0.0])})
    trained, sums, _ = task.train_plain(start, np.array([[2.0]]), np.array([3.0]), ONCE, 0)
    assert trained.arrays()["coef_"] == pytest.approx([1.2])
    assert trained.arrays()["intercept_"] == pytest.approx([0.1])
    assert sums["squared_error"] == pytest.approx(0.25)


def test_same_seed_same_bits():
    x, y = labelled(3)
    work = LocalWork(epochs=3)
    runs = [fit(linear_model.SGDClassifier(), classes(3), x, y, work, seed)[1].sha256() for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_client_with_one_class_trains_where_partial_fit_can(num_classes):
    x, y = labelled(num_classes)
    rows = y == 1
    task, trained, found, _ = fit(linear_model.SGDClassifier(), classes(num_classes), x[rows], y[rows])
    assert found["accuracy"] == 1.0
    assert trained.spec == task.init_params(0).spec


def test_a_client_that_lacks_classes_gets_a_sentence_where_only_fit_is():
    x, y = labelled(3)
    rows = y == 1
    task = Estimator(estimator=linear_model.LogisticRegression(), preprocess=None).bind(classes(3))
    with pytest.raises(
        TaskError, match=r"no example of class 0, 2, and LogisticRegression.fit\(\) needs all 3"
    ) as caught:
        task.train_plain(task.init_params(0), x[rows], y[rows], ONCE, 0)
    assert "partial_fit" in caught.value.hint


def test_warm_start_continues_from_the_broadcast_weights():
    x, y = labelled(2)
    slow = linear_model.LogisticRegression(max_iter=1)
    task, first, _, _ = fit(slow, classes(2), x, y)
    params = first
    for _ in range(30):
        params, _, _ = task.train_plain(params, x, y, ONCE, 0)
    settled = linear_model.LogisticRegression().fit(x, y)
    np.testing.assert_allclose(params.arrays()["coef_"], settled.coef_, atol=1e-2)
    assert slow.warm_start is False  # the user's estimator is not changed
    assert not hasattr(slow, "coef_")


def test_several_targets():
    schema = DataSchema(input_shape=(4,), target="number", target_shape=(2,))
    y = np.stack([LINE, -LINE], axis=1)
    _, trained, found, _ = fit(linear_model.LinearRegression(), schema, X, y)
    assert trained.arrays()["coef_"].shape == (2, 4)
    assert found["r2"] == pytest.approx(1.0)


def test_preprocess_and_objective():
    task = Estimator(estimator=linear_model.LogisticRegression()).bind(classes(2))
    assert task.preprocess == Standardize()
    assert task.objective == ("accuracy", "max")
    assert Estimator(estimator=linear_model.Ridge()).bind(NUMBERS).objective == ("rmse", "min")


def test_tasks_cross_process_boundaries():
    task = Estimator(estimator=linear_model.SGDClassifier()).bind(classes(2))
    task.init_params(0)
    again = pickle.loads(pickle.dumps(task))
    assert again.init_params(0).spec == task.init_params(0).spec


@pytest.mark.parametrize(
    ("estimator", "schema", "sentence"),
    [
        (naive_bayes.GaussianNB(), classes(2), "GaussianNB does not keep what it learnt in `coef_`"),
        (linear_model.LinearRegression(), classes(2), "LinearRegression is a regressor; targets are `classes`"),
        (linear_model.LogisticRegression(), NUMBERS, "LogisticRegression is a classifier; targets are `number`"),
        (linear_model.LogisticRegression(), classes(1), "names 1 classes"),
        (linear_model.SGDClassifier(average=True), classes(2), "keeps two sets of weights"),
        (linear_model.SGDRegressor(), DataSchema(input_shape=(4,), target="number", target_shape=(2,)), "can't learn"),
        (linear_model.Ridge(), DataSchema(input_shape=(28, 28), target="number"), r"needs tables; .* \[28, 28\]"),
    ],
)
def test_misfits_get_a_sentence(estimator, schema, sentence):
    with pytest.raises(TaskError, match=sentence):
        Estimator(estimator=estimator).bind(schema).init_params(0)


def test_bad_examples_get_a_sentence():
    x, y = labelled(2)
    task = Estimator(estimator=linear_model.SGDClassifier()).bind(classes(2))
    with pytest.raises(TaskError, match="label 2 is outside the range 0 to 1"):
        task.check(x, y + 1)
    with pytest.raises(TaskError, match="can't predict such examples: X has 3 features"):
        task.check(x[:, :3], y)
    task.check(x[:0], y[:0])
    with pytest.raises(TaskError, match="can't be trained on these 90 examples"):
        task.train_plain(task.init_params(0), np.full_like(x, np.nan), y, ONCE, 0)


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (LocalWork(upload="gradient"), "a gradient instead of a delta"),
        (LocalWork(correction=Proximal(mu=0.1)), "a correction of each gradient"),
        (LocalWork(max_grad_norm=1.0), "max_grad_norm"),
        (LocalWork(accumulate=2), "accumulate"),
    ],
)
def test_work_on_gradients_is_refused(work, sentence):
    task = Estimator(estimator=linear_model.SGDRegressor()).bind(NUMBERS)
    with pytest.raises(TaskError, match=sentence):
        task.train_plain(task.init_params(0), X, LINE, work, 0)


def test_missing_scikit_learn_gets_a_sentence():
    code = """
import sys
sys.modules["sklearn"] = None  # as if it were not installed
from hanse.core.errors import MissingExtraError
from hanse.data.schema import DataSchema
from hanse.tasks import Estimator
try:
    Estimator(estimator=object()).bind(DataSchema(input_shape=(4,), target="number"))
except MissingExtraError as error:
    assert "hanse[sklearn]" in error.hint, error
else:
    raise AssertionError("no error")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
