"""Reasons are codes with values: made, written, read back, and asked for their codes by whatever decides."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs import language
from oelm_jobs.agent import __main__ as agent
from oelm_jobs.agent import reasons, registry, rundir, verbs
from oelm_jobs.agent.reasons import BESIDE, because, codes, told
from oelm_jobs.agent.run import failure, waiting
from oelm_jobs.agent.sentences import Sentence
from oelm_jobs.agent.slurm import commands, submit
from oelm_jobs.agent.states import State
from oelm_jobs.connections.answers import believed
from tests.support import REPOSITORY, launch_runs, make_run, read, sleeping, state, wait_for_state, wait_until

PLACEHOLDER = re.compile(r"\{[^}]*\}")


@pytest.mark.parametrize("code", reasons.TEMPLATES)
def test_a_code_makes_its_sentence_and_comes_back_with_it(code: str) -> None:
    names = re.findall(r"\{(\w+)", reasons.TEMPLATES[code])
    values = {name: 7 if name == "seconds" else because("killed", signal="SIGTERM") for name in names}
    made = because(code, **values)
    back = reasons.read(json.loads(json.dumps(told(made))))
    assert isinstance(back, Sentence)
    assert (back, back.code, back.template) == (made, code, reasons.TEMPLATES[code])
    assert codes(back) == {code} | ({"killed"} if set(names) - {"seconds"} else set())


def test_what_was_written_without_a_code_is_shown_word_for_word() -> None:
    record = {"reason": "reboot: submit again to resume", "state": "FAILED"}
    assert type(reasons.read(record)) is str and reasons.read(record) == record["reason"]
    assert told(reasons.read(record)) == {"reason": record["reason"]} and told("") == {"reason": ""}
    assert reasons.read({}) == "" and reasons.read({"reason": None, "code": "reboot", "values": {}}) == ""


@pytest.mark.parametrize(
    ("code", "values"),
    [
        (3, {}), ("x" * 501, {}), ("reboot", "values"), ("reboot", None), ("reboot", {"a": float("nan")}),
        ("reboot", {"a": "x" * 2001}), ("reboot", {"a": ["x"] * 1001}), ("reboot", {"a": "\ud800"}),
        ("reboot", {"a": json.loads('{"values":' * 200 + "{}" + "}" * 200)}),
    ],
)  # fmt: skip
def test_what_cannot_be_a_code_or_its_values_leaves_the_text_as_it_came(code: Any, values: Any) -> None:
    said = reasons.read({"reason": "as it came", "code": code, "values": values})
    assert type(said) is str and said == "as it came"


def test_a_code_of_a_newer_version_is_shown_in_its_english() -> None:
    said = reasons.read({"reason": "rain since noon", "code": "rain", "values": {}})
    assert said == "rain since noon" and language.translated(said, "zh") == said


def test_an_answer_tells_the_beginning_of_a_reason_whose_values_are_too_long() -> None:
    row = {"state": "FAILED", **told(because("details", what=because("reboot"), details="x" * 3000)), "token": "t"}
    answer = verbs.cut_answer("probe", {"host": "h", "time": 1.0, "runs": {"/a": row}})
    kept = answer["runs"]["/a"]
    assert (kept["state"], kept["token"]) == ("FAILED", "t")
    assert kept["reason"].startswith("reboot: xxx") and not kept.keys() & BESIDE.keys()


def test_the_reasons_of_an_earlier_version_have_the_codes_that_decide() -> None:
    assert codes("stopped by SIGTERM, without a checkpoint") == {"stopped"}
    assert codes("not submitted: no room") == {"not_submitted"}
    assert codes(because("details", what=because("oom"), details="stopped by hand")) == {"details", "oom"}


def test_why_a_script_was_refused_is_kept_as_it_was_said(tmp_path: Path) -> None:
    submit.folder(str(tmp_path))
    submit._remember(str(tmp_path), "t", 0, {"refused": str(commands.NotThere("sbatch"))})
    answer = submit.answer_of(str(tmp_path), "t", 0)
    assert answer is not None and answer["refused"].template == "{error}, is it a login node?"
    submit._remember(str(tmp_path), "t", 1, {"unknown": "sbatch: Socket timed out"})
    answer = submit.answer_of(str(tmp_path), "t", 1)
    assert answer is not None and answer.keys() == {"unknown", "time"} and type(answer["unknown"]) is str


def test_the_reason_in_a_piece_of_a_log_keeps_its_code(tmp_path: Path) -> None:
    request = {"run_dir": str(tmp_path / "exp_a"), "name": rundir.LOG, "lines": 1}
    said = json.loads(json.dumps(agent.answer("log", dict(request))))
    answer = believed("here", registry.LOG, request, said)
    assert codes(answer["reason"] or "") == {"no_trace_on_host"}


# Real runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_a_supervisor_waits_for_is_on_record_until_it_is_over(root: Path) -> None:
    first, second = make_run(root, "first"), make_run(root, "second")
    launch_runs(root, [(first, sleeping()), (second, sleeping())], sequential=True)
    record = rundir.control(second.run_dir, rundir.WAITING)
    wait_until(record.exists, "the second to wait")
    row = state(second)
    assert (row["state"], row["reason"]) == ("QUEUED", "waiting for first to end")
    assert (row["code"], row["values"]) == ("waiting_for_run", {"run": "first"})
    assert read(record) == {"version": 1, "token": "t1", "time": read(record)["time"], **told(reasons.read(row))}
    assert rundir.control(second.run_dir, rundir.SUPERVISOR_LOG).read_text().endswith(" waiting for first to end\n")
    wait_for_state(first, "RUNNING")
    os.kill(read(rundir.control(first.run_dir, rundir.CLAIM))["pid"], signal.SIGTERM)
    wait_for_state(second, "RUNNING")
    assert not record.exists()
    os.kill(read(rundir.control(second.run_dir, rundir.CLAIM))["pid"], signal.SIGTERM)
    row = wait_for_state(second, "CANCELLED")
    end = read(rundir.control(second.run_dir, rundir.END))
    assert codes(reasons.read(row)) == codes(reasons.read(end)) == {"without_checkpoint", "stopped"}
    assert codes(reasons.read(end["attempts"][-1])) == {"without_checkpoint", "stopped"}


@pytest.mark.slow
@pytest.mark.usefixtures("other_words")
def test_a_supervisor_that_is_lost_while_it_waits_is_told_apart_in_whatever_words(root: Path) -> None:
    first, second = make_run(root, "first"), make_run(root, "second")
    launch_runs(root, [(first, sleeping()), (second, sleeping())], sequential=True)
    wait_until(rundir.control(second.run_dir, rundir.WAITING).exists, "the second to wait")
    log = rundir.control(second.run_dir, rundir.SUPERVISOR_LOG)
    log.write_text(rundir.log_line("in other words"))
    at = read(rundir.control(second.run_dir, rundir.WAITING))["time"]
    os.utime(log, (at, at))
    holder = read(rundir.control(second.run_dir, rundir.CLAIM))["pid"]
    os.kill(holder, signal.SIGKILL)
    row = wait_for_state(second, "FAILED")
    assert (row["reason"], row["code"]) == ("<LOST_WAITING>", "lost_waiting")
    log.write_text(rundir.log_line("set-up failed: conda: not found"))  # of a script that was started by hand since
    os.utime(log, (at + 5, at + 5))
    assert state(second)["code"] == "details"
    rundir.control(second.run_dir, rundir.WAITING).unlink()  # as a version before left it
    log.write_text(rundir.log_line("waiting for 1 GPU"))
    assert state(second)["code"] == "lost_waiting"
    log.write_text(rundir.log_line("set-up failed: conda: not found"))
    assert state(second)["code"] == "details"
    os.kill(read(rundir.control(first.run_dir, rundir.CLAIM))["pid"], signal.SIGTERM)


def test_a_wait_of_another_submission_is_nobodys_now(tmp_path: Path) -> None:
    rundir.control(tmp_path, "").mkdir()
    waiting.write(tmp_path, "t1", because("waiting_for", what=because("gpus", count=2)))
    assert waiting.read(tmp_path, "t1") == "waiting for 2 GPUs" and not waiting.read(tmp_path, "t2")
    assert not waiting.read(tmp_path, "t1", since=read(rundir.control(tmp_path, rundir.WAITING))["time"] + 1)
    waiting.clear(tmp_path)
    waiting.clear(tmp_path)
    assert not waiting.read(tmp_path, "t1")


# Decisions ------------------------------------------------------------------------------------------------------------

READERS = {"startswith", "endswith", "partition", "rpartition", "removeprefix", "removesuffix", "split", "find",
           "compile", "match", "search", "fullmatch", "findall"}  # fmt: skip
"""Methods and functions that look into a text."""
NO_SENTENCES = {"not available", "not running"}
"""What login shells say, and one of the choices that the verb ``cancel`` answers with."""


def texts_that_are_looked_for(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the texts that code compares something with or looks for, and their lines."""
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in READERS:
            parts = [*node.args]
        for part in parts:
            for inner in ast.walk(part):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    yield inner.value, node.lineno


