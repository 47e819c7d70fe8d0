"""Figures: drawn for every state of a study, readable (no text on other text), the same bytes for the same content."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from oelm_jobs.analysis import figures
from oelm_jobs.analysis.figures import drawing
from oelm_jobs.analysis.printed import say
from oelm_jobs.analysis.reading.loaded_run import LoadedRun, Series
from oelm_jobs.analysis.report import Report, build

from oelm_jobs.errors import UsageError

from .. import synthetic
from ..synthetic import load, make_arms, make_run

pytestmark = pytest.mark.slow

LOSSES = {"gpt_base": [3.88, 3.9], "oelm_no_freeze": [3.85, 3.86], "oelm_freeze": [3.95, 3.97]}


def ordinary(tmp_path: Path) -> Report:
    return build(synthetic.study(seeds=(42, 43)), make_arms(tmp_path, LOSSES))


def one_seed(tmp_path: Path) -> Report:
    return build(synthetic.study(), make_arms(tmp_path, {"gpt_base": [3.8], "oelm_freeze": [3.8001]}))


def nothing(tmp_path: Path) -> Report:
    return build(synthetic.study(), [])


def diverged(tmp_path: Path) -> Report:
    runs = [
        load(make_run(tmp_path, "gpt_base")),
        load(make_run(tmp_path, "oelm_freeze", status="FAILED", reason="diverged")),
    ]
    return build(synthetic.study(), runs)


def many(tmp_path: Path) -> Report:
    """Nine groups with long names, all close together."""
    groups = {f"a_group_with_quite_a_long_name_number_{i}": {"model_type": "gpt"} for i in range(9)}
    runs = [load(make_run(tmp_path, name, final_loss=3.8 + i / 2000)) for i, name in enumerate(groups)]
    return build(synthetic.study(groups=groups, hypotheses=()), runs)


def unequal_ends(tmp_path: Path) -> Report:
    runs = [
        load(make_run(tmp_path, "gpt_base")),
        load(make_run(tmp_path, "oelm_freeze", stop=100)),
        load(make_run(tmp_path, "oelm_no_freeze", steps=800)),
    ]
    return build(synthetic.study(), runs)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path, list[tuple[Path, bytes]]]:
    """An ordinary report, its run directories, and its figures, drawn once."""
    runs = tmp_path_factory.mktemp("runs")
    report = ordinary(runs)
    return report, runs, figures.draw(report, "en", Path("x"))[0]


STATES = [ordinary, one_seed, nothing, diverged, many, unequal_ends]


def drawn(report: Report, name: str, language: str = "en") -> Figure:
    with drawing.style(None):
        arms = drawing.arms(report.groups, report.labels)
        return (figures.FIGURES | figures.OF_SCRIPTS)[name](report, arms, lambda text: say(text, language))


@pytest.mark.parametrize("name", figures.FIGURES)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_no_text_lies_on_other_text(tmp_path: Path, state: object, name: str) -> None:
    figure = drawn(state(tmp_path), name)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = []
    for axes in figure.axes:
        texts = [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        texts += axes.get_xticklabels() + axes.get_yticklabels() if axes.axison else []
        legend = axes.get_legend()
        texts += legend.get_texts() if legend is not None else []
        for one in texts:
            if one.get_visible() and one.get_text():
                box = Text.get_window_extent(one, renderer)  # without the arrow of an annotation
                if np.isfinite(box.extents).all() and _is_in_sight(one, axes):
                    boxes.append((one.get_text(), box))
    for one in figure.texts:
        boxes.append((one.get_text(), one.get_window_extent(renderer)))
    assert boxes
    for i, (a, box) in enumerate(boxes):
        for b, other in boxes[i + 1 :]:
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert width < 1 or height < 1, f"{a!r} lies on {b!r}"


def words_of(figure: Figure) -> list[str]:
    return [one.get_text() for one in [*figure.texts, *(one for axes in figure.axes for one in axes.texts)]]


def test_labels_tell_arms_apart_that_differ_in_the_fourth_digit(tmp_path: Path) -> None:
    report = build(synthetic.study(), make_arms(tmp_path, {"gpt_base": [5.1721], "oelm_freeze": [5.1727]}))
    values = [label.split()[-1] for label in words_of(drawn(report, "val_ppl_comparison")) if "Group" in label]
    assert values == ["176.28", "176.39"]


def test_a_validation_on_the_whole_file_is_a_marker_and_no_step_of_the_curve(tmp_path: Path) -> None:
    figure = drawn(ordinary(tmp_path), "val_ppl_comparison")
    assert any("markers: the final one on the whole file" in label for label in words_of(figure))
    lines, markers = lines_and_markers(figure.axes[0])
    assert len(lines) == 3 and all(max(line.get_xdata()) == 300 for line in lines)
    assert len(markers) == 6 and all(list(line.get_xdata()) == [400] for line in markers)


def test_a_last_step_that_is_told_on_the_usual_part_as_well_ends_the_curve_there(tmp_path: Path) -> None:
    runs = make_arms(tmp_path, LOSSES)
    for run in runs:
        *before, last = (run.path / "metrics.jsonl").read_text().splitlines()
        ended = json.dumps(json.loads(last) | {"val_loss_sampled": 3.5})
        (run.path / "metrics.jsonl").write_text("\n".join([*before, ended, ""]))
    figure = drawn(build(synthetic.study(seeds=(42, 43)), [load(run.path) for run in runs]), "val_ppl_comparison")
    lines, markers = lines_and_markers(figure.axes[0])
    assert [(line.get_xdata()[-1], line.get_ydata()[-1]) for line in lines] == [(400, pytest.approx(math.exp(3.5)))] * 3
    assert sorted(float(line.get_ydata()[0]) for line in markers) == pytest.approx(
        sorted(math.exp(loss) for losses in LOSSES.values() for loss in losses)
    )


def lines_and_markers(axes: Axes) -> tuple[list[Line2D], list[Line2D]]:
    lines = [line for line in axes.lines if line.get_linestyle() != "None"]
    return lines, [line for line in axes.lines if line not in lines]


def test_tokens_have_a_panel_of_their_own_only_where_steps_are_not_the_same_number_of_tokens(tmp_path: Path) -> None:
    equal = drawn(ordinary(tmp_path / "equal"), "val_ppl_comparison")
    assert [axes.get_xlabel() for axes in equal.axes] == ["Step (of 1,024 tokens)"]
    runs = [load(make_run(tmp_path, "gpt_base")), load(make_run(tmp_path, "oelm_freeze", global_batch=32))]
    unequal = drawn(build(synthetic.study(), runs), "val_ppl_comparison")
    assert [axes.get_xlabel() for axes in unequal.axes] == ["Step", "Tokens"]


@pytest.mark.parametrize("name", ["val_ppl_comparison", "training_loss"])
def test_a_start_that_is_cut_off_is_told(tmp_path: Path, name: str) -> None:
    figure = drawn(build(synthetic.study(), [load(make_run(tmp_path, "gpt_base", steps=2000))]), name)
    above = [
        x
        for line in figure.axes[0].lines
        for x, y in zip(*line.get_data(), strict=True)
        if y > figure.axes[0].get_ylim()[1]
    ]
    said = [found for words in words_of(figure) if (found := re.search(r"\(up to step (\d+)\) are not shown", words))]
    assert above and [int(found[1]) for found in said] == [max(above)]


def test_a_leader_begins_right_of_every_marker_at_its_place(tmp_path: Path) -> None:
    crossed = {"gpt_base": [3.80, 3.90], "oelm_no_freeze": [3.8502, 3.8501]}  # the mean of one is the other's marker
    figure = drawn(build(synthetic.study(seeds=(42, 43)), make_arms(tmp_path, crossed)), "val_ppl_comparison")
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    _lines, markers = lines_and_markers(axes)
    right = max(
        axes.transData.transform((marker.get_xdata()[0], marker.get_ydata()[0]))[0]
        + marker.get_markersize() / 2 * figure.dpi / 72
        for marker in markers
    )
    leaders = [one for one in axes.texts if isinstance(one, Annotation)]
    assert len(leaders) == 2
    for one in leaders:
        begun = one._get_xy(figure.canvas.get_renderer(), one.xy, one.xycoords)
        assert begun[0] >= right


def test_runs_without_gpus_are_not_told_in_gpus(tmp_path: Path) -> None:
    runs = [load(make_run(tmp_path / device, "gpt_base", hardware={"device": device})) for device in ("cpu", "cuda")]
    for run, words in zip(runs, ("Tokens per second", "Tokens per second and GPU"), strict=True):
        report = build(synthetic.study(), [run])
        assert drawn(report, "speed").axes[0].get_xlabel() == words
        headings = {each.header for table in report.tables for each in table.columns}
        assert any("GPU" in str(one) for one in headings - {"Peak memory (GB)"}) is ("GPU" in words), headings


@pytest.mark.parametrize("loss", ['"inf"', '"-inf"', "800.0"])
def test_a_validation_whose_perplexity_no_axis_can_hold_leaves_the_figures_as_they_are(
    tmp_path: Path, loss: str
) -> None:
    runs = make_arms(tmp_path, LOSSES)
    whole = drawn(build(synthetic.study(seeds=(42, 43)), runs), "val_ppl_comparison").axes[0].get_ylim()
    with (runs[-1].path / "metrics.jsonl").open("a") as out:
        out.write(f'{{"step": 420, "loss": {loss}, "val_loss": {loss}}}\n')
    report = build(synthetic.study(seeds=(42, 43)), [*runs[:-1], load(runs[-1].path)])
    assert drawn(report, "val_ppl_comparison").axes[0].get_ylim() == pytest.approx(whole, rel=0.01)
    assert figures.draw(report, "en", tmp_path, None)[0]


def test_a_diverged_seed_is_named_in_the_figures_that_can_not_show_it(tmp_path: Path) -> None:
    runs = make_arms(tmp_path, {"gpt_base": [3.88, 3.9], "oelm_freeze": [3.95]})
    runs.append(load(make_run(tmp_path, "oelm_freeze", 43, status="FAILED", reason="diverged")))
    report = build(synthetic.study(seeds=(42, 43)), runs)
    assert "Group C: OELM-Freeze  1 of 2 diverged" in words_of(drawn(report, "val_ppl_comparison"))
    assert "diverged and not shown: runs of Group C: OELM-Freeze" in words_of(drawn(report, "loss_vs_parameters"))


def test_points_of_loss_and_parameters_have_their_labels_beside_them(tmp_path: Path) -> None:
    (axes,) = drawn(ordinary(tmp_path), "loss_vs_parameters").axes
    assert [one.xyann[0] < 1 for one in axes.texts] == [False, False, True]


def _is_in_sight(one: object, axes: object) -> bool:
    """Tick labels outside of the axes' limits exist, but aren't drawn."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if one in (tick.label1, tick.label2):
                return bool(low <= tick.get_loc() <= high)
    return True


