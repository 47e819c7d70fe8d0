"""A study's bundle repeats its verdicts, tells nobody's name where it shall not, and holds no credentials."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from oelm_jobs.analysis import elsewhere

from oelm_jobs import bundling, ledger, reporting
from oelm_jobs.agent import trees
from oelm_jobs.bundle import archive
from oelm_jobs.bundle import contents as contents_of
from oelm_jobs.cli.report import main as report
from oelm_jobs.code import kept, snapshot
from oelm_jobs.errors import UsageError
from oelm_jobs.project import Project
from oelm_jobs.study.files import read_study
from tests.analysis.synthetic import make_run, record
from tests.analysis.test_command import STUDY
from tests.study.test_blocks import TRAINER as TWO

PERSON, MAIL, USER, HOST, TARGET = "Zoe Quandt", "zq@quandt-lab.org", "zquandt", "quandtbox", "quandts"
NAMES = (PERSON, "Quandt", MAIL, USER, HOST, TARGET)
HOME = f"/home/{USER}/oelm"
COMMIT = "9f2c0d4be1a7f3658c90"
LOOP = f"# {PERSON}, {HOME}, https://github.com/{USER}/secret-project\nprint('ok')\n"
TARGETS = f'[{TARGET}]\nkind = "ssh"\nhost = "{HOST}.example.org"\nuser = "{USER}"\nroot = "{HOME}"\n'
BOOT = "60dbfc55-1bce-088b-4cf6-741b38089b65"
CODE = trees.name_of([("jobs/targets.toml", False, hashlib.sha256(TARGETS.encode()).hexdigest()),
                      ("key.pem", False, hashlib.sha256(b"x").hexdigest()),
                      ("train/loop.py", True, hashlib.sha256(LOOP.encode()).hexdigest())])  # fmt: skip
"""The hash of the code that ran, before something in it was replaced."""


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), "-c", f"user.name={PERSON}", "-c", f"user.email={MAIL}", *arguments],
                   check=True, capture_output=True)  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with runs of two groups and two seeds, locked before, one run forgotten: somebody's name stands in each
    kind of record.
    """
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    folder = tmp_path / "project"
    checkpoints = folder / "models" / "checkpoints" / "s"
    (folder / "jobs").mkdir(parents=True)
    (folder / "jobs" / "s.toml").write_text(f"# Made by {PERSON} <{MAIL}> in {HOME}/jobs\n" + STUDY)
    (folder / "jobs" / "targets.toml").write_text(TARGETS)
    for group, losses in {"gpt_base": (3.9, 3.91), "oelm_no_freeze": (3.85, 3.86), "oelm_freeze": (3.95, 3.97)}.items():
        for seed, loss in enumerate(losses, start=42):
            place = make_run(checkpoints, group, seed, final_loss=loss, study_name="s", hardware={"host": HOST})
            more = {"target": TARGET, "project": HOME, "run_dir": f"{HOME}/models/checkpoints/s/{place.name}",
                    "diff": f"+# {PERSON}", "command": ["python", f"{HOME}/x.py"],
                    "snapshot": CODE, "revision": f"{COMMIT}-dirty"}  # fmt: skip
            for name in (".oelm/run.json", "experiment_result.json"):
                record(place, name, json.loads((place / name).read_text()) | more)
            attempt = {"number": 1, "host": HOST, "token": "t", "started_at": 1.7e9, "devices": ["cuda:0"]}
            attempt |= {"boot_id": BOOT, "start_time": "1", "pid": 7}
            record(place, ".oelm/start.json", attempt)
            record(place, ".oelm/end.json", {"state": "DONE", "reason": f"ended for {USER}", "attempts": [attempt]})
            record(place, ".oelm/fetched.json", {"host": HOST})
            (place / "checkpoint_400.pt").write_bytes(b"weights")
    code = tmp_path / "code"
    (code / "train").mkdir(parents=True)
    (code / "train" / "loop.py").write_text(LOOP)
    (code / "train" / "loop.py").chmod(0o755)
    (code / "key.pem").write_text("x")
    kept.keep(folder, snapshot.tree([
        ("train/loop.py", code / "train" / "loop.py"), ("key.pem", code / "key.pem"),
        ("jobs/targets.toml", folder / "jobs" / "targets.toml"),
    ]))  # fmt: skip
    ledger.append(folder, "s", [ledger.Entry(
        time=1.7e9, study="s", run="gpt_base-s44", group="gpt_base", seed=44, tag="", fingerprint="", token="t",
        target=TARGET, run_dir=f"{HOME}/models/checkpoints/s/exp_gpt_base-s44", state="DONE", reason="", metric="loss",
        value=3.0, has_result=True, step=400, gpu_hours=1.0, why=f"{PERSON} wanted it", files="none",
    )])  # fmt: skip
    Project(folder, say=lambda text: None).lock("s")
    git(folder, "init", "-q")
    git(folder, "add", "jobs")
    git(folder, "commit", "-q", "-m", "x")
    git(folder, "remote", "add", "origin", f"git@github.com:{USER}/secret-project.git")
    return folder


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as packed:
        found = {info.name: packed.extractfile(info) for info in packed}
        return {name: file.read() for name, file in found.items() if file is not None}


