"""The trainer's sentences: English text that keeps what it was made of."""

from __future__ import annotations

import pickle

from oelm_jobs.agent.sentences import decoded
from oelm_jobs.language import translated
from train.errors import DataError
from train.sentences import Sentence, _, encoded


def test_a_sentence_comes_whole_through_an_exception_and_to_another_process() -> None:
    error = DataError(_("{path} is not valid JSON: {error}", "/{x}/a", "line 1"))
    for said in (str(error), str(pickle.loads(pickle.dumps(error)))):
        assert isinstance(said, Sentence) and said == "/{x}/a is not valid JSON: line 1"
        assert encoded(said) == {
            "code": "{path} is not valid JSON: {error}", "values": {"path": "/{x}/a", "error": "line 1"},
        }  # fmt: skip


def test_the_toolkit_reads_what_the_trainer_writes() -> None:
    part = _("{key} = {there} there and {here} here", _("global batch"), "8", "16")
    said = _(
        "{path} belongs to another run: {differences}; use another --out_dir, or start over with --resume none",
        "/x", [part],
    )  # fmt: skip
    read = decoded(said, **encoded(said), templates={})
    assert read == said and "全局批量（检查点中为 8，这里为 16）" in translated(read, "zh")


def test_text_of_others_has_no_template() -> None:
    assert encoded("ValueError: nobody foresaw this") == {}