def marked(tree: ast.AST) -> Iterator[str]:
    """Yield the templates of the sentences in code."""
    for node in ast.walk(tree):
        arguments = node.args if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_" else []
        yield from (str(each.value) for each in arguments[:1] if isinstance(each, ast.Constant))


@pytest.mark.slow
def test_no_code_decides_by_the_text_of_a_sentence() -> None:
    paths = [path for folder in ("oelm_jobs", "analysis") for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    own = {piece for tree in trees.values() for template in marked(tree) for piece in PLACEHOLDER.split(template)}
    assert own.issuperset(piece for template in reasons.TEMPLATES.values() for piece in PLACEHOLDER.split(template))
    found = []
    for path, tree in trees.items():
        for text, line in texts_that_are_looked_for(tree):
            words = text.strip(" :,;()^$\\.*")
            if " " in words and words not in NO_SENTENCES and any(words in piece for piece in own):
                found.append(f"{path.relative_to(REPOSITORY)}:{line}: {text!r}")
    assert not found, "\n".join(found)


@pytest.mark.usefixtures("other_words")
def test_why_a_run_was_stopped_is_kept_apart_from_its_lack_of_a_checkpoint_in_whatever_words() -> None:
    from oelm_jobs.agent.run import place

    verdict = place.stopped(State.CANCELLED, because("stopped", signal="SIGTERM"), {}, cause=place.CANCEL)
    assert verdict.reason == "<WITHOUT_CHECKPOINT> <STOPPED> SIGTERM" and verdict.why == "<STOPPED> SIGTERM"


def test_a_process_that_a_signal_ended_was_killed_by_its_code() -> None:
    assert codes(failure.how_it_ended(-signal.SIGKILL)) == {"killed"}