@pytest.mark.slow
def test_a_bundle_repeats_the_projects_own_verdicts_byte_for_byte(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Project(project, say=lambda text: None).report("s")
    own.write()
    made = bundling.make(project, "s", tmp_path / "b.tar.gz")
    with tarfile.open(made.path) as whole:
        whole.extractall(tmp_path / "unpacked", filter="data")
    monkeypatch.chdir(tmp_path / "unpacked")
    with monkeypatch.context() as patch:
        patch.setattr(reporting, "_stored", lambda *_: pytest.fail("the index says nothing of a bundle"))
        with bundling.reproduce(".") as found:
            assert found.differs == (), "as its README says"
    assert made.differs == () and bundling.make(project, "s", tmp_path / "c.tar.gz").sha256 == made.sha256
    packed = contents(made.path)
    for name in ("hypothesis_validation.txt", "analysis_results.json", "comparison_table.txt"):
        assert packed[f"report/{name}"] == (project / "experiments" / "s" / "analysis" / name).read_bytes()
    (project / "models").rename(tmp_path / "gone")
    with bundling.reproduce(made.path, output=tmp_path / "out") as found:
        assert found.differs == () and len(found.same) == 3
        found.report.write()
    assert (tmp_path / "out" / "hypothesis_validation.txt").read_bytes() == packed["report/hypothesis_validation.txt"]
    assert b"was forgotten" in packed["report/hypothesis_validation.txt"]
    assert b"The rules were locked" in packed["report/hypothesis_validation.txt"]
    assert not any(name.endswith((".pt", "fetched.json", "key.pem")) for name in packed)
    assert packed[f"code/{CODE}/train/loop.py"] == LOOP.encode()
    told = packed["README.md"].decode()
    assert "# Bundle of study s\n\nDoes it keep perplexity?" in told and "Files that were left out: 1." in told
    assert "oelm report --from ." in told and "as it was on 2027-01-15 08:00:00 UTC.\n" in told
    assert all(f"- `{name.partition('/')[0]}" in told for name in packed if name != "README.md")
    assert made.left_out == {f"code/{CODE}/key.pem": "is a private key"}


@pytest.mark.slow
def test_an_anonymous_bundle_names_nobody_and_comes_to_the_same_verdicts(project: Path, tmp_path: Path) -> None:
    plain = contents(bundling.make(project, "s", tmp_path / "b.tar.gz").path)
    assert all(any(name.encode() in content for content in plain.values()) for name in NAMES)
    made = bundling.make(project, "s", tmp_path / "a.tar.gz", is_anonymous=True)
    hidden = contents(made.path)
    for name in (*NAMES, HOME, str(project), "secret-project", COMMIT, CODE, BOOT):
        assert [at for at, content in hidden.items() if name.lower().encode() in content.lower()] == [], name
    tables = [each["report/comparison_table.txt"].partition(b"\nEvery run")[0] for each in (hidden, plain)]
    assert tables[0] == tables[1]  # the other one has the reasons, which somebody's name stands in
    assert b"`person1`" in hidden["README.md"] and b"left out" not in hidden["README.md"]
    said = [each["report/hypothesis_validation.txt"].partition(b"\nVerdicts\n")[2] for each in (hidden, plain)]
    assert said[0] == said[1] and b"H2" in said[0]
    verdicts = [json.loads(each["report/analysis_results.json"])["verdicts"] for each in (hidden, plain)]
    assert verdicts[0] == verdicts[1]
    code = next(name for name in hidden if name.startswith("code/") and name.endswith(".json"))[5:-5]
    targets = f"code/{CODE}/jobs/targets.toml"
    assert made.remaining == {}
    assert {name.replace(code, CODE) for name in hidden} == plain.keys() - {targets}
    assert made.left_out[targets] == "tells of your machines"
    assert f"code/{CODE}/key.pem" in made.left_out and b"key.pem" not in b"".join(hidden.values())
    with bundling.reproduce(made.path) as found:
        assert found.differs == () and found.report.locks is not None
    hosts = {json.loads(content)["outcome"]["hardware"]["host"] for name, content in hidden.items()
             if name.endswith("experiment_result.json")}  # fmt: skip
    assert len(hosts) == 1 and next(iter(hosts)).startswith("host")


@pytest.mark.slow
def test_a_table_of_the_code_that_is_called_like_a_host_leaves_no_name(project: Path, tmp_path: Path) -> None:
    own = project / "configs.toml"
    own.write_text(f"[{HOST}]\n[{USER}]\n")
    code = snapshot.tree([("configs.toml", own)])
    kept.keep(project, code)
    for path in (project / "models" / "checkpoints" / "s").glob("*/.oelm/run.json"):
        path.write_text(path.read_text().replace(CODE, code.hash))
    made = bundling.make(project, "s", tmp_path / "a.tar.gz", is_anonymous=True)
    found = contents(made.path)
    assert any(name.endswith("/configs.toml") for name in found) and made.remaining == {}
    assert not any(name.encode() in content for name in (HOST, USER) for content in found.values())


@pytest.mark.slow
def test_names_of_two_letters_are_taken_out_of_records_where_they_stand_alone(project: Path, tmp_path: Path) -> None:
    for path in (project / "models" / "checkpoints" / "s").glob("*/experiment_result.json"):
        path.write_text(path.read_text().replace(f'"{HOST}"', '"n7"').replace(f'"{TARGET}"', '"t9"'))
    hidden = contents(bundling.make(project, "s", tmp_path / "a.tar.gz", is_anonymous=True).path)
    found = [content for name, content in hidden.items() if name.endswith("experiment_result.json")]
    assert found and not any(b'"n7"' in content or b'"t9"' in content for content in found)
    assert {json.loads(content)["outcome"]["hardware"]["host"][:4] for content in found} == {"host"}


@pytest.mark.slow
def test_who_shares_a_word_of_the_study_is_named_to_whoever_packs_it(project: Path, tmp_path: Path) -> None:
    for path in (project / "models" / "checkpoints" / "s").glob("*/*.json"):
        path.write_text(path.read_text().replace(USER, "freeze"))
    for path in (project / "models" / "checkpoints" / "s").glob("*/.oelm/*.json"):
        path.write_text(path.read_text().replace(USER, "freeze"))
    made = bundling.make(project, "s", tmp_path / "a.tar.gz", is_anonymous=True)
    assert "jobs/s.toml" in made.remaining["freeze"]
    with bundling.reproduce(made.path) as found:
        assert found.differs == ()


@pytest.mark.slow
def test_a_bundle_whose_runs_say_something_else_than_its_report_is_told(project: Path, tmp_path: Path) -> None:
    made = bundling.make(project, "s", tmp_path / "b.tar.gz")
    with archive.opened(made.path) as folder:
        metrics = folder / "models/checkpoints/s/exp_oelm_freeze/experiment_result.json"
        metrics.write_text(metrics.read_text().replace('"val_loss": 3.9', '"val_loss": 2.9'))
        (folder / "MANIFEST.json").unlink(missing_ok=True)
        archive.write(folder, tmp_path / "forged.tar.gz")
    done = CliRunner().invoke(report, ["--from", str(tmp_path / "forged.tar.gz")], standalone_mode=False)
    assert isinstance(done.exception, UsageError) and "hypothesis_validation.txt" in str(done.exception)
    asked = ["--from", str(tmp_path / "forged.tar.gz"), "--checklist", "arr"]
    done = CliRunner().invoke(report, asked, standalone_mode=False)
    assert isinstance(done.exception, UsageError) and "hypothesis_validation.txt" in str(done.exception)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["another file", "another list", "a further file", "a file less"])
