"""Patterns of the lines in which programs tell their metrics."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oelm_jobs.agent.run.line_patterns import BadPattern, clean, compile_line

NANOGPT = "step {step}: train loss {train_loss}, val loss {val_loss}"


@pytest.mark.parametrize(
    ("pattern", "line", "values"),
    [
        (NANOGPT, "step 250: train loss 1.9600, val loss 2.0700", {"step": 250, "train_loss": 1.96, "val_loss": 2.07}),
        (NANOGPT, "[rank0] 12:01 step   250 : train loss  1.96, val loss 2.07 (best)",
         {"step": 250, "train_loss": 1.96, "val_loss": 2.07}),
        ("iter {step}: loss {loss}", "iter 10: loss 1e-4, time 12.5ms, mfu 3%", {"step": 10, "loss": 1e-4}),
        ("loss={loss}", "loss=-inf", {"loss": -math.inf}),
        ("{step},{loss}", "100,3.25", {"step": 100, "loss": 3.25}),
        ("{step},{loss}", "100,200", {"step": 100, "loss": 200}),
        ("loss={loss}", "loss=1.5.", {"loss": 1.5}),
        ("{tokens} tok/s", "41,000 tok/s", {"tokens": 41000}),
        ("{n} params", "1_234_567 params", {"n": 1234567}),
        ("{n} params", "1,234.5 params", {"n": 1234.5}),
        ("{step}/{max_steps} [", " 10%|#         | 10/100 [00:01<00:09]", {"step": 10, "max_steps": 100}),
        ("{{'loss': {loss}, 'eval/acc': {eval/acc}}}", "{'loss': 3.5, 'eval/acc': 0.25}",
         {"loss": 3.5, "eval/acc": 0.25}),
        (r"Epoch (?P<epoch>\d+) .*acc=(?P<acc>\S+)", "Epoch 3 of 5: acc=0.5,", {"epoch": 3, "acc": 0.5}),
        (r"(?P<loss>\S+) (?:at (?P<step>\d+))?", "3.5 ", {"loss": 3.5}),
    ],
)  # fmt: skip
def test_a_line_that_fits_gives_its_numbers(pattern: str, line: str, values: dict[str, float]) -> None:
    assert compile_line(pattern).read(line) == values


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ("loss {loss}", "val_loss 3.5"),
        ("loss {loss}", "loss 3,72"),
        ("loss {loss}", "loss 1234,567"),
        ("loss {loss}", "loss 1.2k"),
        ("loss {loss}", "loss 1.2.3"),
        ("loss {loss}", "loss none"),
        ("loss {loss}", "loss nano"),
        ("loss {loss}", "xloss 3"),
        ("{step} steps", "a7 steps"),
        ("{step} steps", "3.7,7 steps"),
        (NANOGPT, "step 250: train loss 1.96, val lo"),
    ],
)
def test_a_number_is_never_cut_and_a_word_never_begins_in_another(pattern: str, line: str) -> None:
    assert compile_line(pattern).read(line) is None


def test_nan_is_a_number_as_programs_print_it() -> None:
    for word in ("nan", "NaN", "-nan", "NAN"):
        assert math.isnan((compile_line("loss {loss}").read(f"loss {word}, next") or {})["loss"])
    assert compile_line(r"loss (?P<loss>\S+)").read("loss 3,72") == {}


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("loss", "names no number"),
        ("", "names no number"),
        ("loss {}", "can't be a metric's name"),
        ("{loss} {loss}", "names loss twice"),
        ("{a}{b}", "side by side"),
        ("loss {loss", "written twice"),
        ("(?P<loss>", "is no regular expression"),
    ],
)
def test_what_can_t_be_meant_is_refused_with_its_reason(pattern: str, said: str) -> None:
    with pytest.raises(BadPattern, match=said):
        compile_line(pattern)


def test_colours_are_passed_over_and_a_carriage_return_ends_a_line() -> None:
    text = clean(b"\x1b[32mstep\x1b[0m 1\r\x1b]0;title\x07step \x1b[1m2\x1b[0m\r\n")
    assert text.split(b"\n") == [b"step 1", b"step 2", b"", b""]


NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9_/.-]{0,8}", fullmatch=True), min_size=1, max_size=4, unique=True)
WORDS = st.text(st.sampled_from("abcXYZ:=|()[]*+?.^$\\ äß"), min_size=1, max_size=6).filter(
    lambda text: text.strip() and text.strip()[-1] not in ".+" and text.strip()[0] not in "."
)
FORMS = st.sampled_from([str, "{:.4f}".format, "{:e}".format, "{:12.3f}".format, "{:<10.2f}".format, "{:,.2f}".format])


@pytest.mark.slow
@settings(deadline=None)
@given(st.data(), NAMES)
def test_what_is_printed_by_a_pattern_is_read_by_it(data: st.DataObject, names: list[str]) -> None:
    pattern = line = ""
    values = {}
    texts = [data.draw(WORDS) for _ in names]
    for name, text in zip(names, texts, strict=True):
        value = data.draw(st.floats(-1e12, 1e12))
        shown = data.draw(FORMS)(value)
        pattern += text + "{" + name + "}"
        line += text + shown
        values[name] = float(shown.replace(",", ""))
    before, after = (
        data.draw(st.sampled_from(["", "12 > ", "INFO> "])),
        data.draw(st.sampled_from(["", " ok"])),
    )
    assume(not set(texts[0].strip()) & set(before))  # else the pattern fits what stands before, too
    assert compile_line(pattern).read(before + line + after) == values