def told_by_scripts(**values: tuple[Sequence[int], Sequence[Sequence[float]]]) -> Report:
    """Return a report of two arms of scripts: of each metric the steps, and each arm's values."""
    runs = [
        LoadedRun(
            name=group, group=group, label="", seed=1, path=Path(group), source="files", is_script=True, status="DONE",
            series={
                name: Series(step=np.array(steps), value=np.array(arms[arm], dtype=float))
                for name, (steps, arms) in values.items()
            },
        )
        for arm, group in enumerate(("low", "high"))
    ]  # fmt: skip
    return build(synthetic.script_study(seeds=(1,)), runs)


@pytest.mark.parametrize("first", [4.2, 1.0])
def test_a_start_that_leaves_room_for_the_rest_of_a_metric_is_shown_whole(first: float) -> None:
    steps = range(0, 350, 50)
    told = [[first, 3.4, 3.16, 3.0, 2.9, 2.88, 2.84], [first, 2.95, 2.71, 2.6, 2.55, 2.5, 2.51]]
    (axes,) = drawn(told_by_scripts(val_loss=(steps, told)), "metrics").axes
    low, high = axes.get_ylim()
    assert low < min(map(min, told)) and high > max(map(max, told))


def test_a_steep_start_of_a_metric_is_cut_off_as_it_would_squeeze_what_is_compared() -> None:
    told = [[300.0, 3.3, 3.2, 3.1, 3.0, 2.9], [300.0, 3.0, 2.9, 2.8, 2.7, 2.6]]
    (axes,) = drawn(told_by_scripts(val_loss=([0, 100, 200, 300, 400, 500], told)), "metrics").axes
    low, high = axes.get_ylim()
    assert low < 2.6 and 3.2 < high < 4