def test_other_code_than_what_ran_is_refused_though_the_manifest_fits(
    project: Path, tmp_path: Path, change: str
) -> None:
    made = bundling.make(project, "s", tmp_path / "b.tar.gz")
    with archive.opened(made.path) as folder:
        place = folder / "code" / CODE / "train" / "loop.py"
        place.write_text("print('another')\n")
        said = f"code/{CODE}/train/loop.py is not the file that ran"
        if change == "another list":
            listing = folder / "code" / f"{CODE}.json"
            sha256 = [hashlib.sha256(text.encode()).hexdigest() for text in (LOOP, place.read_text())]
            listing.write_text(listing.read_text().replace(*sha256))
            said = f"code/{CODE}.json is not the list of files that its name says"
        elif change == "a further file":
            place.write_text(LOOP)
            place.with_name("more.py").write_text("")
            said = f"code/{CODE}/train/more.py is in no list of code that ran"
        elif change == "a file less":
            place.unlink()
            said = f"code/{CODE}/train/loop.py is missing"
        archive.write(folder, tmp_path / "forged.tar.gz")
    with pytest.raises(UsageError, match=said), bundling.reproduce(tmp_path / "forged.tar.gz"):
        pass


@pytest.mark.slow
def test_code_is_what_the_records_of_the_runs_name_no_less_and_no_more(project: Path, tmp_path: Path) -> None:
    made = bundling.make(project, "s", tmp_path / "b.tar.gz")
    empty = hashlib.sha256(b"").hexdigest()
    other = trees.name_of([("x.py", False, empty)])
    for change, said in (
        ("no code", f"code/{CODE}.json is missing"), ("other code", f"code/{CODE}.json is missing"),
        ("no code, as of another study", f"code/{CODE}.json is missing"),
        ("more code", f"code/{other} is code that no run's record names"),
    ):  # fmt: skip
        with archive.opened(made.path) as folder:
            if change != "more code":
                shutil.rmtree(folder / "code")
            if change == "no code, as of another study":
                record(folder, "bundle.json", json.loads((folder / "bundle.json").read_text()) | {"study": "another"})
            elif change != "no code":
                row = {"name": "x.py", "executable": False, "sha256": empty}
                record(folder, f"code/{other}.json", {"snapshot": other, "files": [row]})
                record(folder, f"code/{other}/x.py", "")
                (folder / "code" / other / "x.py").write_text("")
            archive.write(folder, tmp_path / "forged.tar.gz")
        with pytest.raises(UsageError, match=said), bundling.reproduce(tmp_path / "forged.tar.gz"):
            pass


