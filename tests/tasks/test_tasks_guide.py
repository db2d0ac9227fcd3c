"""The examples in the guide run, and print what the guide says they print."""

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "tasks.md"


def test_examples_of_the_guide(capsys):
    text = GUIDE.read_text(encoding="utf-8")
    names = {"__name__": "guide"}
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 8
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith("1058 label 3 is outside the range 0 to 2 of the 3 classes of the model")
    assert "(3 of 6 labels are outside)" in printed
    assert set(names["run"].params.arrays()) == {"centre"}


def test_parameter_counts_of_the_guide():
    from hanse.data.schema import DataSchema
    from hanse.tasks import Classification, LeNet, Linear, McMahanCNN, ResNet, TwoNN

    text = GUIDE.read_text(encoding="utf-8")
    digits = tuple("0123456789")
    mnist = DataSchema(input_shape=(28, 28), target="classes", classes=digits)
    cifar = DataSchema(input_shape=(3, 32, 32), target="classes", classes=digits)
    for model, schema in (
        (Linear(), mnist),
        (TwoNN(), mnist),
        (McMahanCNN(), mnist),
        (LeNet(), mnist),
        (ResNet(), cifar),
    ):
        assert f"{Classification(model=model).bind(schema).spec.num_trainable:,}" in text