def test_a_smoothed_metric_has_the_limits_of_what_is_drawn() -> None:
    noise = np.resize([1.0, -1.0], 500)
    (axes,) = drawn(told_by_scripts(loss=(range(500), [2 + noise, 1 + noise])), "metrics").axes
    smoothed = [line.get_ydata() for line in axes.lines if line.get_linestyle() != "None"]
    inner = np.concatenate([values[20:-20] for values in smoothed])
    assert np.ptp(inner) < 1.5 and axes.get_ylim()[1] <= 3.3 and len(smoothed) == 2


def test_a_metric_is_drawn_whose_runs_share_no_step_and_one_that_is_equal_everywhere_is_not() -> None:
    report = told_by_scripts(epoch=([1, 2], [[1, 2], [1, 2]]), loss=([1, 2], [[3, 2], [2, 1]]))
    high = report.runs[1]
    high = replace(high, series={**high.series, "test": Series(step=np.array([200]), value=np.array([0.4]))})
    low = report.runs[0]
    low = replace(low, series={**low.series, "test": Series(step=np.array([100]), value=np.array([0.5]))})
    figure = drawn(build(synthetic.script_study(seeds=(1,)), [low, high]), "metrics")
    assert [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes] == ["loss", "test"]


@pytest.mark.parametrize("state", [nothing, diverged], ids=lambda state: state.__name__)
def test_every_state_of_a_study_has_all_figures_as_png_and_svg(tmp_path: Path, state: object) -> None:
    files, remarks = figures.draw(state(tmp_path / "runs"), "en", tmp_path)
    assert [path.name for path, _ in files] == [
        f"{name}.{suffix}" for name in figures.FIGURES for suffix in ("png", "svg")
    ]
    assert {"val_ppl_comparison.png", "parameter_distribution.png"} <= {path.name for path, _ in files}
    assert remarks == []
    for path, content in files:
        assert content.startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml")