@pytest.mark.slow
def test_code_that_is_kept_nowhere_is_said_to_be_left_out_with_names_and_without(project: Path, tmp_path: Path) -> None:
    shutil.rmtree(project / ".oelm" / "code")
    for is_anonymous in (False, True):
        made = bundling.make(project, "s", tmp_path / "b.tar.gz", is_anonymous=is_anonymous)
        assert TARGET in made.left_out[f"code/{CODE}"], "who packs it is told where the code went"
        found = contents(made.path)
        about = json.loads(found["bundle.json"])
        assert about["left_out"].keys() == {f"code/{CODE}"}
        assert (b"which code was left out" in found["README.md"]) is is_anonymous
        assert not is_anonymous or not any(name.encode() in found["bundle.json"] for name in (*NAMES, COMMIT[:12]))
        with bundling.reproduce(made.path) as again:
            assert again.differs == ()


@pytest.mark.slow
def test_what_a_bundle_lacks_of_the_projects_report_is_told_with_names_and_without(
    project: Path, tmp_path: Path
) -> None:
    result = project / "models" / "checkpoints" / "s" / "exp_oelm_freeze" / "experiment_result.json"
    result.rename(tmp_path / "elsewhere.json")
    result.symlink_to(tmp_path / "elsewhere.json")
    for is_anonymous in (False, True):
        made = bundling.make(project, "s", tmp_path / "b.tar.gz", is_anonymous=is_anonymous)
        assert "hypothesis_validation.txt" in made.differs


