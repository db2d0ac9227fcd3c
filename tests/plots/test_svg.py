from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from hanse.plots import Holdings, draw_partition, draw_phases, to_svg


def parsed(name: str = "a", **settings: float) -> ET.Element:
    return ET.fromstring(to_svg(draw_phases({"train $x$ <b>": 1.25}), name, label="it's <1>", **settings))


def test_it_is_deterministic() -> None:
    first, second = (to_svg(draw_phases({"train": 1.0}), "a", label="x") for _ in range(2))
    assert first == second


def test_text_stays_text_and_markup_in_it_does_not_count() -> None:
    root = parsed()
    texts = ["".join(element.itertext()) for element in root.iter("text")]
    assert "train $x$ <b>" in texts
    assert root.get("aria-label") == "it's <1>"


def test_ids_carry_the_name_and_references_follow() -> None:
    root = parsed("first")
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    assert ids
    assert all(str(name).startswith("first-") for name in ids)
    used = {value[1:] for e in root.iter() for key, value in e.attrib.items() if key == "href"}
    used |= {value[5:-1] for e in root.iter() for value in e.attrib.values() if value.startswith("url(#")}
    assert used
    assert used <= ids


def test_nothing_points_outside_and_no_rule_reaches_the_page() -> None:
    counts = np.ones((60, 3), dtype=int)
    figure = draw_partition(Holdings(clients=[str(i) for i in range(60)], counts=counts, classes=("a", "b", "c")))
    text = to_svg(figure, "map", label="x")
    assert "http" not in text
    assert "<style" not in text
    assert "data:image/png;base64" in text


def test_colours_can_be_restyled() -> None:
    assert "var(--plot-blue, #0072b2)" in to_svg(draw_phases({"train": 1.0}), "a", label="x")


def test_the_top_can_be_cut_off() -> None:
    whole, cut = (parsed(cut=value).get("viewBox", "").split() for value in (0.0, 20.0))
    assert float(cut[1]) == float(whole[1]) + 20
    assert float(cut[3]) == float(whole[3]) - 20