def test_files_tell_nothing_of_date_version_or_machine(usual: tuple[Report, Path, list[tuple[Path, bytes]]]) -> None:
    for path, content in usual[2]:
        if path.suffix == ".png":
            assert b"Software" not in content and b"tEXt" not in content
        else:
            assert (
                b"<dc:date>" not in content and b"Matplotlib v" not in content and str(usual[1]).encode() not in content
            )


def test_another_process_draws_the_same_bytes(usual: tuple[Report, Path, list[tuple[Path, bytes]]]) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.analysis import synthetic\n"
        "from oelm_jobs.analysis import figures; from oelm_jobs.analysis.report import build\n"
        "from oelm_jobs.analysis.reading import loading\n"
        "study = synthetic.study(seeds=(42, 43))\n"
        "runs, _ = loading.study_runs(study, Path(sys.argv[1]), at=synthetic.START)\n"
        "[sys.stdout.buffer.write(content) for _, content in figures.draw(build(study, runs), 'en', Path('x'))[0]]"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(usual[1])], capture_output=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout == b"".join(content for _, content in usual[2])


def test_a_style_file_of_the_user_replaces_ours(
    tmp_path: Path, usual: tuple[Report, Path, list[tuple[Path, bytes]]]
) -> None:
    style = tmp_path / "mine.mplstyle"
    style.write_text("axes.facecolor: ff00ff\n")
    mine = figures.draw(usual[0], "en", tmp_path, style)[0]
    assert b"ff00ff" in mine[1][1] and b"ff00ff" not in usual[2][1][1]