@pytest.mark.slow
def test_the_commands_pack_and_reproduce(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    for arguments, said in (
        (["--bundle", "b.zip"], "ends in .tar.gz"), (["--anonymous"], "about a bundle"),
        (["--bundle", "b.tar.gz", "gpt_base"], "whole study"), (["--from", "no.tar.gz"], "no.tar.gz"),
    ):  # fmt: skip
        done = CliRunner().invoke(report, arguments, standalone_mode=False)
        assert isinstance(done.exception, UsageError) and said in str(done.exception)
    done = CliRunner().invoke(report, ["--study", "s", "--bundle", "b.tar.gz"], standalone_mode=False)
    assert done.exception is None and done.stdout.endswith("  b.tar.gz\n"), done.output
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(report, ["--from", "project/b.tar.gz", "gpt_base"], standalone_mode=False)
    assert done.exception is None and "Reproduced byte for byte" in done.stderr and "Group C" not in done.stdout
    asked = ["--from", "project/b.tar.gz", "--checklist", "arr", "--output", "out"]
    done = CliRunner().invoke(report, asked, standalone_mode=False)
    assert done.exception is None and "## C1. Model size and budget" in done.stdout
    assert (tmp_path / "out" / "checklist_arr.md").read_text() == done.stdout
    done = CliRunner().invoke(report, ["--from", "project/b.tar.gz", "--power"], standalone_mode=False)
    assert "reported on alone" in str(done.exception)


def test_a_bundle_of_another_version_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "bundle.json").write_text('{"version": 2}')
    archive.write(tmp_path / "files", tmp_path / "b.tar.gz")
    with pytest.raises(UsageError, match="version 2 is unknown"), bundling.reproduce(tmp_path / "b.tar.gz"):
        pass


@pytest.mark.parametrize("change", [{"made_at": None}, {"target_loss": None}, {"made_at": 1e300}, {"made_at": -1}])
def test_what_a_bundle_says_of_itself_is_whole(tmp_path: Path, change: dict[str, float | None]) -> None:
    about = {"version": 1, "study": "s", "study_file": "jobs/s.toml", "made_at": 1.7e9, "language": "en",
             "project": "/p", "target_loss": 3.0}  # fmt: skip
    about |= change
    (tmp_path / "files" / "jobs").mkdir(parents=True)
    (tmp_path / "files" / "jobs" / "s.toml").write_text(STUDY)
    said = {key: value for key, value in about.items() if value is not None}
    (tmp_path / "files" / "bundle.json").write_text(json.dumps(said))
    archive.write(tmp_path / "files", tmp_path / "b.tar.gz")
    with pytest.raises(UsageError, match="bundle.json is not understood"), bundling.reproduce(tmp_path / "b.tar.gz"):
        pass


def test_what_the_data_are_comes_along_for_every_block(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "two.toml").write_text(TWO)
    for name in ("novels", "stories"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "manifest.json").write_text("{}")
    into = contents_of.Contents(folder=tmp_path / "into")
    contents_of.collect(tmp_path, read_study(tmp_path / "jobs" / "two.toml"), [], [], into)
    found = archive.files_in(tmp_path / "into")
    assert {"data/novels/manifest.json", "data/stories/manifest.json"} <= {*found}


def test_data_of_one_name_from_two_places_both_come_along(tmp_path: Path) -> None:
    project, outside = tmp_path / "p", tmp_path / "elsewhere" / "novels"
    for folder, said in ((project / "data" / "novels", "own"), (outside, "other")):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(f'"{said}"')
    (project / "jobs").mkdir()
    (project / "jobs" / "two.toml").write_text(
        TWO.replace("data/novels", str(outside)).replace("data/stories", "data/novels")
    )
    into = contents_of.Contents(folder=tmp_path / "into")
    contents_of.collect(project, read_study(project / "jobs" / "two.toml"), [], [], into)
    found = {path.parent.name: path.read_text() for path in (tmp_path / "into" / "data").rglob("manifest.json")}
    assert found == {"novels": '"own"', "novels-2": '"other"'} and not into.left_out


@pytest.mark.parametrize("name", [elsewhere.FILE, elsewhere.FILE.upper()])
def test_what_was_found_when_a_bundle_was_made_is_never_taken_from_the_project(tmp_path: Path, name: str) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "s.toml").write_text(STUDY)
    (tmp_path / "experiments" / "s").mkdir(parents=True)
    for one in (name, "own.json"):
        (tmp_path / "experiments" / "s" / one).write_text("[]")
    into = contents_of.Contents(folder=tmp_path / "into")
    contents_of.collect(tmp_path, read_study(tmp_path / "jobs" / "s.toml"), [], [], into)
    assert archive.files_in(tmp_path / "into") == ["experiments/s/own.json", "jobs/s.toml"]


