"""Blocks that are submitted: the data of each is looked at, sent, and found by its runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from oelm_jobs.analysis.audit import lock, locks

from oelm_jobs.errors import ConfigurationError, PreflightError
from oelm_jobs.project import Project
from tests.support import TINY_STUDY, end_all, write_tokens

TRAINER = (
    TINY_STUDY.replace('data_path = "data/tiny/train.bin"\n', "").split("[hypotheses")[0]
    + """
[blocks.novels]
data_path = "data/novels/train.bin"
max_steps = 6
[blocks.stories]
data_path = "data/stories/train.bin"
"""
)
PROGRAM = """
factors = ["lr"]
[program]
command = "python count.py {settings} {seed}"
[settings]
path = ""
[groups]
low = { lr = 0.5, gpus = 0 }
[blocks.books]
data = ["books.txt"]
path = "books.txt"
[blocks.wiki]
data = ["more/wiki.txt"]
path = "more/wiki.txt"
"""
SCRIPT = (
    "import sys\nprint(sorted(sys.argv[1:]), open(next(w for w in sys.argv if w.startswith('--path'))[7:]).read())\n"
)


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Project]:
    folder, root = tmp_path / "mine", tmp_path / "root"
    for name, text in {
        "books.txt": "Emma",
        "more/wiki.txt": "Bath",
        "count.py": SCRIPT,
        "jobs/two.toml": PROGRAM,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "jobs" / "targets.toml").write_text(
        f'[scratch]\nkind = "local"\nroot = "{root}"\npython = "{sys.executable}"\n'
    )
    yield Project(folder)
    end_all(root)


def test_each_block_of_a_trainer_has_the_hash_of_its_own_data(project: Path) -> None:
    (project / "jobs" / "tiny.toml").write_text(TRAINER)
    for name, tokens in (("novels", 4000), ("stories", 5000)):
        write_tokens(project / "data" / name / "train.bin", tokens, 64)
        write_tokens(project / "data" / name / "val.bin", 800, 64)
    mine = Project(project)
    plan = mine.plan()
    assert [*plan.data_hash] == ["novels", "stories"] and len({run.fingerprint for run in plan.runs}) == len(
        plan.runs
    ) == 6
    only = mine.plan(blocks=["stories"], groups=["gpt_base"])
    assert [(run.name, run.fingerprint) for run in only.runs] == [("gpt_base-stories", plan.runs[3].fingerprint)]
    assert [name for name, _study in mine.token_files(project / "data" / "novels")] == ["train.bin", "val.bin"]
    known = lock.read(mine.lock())
    assert known is not None and known.data == plan.data_hash and [*known.plan["blocks"]] == ["novels", "stories"]
    assert known.plan["budget"]["steps"] == {"novels": 6, "stories": 12}
    write_tokens(project / "data" / "stories" / "train.bin", 6000, 64)
    changed = mine.plan(blocks=["stories"])
    with pytest.raises(ConfigurationError, match="the data are other ones than were locked"):
        locks.in_force(project, changed.study, changed.data_hash)
    write_tokens(project / "data" / "stories" / "train.bin", 4000, 64)
    with pytest.raises(
        PreflightError, match=r"blocks novels and stories of .*tiny.toml hold the same data; nothing was"
    ):
        mine.plan()
    (project / "data" / "stories" / "val.bin").unlink()
    with pytest.raises(PreflightError, match="data/stories/val.bin"):
        mine.plan()


@pytest.mark.slow
def test_the_data_of_all_blocks_are_sent_and_each_run_finds_its_own(mine: Project, tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"root/books.txt: no such file"):
        mine.plan(target="scratch")
    (found, *_others) = (each for each in mine.examine("scratch") if str(each.what) == "data of two")
    assert str(found.verdict) == "bad" and "books.txt" in str(found.found)
    assert mine.send_data("scratch") == [f"{tmp_path}/root/books.txt", f"{tmp_path}/root/more/wiki.txt"]
    mine.submit(mine.plan(target="scratch"))
    assert [str(run.state) for run in mine.wait(timeout_s=120).runs] == ["DONE", "DONE"]
    assert "--path=books.txt" in mine.logs("low-books") and "Emma" in mine.logs("low-books")
    assert "--path=more/wiki.txt" in mine.logs("low-wiki") and "Bath" in mine.logs("low-wiki")
    assert [run.name for run in mine.select(tags=["books*"]).runs] == ["low-books"]
    (again,) = mine.submit(mine.plan(target="scratch", blocks=["wiki"]))
    assert "is done" in str(again.note)
