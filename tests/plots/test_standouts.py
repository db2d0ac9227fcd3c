"""Flags by round, mean scores, and how often a trigger works."""

from __future__ import annotations

import math

import numpy as np

from hanse.core.judged_round import Verdict
from hanse.plots.attack import draw_attack
from hanse.plots.standouts import MOST_CLIENTS, draw_scores, draw_standouts
from hanse.plots.style import GREY, VERMILLION
from hanse.plots.svg import to_svg
from hanse.rounds.history import History, RoundRecord
from hanse.rounds.standouts import Standing, judged


def verdict(client: str, norm: float, direction: float, reason: str = "", *, out: bool = False) -> Verdict:
    return Verdict(client=client, scores={"norm": norm, "direction": direction}, reason=reason, quarantined=out)


def history(rounds: int = 6) -> History:
    """`b` stands out in rounds 2 and 3, and is not asked from 4 on."""
    records = [RoundRecord(round=0)]
    for number in range(1, rounds + 1):
        found = [verdict("a", 1.0, 0.5)]
        found += [verdict("b", 9.0, -0.5, "is long" if number > 1 else "", out=number == 3)] if number < 4 else []
        records.append(
            RoundRecord(
                round=number, cohort=tuple(one.client for one in found), verdicts=tuple(found), num_updates=len(found)
            )
        )
    return History(rounds=tuple(records))


def spans(history: History) -> list[tuple[str, int, float, float]]:
    """Colour, row, start and end of each block."""
    from matplotlib.colors import to_hex

    found = []
    for blocks in draw_standouts(history).axes[0].collections:
        color = to_hex(blocks.get_facecolor()[0])  # type: ignore[index]
        for path in blocks.get_paths():
            box = path.get_extents()
            found.append((color, round((box.y0 + box.y1) / 2), float(box.x0), float(box.x1)))
    return found


def test_a_row_says_when_a_client_took_part_stood_out_and_was_left_out() -> None:
    assert sorted(spans(history())) == sorted([(GREY, 1, 0.5, 3.5), (VERMILLION, 1, 1.5, 3.5), (GREY, 0, 0.5, 6.5)])
    axes = draw_standouts(history(), hostile={"b"}).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b (hostile)"]
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xydata(), [(3.5, 1), (6.5, 1)])
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["stood out", "took part", "not asked any more"]
    assert not draw_standouts(History()).axes[0].axison


def test_a_flag_shows_among_very_many_rounds() -> None:
    (flag,) = [(start, end) for color, _, start, end in spans(history(1500)) if color == VERMILLION]
    assert flag == (0.5, 10.5)


def test_of_many_clients_the_most_conspicuous_have_a_row() -> None:
    found = tuple(verdict(f"c{i:03}", 1.0, 0.5, "is long" if i == 99 else "") for i in range(100))
    many = History(rounds=(RoundRecord(round=1, cohort=tuple(one.client for one in found), verdicts=found),))
    figure = draw_standouts(many)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(names) == MOST_CLIENTS
    assert names[-1] == "c099"
    assert "60 clients shown" in figure.texts[1].get_text()


def test_points_are_told_apart_by_shape_and_name() -> None:
    axes = draw_scores(judged(history())).axes[0]
    points = {line.get_marker(): line.get_xydata().tolist() for line in axes.lines if line.get_marker() in ("o", "D")}  # type: ignore[union-attr]
    assert points == {"o": [[0.5, 1.0]], "D": [[-0.5, 9.0]]}
    assert axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.texts] == ["b"]


def test_points_on_each_other_share_a_name_and_what_has_no_place_is_left_out() -> None:
    def standing(client: str, norm: float) -> Standing:
        return Standing(client=client, judged=1, flagged=(1,), means={"norm": norm, "direction": 0.0})

    figure = draw_scores([*(standing(client, 0.0) for client in "abcde"), standing("x", math.nan)])
    assert [text.get_text() for text in figure.axes[0].texts] == ["a, b, c, 2 others"]
    assert "var(--plot-vermillion" in to_svg(figure, "x", label="x")
    assert not draw_scores([Standing(client="a", judged=1)]).axes[0].axison


def test_a_trigger_beside_accuracy() -> None:
    rounds = tuple(
        RoundRecord(round=i, central={"accuracy": 0.2 * i}, attack={"success": success})
        for i, success in enumerate((0.0, 0.75, math.nan, 0.5))
    )
    figure = draw_attack(History(rounds=rounds))
    success, accuracy = figure.axes[0].lines
    assert success.get_xydata().tolist() == [[0, 0], [1, 0.75], [3, 0.5]]  # type: ignore[union-attr]
    np.testing.assert_allclose(accuracy.get_ydata(), [0, 0.2, 0.4, 0.6])
    assert "75.0 %" in figure.texts[1].get_text()
    assert not draw_attack(History()).axes[0].axison