def test_the_files_of_all_studies_that_one_goes_on_from_come_along(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    needs = 'base = { needs = ["%s/gpt_base"] }'
    (tmp_path / "jobs" / "last.toml").write_text(STUDY + '# "middle/gpt_base"\n')
    (tmp_path / "jobs" / "file.toml").write_text('name = "middle"\n' + needs % "first")
    (tmp_path / "jobs" / "first.toml").write_text("")
    (tmp_path / "jobs" / "other.toml").write_text(needs % "last")
    into = contents_of.Contents(folder=tmp_path / "into")
    contents_of.collect(tmp_path, read_study(tmp_path / "jobs" / "last.toml"), [], [], into)
    assert archive.files_in(tmp_path / "into") == ["jobs/file.toml", "jobs/first.toml", "jobs/last.toml"]


def began_with(project: Path, run: str, source: str, sha256: str) -> None:
    """Record that a run of the project began with the checkpoint of a run of another study."""
    row = {
        "input": "init_from", "study": "pre", "run": source, "artifact": "best", "fingerprint": "",
        "path": f"{HOME}/models/checkpoints/pre/exp_{source}/best_model.pt", "sha256": sha256, "size": 3, "time": 1.0,
    }  # fmt: skip
    place = project / "models" / "checkpoints" / "s" / f"exp_{run}"
    record(place, ".oelm/inputs.json", {"version": 1, "inputs": [row]})


@pytest.mark.slow
def test_what_runs_began_with_is_told_in_a_bundle_as_in_the_project(project: Path, tmp_path: Path) -> None:
    source = make_run(project / "models" / "checkpoints" / "pre", "gpt_base", study_name="pre")
    entry = {"name": "best_model.pt", "size": 3, "sha256": "b" * 64}
    record(source, "MANIFEST.json", {"version": 1, "files": [entry]})
    began_with(project, "oelm_freeze", "gpt_base", "a" * 64)
    for is_anonymous in (False, True):
        made = bundling.make(project, "s", tmp_path / "b.tar.gz", is_anonymous=is_anonymous)
        packed = contents(made.path)
        assert b"which is another file by now" in packed["report/hypothesis_validation.txt"]
        assert made.differs == ()
        assert {name for name in packed if "/pre/" in name} == {
            f"models/checkpoints/pre/{source.name}/{name}" for name in (".oelm/run.json", "MANIFEST.json")
        }
        with bundling.reproduce(made.path) as found:
            assert found.differs == ()


@pytest.mark.slow
def test_two_hosts_whose_names_differ_in_capitals_alone_stay_two(project: Path, tmp_path: Path) -> None:
    for seed, host in (("", "Quandtbox"), ("-s43", "quandtbox")):
        path = project / "models" / "checkpoints" / "s" / f"exp_oelm_freeze{seed}" / "experiment_result.json"
        content = json.loads(path.read_text())
        content["outcome"]["hardware"]["host"] = host
        path.write_text(json.dumps(content))
    hidden = contents(bundling.make(project, "s", tmp_path / "a.tar.gz", is_anonymous=True).path)
    hosts = [
        json.loads(hidden[f"models/checkpoints/s/exp_oelm_freeze{seed}/experiment_result.json"])["outcome"]["hardware"][
            "host"
        ]
        for seed in ("", "-s43")
    ]
    assert len({*hosts}) == 2 and all(host.startswith("host") for host in hosts)
    assert not any(b"quandtbox" in content.lower() for content in hidden.values())


@pytest.mark.slow
def test_what_is_wrong_with_other_studies_is_said_once_while_one_is_packed(project: Path, tmp_path: Path) -> None:
    (project / "jobs" / "broken.toml").write_text("factors = 1\n")
    own = project / "jobs" / "s.toml"
    own.write_text(own.read_text().replace("seeds = [42, 43]", "seeds = [42, 43]\ndefault = true"))
    for is_anonymous in (False, True):
        said: list[str] = []
        bundling.make(project, None, tmp_path / "b.tar.gz", is_anonymous=is_anonymous, warn=said.append)
        assert len(said) == 1 and "broken.toml" in said[0]