def test_a_style_file_may_give_colours_by_name(tmp_path: Path) -> None:
    style = tmp_path / "mine.mplstyle"
    style.write_text('axes.prop_cycle: cycler("color", ["red", "0072B2"])\n')
    with drawing.style(style):
        assert [drawing.colour(i) for i in range(3)] == ["red", "#0072B2", "red"]


def test_a_style_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    style = tmp_path / "mine.mplstyle"
    style.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="style"):
        figures.draw(nothing(tmp_path), "en", tmp_path, style)


def test_colours_can_be_told_apart_by_the_colour_blind() -> None:
    """Simulated as dichromats see them (Viénot, Brettel and Mollon 1999), neighbours differ in lightness or hue by a
    clear step.
    """
    with drawing.style(None):
        colours = [drawing.colour(i) for i in range(6)]
    linear = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours]) ** 2.2
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    for blind in ([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]):
        seen = np.clip(linear @ to_lms.T @ np.array(blind).T @ np.linalg.inv(to_lms).T, 0, 1) ** (1 / 2.2)
        for i in range(len(seen)):
            for j in range(i):
                assert np.linalg.norm(seen[i] - seen[j]) > 0.1, (colours[i], colours[j])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.2))
def test_labels_are_moved_apart_in_order_and_no_further_than_needed(places: list[float], spacing: float) -> None:
    places = sorted(places)
    found = drawing.spread(places, spacing)
    assert all(b - a >= spacing - 1e-9 for a, b in pairwise(found))
    if all(b - a >= spacing for a, b in pairwise(places)):
        assert found == pytest.approx(places)
    assert sum(found) == pytest.approx(sum(places), abs=1e-6)


def test_thinning_keeps_means_and_smoothing_keeps_lines() -> None:
    x, y = np.arange(100_000), np.arange(100_000) * 2.0
    thin_x, thin_y = drawing.thin(x, y)
    assert len(thin_x) <= drawing.POINTS and np.allclose(thin_y, 2 * thin_x)
    assert np.allclose(drawing.smooth(y[:1000]), y[:1000])
    assert len(drawing.thin(np.arange(3), np.array([1.0, math.nan, 3.0]))[0]) == 2


def test_without_a_font_that_has_the_characters_chinese_figures_are_in_english_and_say_so(
    usual: tuple[Report, Path, list[tuple[Path, bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "cjk_font", lambda: None)
    files, remarks = figures.draw(usual[0], "zh", Path("x"))
    said = [str(remark) for remark in remarks]
    assert said == ["no font with Chinese characters is installed: the figures are in English"]
    assert files == usual[2]


def test_labels_in_chinese_are_drawn_in_english_figures_too(
    usual: tuple[Report, Path, list[tuple[Path, bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {name: f"{name} 冻结" for name in usual[0].labels}
    report = replace(usual[0], labels=labels)
    monkeypatch.setattr(figures, "FIGURES", {"speed": figures.FIGURES["speed"]})
    if drawing.cjk_font():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            figures.draw(report, "en", Path("x"))
        assert not [each for each in said if "missing from font" in str(each.message)]
    monkeypatch.setattr(drawing, "cjk_font", lambda: None)
    named = replace(report, labels={name: name for name in labels})
    assert figures.draw(report, "en", Path("x")) == figures.draw(named, "en", Path("x"))
