"""Lines of a script's log are read many at a time, and say what each says for itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oelm_jobs.analysis.reading import log_metrics

from oelm_jobs.agent.run.line_patterns import LONGEST_LINE, clean, compile_line
from oelm_jobs.agent.run.rows import whole
from oelm_jobs.agent.sentences import Sentence

PATTERNS = (
    ("iter {step}: loss {loss}",),
    ("iter {step}: loss {loss}", "step {step}: val {val}, acc {acc}"),
    ("epoch {step}", "loss={loss}", "loss {loss}"),
    ("{step} {loss}",),
    ("loss {loss}",),
    (r"iter (?P<step>\S+)(?::\s*loss (?P<loss>\S+))?$", "val {val}"),
    ("{step}/{max_steps} [", "epoch {step}"),
)
PIECES = (
    "iter 3: loss 2.5", "iter  4 :  loss 1,234.5", "iter 5: loss nan", "iter 6: loss 1.2", "iter 7.5: loss 3", "iter 8",
    "step 9: val 3, acc 0.5", "epoch 2", "loss=4e-3", "loss 7", "loss none", "2.5 3", "11 12 13 14", "10/20 [", "val 8",
    "Kilo", "k", " ", "\t", "\x0b", "\u2028", "\xa0", ":", "12", ",", ".5", "\n", "\n", "\n", "\r", "\x1b[1m",
    "words ", "é",
)  # fmt: skip


def one_by_one(text: bytes, lines: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """Return what a log says, each line and pattern looked at for itself."""
    found = dict[str, list[tuple[int, float]]]()
    for patterns in log_metrics.apart([compile_line(line) for line in lines]):
        last = -1
        for line in clean(text).decode().split("\n")[:-1]:
            for pattern in patterns:
                said = pattern.read(line) or {}
                step = whole(said.get("step"))
                last = last if step is None else step
                for name in said.keys() - {"step", "max_steps"}:
                    found.setdefault(name, []).append((last, said[name]))
    return found


def read(path: Path, lines: Sequence[str]) -> tuple[dict[str, list[tuple[int, float]]], list[Sentence]]:
    notes: list[Sentence] = []
    found: dict[str, list[tuple[int, float]]] = {}
    for told in log_metrics.columns(path, lines, notes):
        for name, (steps, values) in told.items():
            found.setdefault(name, []).extend(zip(steps.tolist(), values.tolist(), strict=True))
    return found, notes


@pytest.mark.slow
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES), max_size=90), st.sampled_from(PATTERNS), st.sampled_from([1000, 1 << 20]))
def test_what_is_read_in_one_go_is_what_each_line_says(
    tmp_path: Path, pieces: list[str], lines: tuple[str, ...], block: int
) -> None:
    text = ("".join(pieces) + "\n").encode()
    (tmp_path / "log").write_bytes(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_metrics, "BLOCK", block)
        found, _notes = read(tmp_path / "log", lines)
    expected = one_by_one(text, lines)
    assert {name: str(told) for name, told in found.items()} == {name: str(told) for name, told in expected.items()}


def test_of_a_long_line_the_beginning_is_looked_at(tmp_path: Path) -> None:
    blank = "x" * LONGEST_LINE
    (tmp_path / "log").write_text(f"loss 1 {blank}\nloss 2\n{blank} loss 3\n")
    assert read(tmp_path / "log", ["loss {loss}"])[0] == {"loss": [(-1, 1.0), (-1, 2.0)]}


def test_a_log_is_read_once_more_for_all_patterns_that_fit_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").write_text("iter 1: loss 2\n" * 100)
    opened: list[Path] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *words: (opened.append(path), real(path, *words))[1])
    found, notes = read(
        tmp_path / "log", ["iter {step}: loss {loss}", "iter {step}, los {los}", "Iter {step}: acc {acc}"]
    )
    assert len(found["loss"]) == 100 and len(opened) == 2
    assert len(notes) == 2 and all("comes close" in note for note in notes)


@pytest.mark.parametrize(
    ("lines", "groups"),
    [
        (("iter {step}: loss {loss}", "step {step}: val {val}"), 2),
        (("iter {step}: loss {loss}", "step {step}: train {loss}"), 1),
        (("epoch {step}", "loss {loss}"), 1),
    ],
)
def test_patterns_are_read_apart_where_each_tells_the_steps_of_its_own_metrics(
    lines: tuple[str, ...], groups: int
) -> None:
    assert len(log_metrics.apart([compile_line(line) for line in lines])) == groups
