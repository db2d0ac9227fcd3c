"""Arrays, items, data frames, npz and svmlight files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.core.errors import DataError
from hanse.data.readers.arrays import dataset_from_arrays
from hanse.data.readers.dataframe import dataset_from_frame, read_dataframe
from hanse.data.readers.encode import Columns
from hanse.data.readers.items import dataset_from_items
from hanse.data.readers.npz import read_npz
from hanse.data.readers.svmlight import read_svmlight


def test_inputs_of_the_right_type_are_not_copied() -> None:
    x = np.zeros((4, 2), np.float32)
    data = dataset_from_arrays(x, [0, 1, 1, 0])
    assert data.train.x is x
    assert data.target == "classes"
    assert data.classes == ("0", "1")


def test_types_decide_what_inputs_are() -> None:
    pixels = dataset_from_arrays(np.array([[0, 255]], np.uint8), [0])
    assert pixels.train.x.tolist() == [[0, 1]]
    assert pixels.train.x.dtype == np.float32
    assert dataset_from_arrays(np.array([[0, 300]], np.int16), [0]).train.x.dtype == np.int64
    assert dataset_from_arrays(np.zeros((1, 2)), [0]).train.x.dtype == np.float32


def test_labels_decide_what_targets_are() -> None:
    x = np.zeros((3, 1))
    assert dataset_from_arrays(x, [0.5, 1, 2]).target == "number"
    assert dataset_from_arrays(x, [1.0, 0.0, 2.0], kind="classes").train.y.tolist() == [1, 0, 2]
    signs = dataset_from_arrays(x, [-1, 1, -1])
    assert (signs.train.y.tolist(), signs.classes) == ([0, 1, 0], ("-1", "1"))
    assert dataset_from_arrays(x, [True, False, True]).train.y.tolist() == [1, 0, 1]
    assert dataset_from_arrays(x, [3, 1, 2], kind="number").train.y.dtype == np.float32
    words = dataset_from_arrays(x, ["b", "a", "b"], test=(x[:1], ["c"]))
    assert words.classes == ("a", "b", "c")
    assert words.test is not None
    assert words.test.y.tolist() == [2]
    assert words.train.y.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("x", "y", "kind", "problem"),
    [
        ([[1.0]], [0.5], "classes", "not whole numbers"),
        ([[1.0]], [[0, 1]], "classes", "one for each row"),
        ([[1.0]], ["a"], "number", "numbers were wanted"),
        ([["a"]], [0], "auto", "inputs are of type"),
        ([[1.0], [1.0, 2.0]], [0, 1], "auto", "does not make an array"),
        ([[None]], [0], "auto", "Python objects"),
        ([[1.0]], [0, 1], "auto", "each input needs one"),
    ],
)
def test_arrays_that_do_not_fit(x: Any, y: Any, kind: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        dataset_from_arrays(x, y, kind=kind)


def test_items_may_be_tensors() -> None:
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(torch.arange(6.0).reshape(3, 2), torch.tensor([0, 2, 1]))
    data = dataset_from_items(pairs, test=[(torch.zeros(2), 1)])
    assert data.train.x.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert data.train.y.tolist() == [0, 2, 1]
    assert data.test is not None
    assert len(data.test) == 1
    assert data.name == "TensorDataset"


def test_items_may_be_images() -> None:
    image = pytest.importorskip("PIL.Image")
    red = image.new("RGB", (3, 2), (255, 0, 0))
    data = dataset_from_items([(red, "red"), (red, "rot")])
    assert data.train.x.shape == (2, 3, 2, 3)
    assert data.train.x[0, :, 0, 0].tolist() == [1, 0, 0]
    assert data.classes == ("red", "rot")


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ([], "without a single item"),
        ([np.zeros(3)], "item 0 is not a pair"),
        ([3], "item 0 is not a pair"),
        ([(np.zeros(2), 0), (np.zeros(3), 0)], r"item 1 has shape \[3\], the first one \[2\]"),
    ],
)
def test_items_that_do_not_fit(items: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        dataset_from_items(items)


def test_data_frames() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "n": [1, 2, 3],
            "f": [0.5, None, 2],
            "b": [True, False, True],
            "t": ["x", None, "z"],
            "c": pd.Categorical(["u", "v", "u"]),
            "i": pd.array([1, None, 3], dtype="Int64"),
        }
    )
    table = read_dataframe(frame)
    assert table["n"].tolist() == [1, 2, 3]
    assert np.array_equal(table["f"], [0.5, np.nan, 2], equal_nan=True)
    assert table["b"].tolist() == [1, 0, 1]
    assert table["t"].tolist() == ["x", "", "z"]
    assert table["c"].tolist() == ["u", "v", "u"]
    assert np.array_equal(table["i"], [1, np.nan, 3], equal_nan=True)
    with pytest.raises(DataError, match="column `d` holds Timestamp"):
        read_dataframe(pd.DataFrame({"d": pd.to_datetime(["2020-01-01"])}))
    with pytest.raises(DataError, match="holds no rows"):
        read_dataframe(frame.iloc[:0])
    data = dataset_from_frame(frame, Columns(target="c", drop=("i", "f"), group=("t",)), test=frame.iloc[:1])
    assert data.features == ("n", "b")
    assert data.train.y.tolist() == [0, 1, 0]
    assert data.groups["t"].tolist() == ["x", "missing", "z"]
    assert data.test is not None
    assert len(data.test) == 1


def test_npz(tmp_path: Path) -> None:
    x, y = np.zeros((3, 2), np.float32), np.array([0, 1, 0])
    np.savez(tmp_path / "a.npz", x=x, y=y, x_test=x[:1], y_test=y[:1], group=np.array([5, 5, 6]))
    data = read_npz(tmp_path / "a.npz")
    assert (data.name, len(data.train), data.num_classes) == ("a", 3, 2)
    assert data.test is not None
    assert data.groups["group"].tolist() == [5, 5, 6]


def test_npz_mistakes(tmp_path: Path) -> None:
    x = np.zeros((3, 2))
    np.savez(tmp_path / "a.npz", X=x, y=np.zeros(3))
    with pytest.raises(DataError, match="no array `x`"):
        read_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=x, y=np.zeros(3), x_test=x)
    with pytest.raises(DataError, match="only one of"):
        read_npz(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", x=np.array([{}, {}], dtype=object), y=np.zeros(2))
    with pytest.raises(DataError, match="can't be read") as error:
        read_npz(tmp_path / "c.npz")
    assert "run code" in str(error.value)
    for content in (b"", b"PK\x03\x04 broken", b"something else"):
        (tmp_path / "d.npz").write_bytes(content)
        with pytest.raises(DataError, match="can't be read"):
            read_npz(tmp_path / "d.npz")
    np.save(tmp_path / "e.npy", x)
    (tmp_path / "e.npy").rename(tmp_path / "e.npz")
    with pytest.raises(DataError, match="can't be read"):
        read_npz(tmp_path / "e.npz")


def test_svmlight(tmp_path: Path) -> None:
    file = tmp_path / "a.svm"
    file.write_text("# head\n+1 1:0.5 3:2 # tail\n@7 -1 2:1\n\n0\n")
    x, y = read_svmlight(file)
    assert x.tolist() == [[0.5, 0, 2], [0, 1, 0], [0, 0, 0]]
    assert y.tolist() == [1, -1, 0]
    assert read_svmlight(file, num_features=5)[0].shape == (3, 5)
    file.write_text("1 0:1 2:3\n")
    assert read_svmlight(file)[0].tolist() == [[1, 0, 3]]
    file.write_text("1 qid:3 1:1\n")
    assert read_svmlight(file)[0].tolist() == [[1]]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no rows"),
        ("a,b\n", "line 1: 'a,b' is not a label"),
        ("1 1:1\n1 x:2\n", "line 2: 'x:2' is not `index:value`"),
        ("1 5\n", "is not `index:value`"),
        ("1 2:1 1:1\n", "indices have to increase"),
        ("1 -1:1\n", "indices have to increase"),
        ("1 4:1\n", "an index 4 where 3 features"),
    ],
)
def test_svmlight_mistakes(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.svm").write_text(text)
    with pytest.raises(DataError, match=problem):
        read_svmlight(tmp_path / "a.svm", num_features=3)


def test_svmlight_does_not_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "a.svm").write_text("1 4000000000:1\n")
    with pytest.raises(DataError, match="more than 4 GiB"):
        read_svmlight(tmp_path / "a.svm")


def test_svmlight_agrees_with_scikit_learn(tmp_path: Path) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 6)) * (rng.random((20, 6)) < 0.4)
    datasets.dump_svmlight_file(x, rng.integers(0, 2, 20), str(tmp_path / "a.svm"), zero_based=False)
    found, y = read_svmlight(tmp_path / "a.svm", num_features=6)
    theirs, labels = datasets.load_svmlight_file(str(tmp_path / "a.svm"), n_features=6, zero_based=False)
    assert np.allclose(found, theirs.toarray())
    assert np.array_equal(y, labels)
