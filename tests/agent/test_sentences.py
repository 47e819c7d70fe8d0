"""Sentences are ordinary strings that know how they were made, at home and after a way over the wire."""

from __future__ import annotations

import copy
import json

import pytest

from oelm_jobs import language
from oelm_jobs.agent import __main__, registry
from oelm_jobs.agent.sentences import Sentence, _, decoded, encoded, joined
from oelm_jobs.connections.answers import believed


def test_a_sentence_is_its_english() -> None:
    sentence = _("{path}: no such file, {names}", path="/x", names=["a", "b"])
    assert sentence == "/x: no such file, a, b" and json.dumps(sentence) == '"/x: no such file, a, b"'
    assert str(sentence) is sentence and str(ValueError(sentence)) is sentence
    assert copy.deepcopy(sentence).values == sentence.values


def test_values_go_into_a_template_in_the_order_of_its_names() -> None:
    sentence = _("{a} and {b!r}, {a} of {c:.1f}", 1, "x", 2)
    assert sentence == "1 and 'x', 1 of 2.0" == _("{a} and {b!r}, {a} of {c:.1f}", a=1, b="x", c=2)
    assert sentence.values == {"a": 1, "b": "x", "c": 2}
    with pytest.raises(KeyError):
        _("{a} and {b}", 1)


def test_parts_that_are_not_empty_are_joined() -> None:
    assert joined(["a", "", "b", "c"]) == "a; b; c"
    assert joined([]) == "" and joined(["", "a"]) == "a"


def test_a_sentence_comes_back_from_json_with_the_sentences_in_it() -> None:
    whole = _("{name}: {why}", name="a", why=_("{count} of {files} are gone", count=2, files=["x", "y"]))
    sent = json.loads(json.dumps(dict(encoded(whole), text=whole)))
    back = decoded(sent["text"], sent["code"], sent["values"], {})
    assert isinstance(back, Sentence) and back == whole and back.template == "{name}: {why}"
    assert isinstance(back.values["why"], Sentence) and back.values["why"].values["files"] == ["x", "y"]
    assert encoded("plain") == {} and type(decoded("plain", None, None, {})) is str


def test_a_named_sentence_has_the_template_of_its_name() -> None:
    back = decoded("gone since 3", "gone", {"since": 3}, {"gone": "gone since {since}"})
    assert isinstance(back, Sentence) and back.template == "gone since {since}" and back.code == "gone"


def test_an_answer_names_the_texts_in_it_that_are_sentences() -> None:
    request = {"folder": "/dev/null/x", "name": "oelm-5", "link": False}
    assert "values" not in __main__.answer("expect", dict(request)), "the system's own words"
    data = {"root": "/nowhere", "files": ["/none.bin"], "whole": True}
    answer = json.loads(json.dumps(__main__.answer("data", dict(data))))
    assert answer["values"] == [[["files", "/none.bin", "error"], "no such file", {}]]
    error = believed("t", registry.DATA, data, answer)["files"]["/none.bin"]["error"]
    assert isinstance(error, Sentence) and error == "no such file"


@pytest.mark.parametrize(
    "values",
    [
        3, [["x"]], [[[], "x", {}]], [[["none", "x"], "x", {}]], [[["files"], "x", {}]],
        [[["files", "/x", 3], "x", {}]],
        [[["files", "/x", "error", 0], "x", {}]], [[["files", "/x", "manifest"], "x", {}]], [[["files"] * 30, "x", {}]],
        [[["files", "/x", "error"], "x", {"x": "y" * 5000}]], [[["files", "/x", "error"], "x", [1]]],
    ],
)  # fmt: skip
def test_sentences_that_do_not_fit_an_answer_leave_it_as_it_is(values: object) -> None:
    row = {"manifest": None, "manifest_error": "", "error": "no such file"}
    answer = {"files": {"/x": dict(row)}, "values": values}
    found = believed("t", registry.DATA, {"root": "/", "files": ["/x"]}, answer)
    assert found == {"files": {"/x": row}} and type(found["files"]["/x"]["error"]) is str


@pytest.mark.parametrize(
    "values", [{"first": "x"}, {"first": {"text": 3}, "rest": None}, {"first": [[{"code": "{a.b}"}]], "rest": {}}]
)
def test_what_a_target_makes_up_is_shown_as_it_came(values: dict[str, object]) -> None:
    assert "made up" in language.translated(decoded("made up", "{first.__class__} {rest:999999999}", values, {}), "zh")
    other = decoded("made up", "{first}; {rest}", values, {})
    language.translated(other, "zh")
    assert encoded(copy.deepcopy(other)) == encoded(other)


def test_many_parts_do_not_lie_deep_within_each_other() -> None:
    whole = joined(_("part {number}", number) for number in range(2000))
    assert str(whole) == "; ".join(f"part {number}" for number in range(2000))
    sent = json.loads(json.dumps(encoded(whole)))
    assert decoded(whole, sent["code"], sent["values"], {}) == whole


def test_what_is_encoded_is_plain_text() -> None:
    assert type(encoded(_("{a}", _("b")))["values"]["a"]["text"]) is str


def test_a_translation_that_would_grow_without_end_stays_english() -> None:
    template, nested = "move it away first: mv '{path}' '{path}-old'", "x"
    for _number in range(60):  # a value named twice, as deep as a target likes
        nested = Sentence.made("in English", template, {"path": nested})
    assert language.translated(Sentence.made("in English", template, {"path": "x"}), "zh") != "in English"
    assert len(language.translated(nested, "zh")) < 30_000
