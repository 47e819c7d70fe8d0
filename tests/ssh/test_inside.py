"""A server that lies about names and paths writes nothing outside of the folders that its files are meant for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from oelm_jobs.store import Store
from tests.ssh.conftest import Rig
from tests.ssh.test_fetch import fetched, train


@pytest.fixture
def done(rig: Rig) -> Rig:
    """A run that is done on the host, and the file of the user's that nobody may touch."""
    train(rig)
    rig.wait_for("gpt_base", "DONE")
    victim(rig).write_text("mine")
    return rig


def victim(rig: Rig) -> Path:
    return rig.project / "precious.txt"


def lie(rig: Rig, module: str, truth: str, lie: str) -> None:
    """Change the agent that lies on the host, as whoever owns the host can."""
    (agent,) = (rig.host.home() / "oelm" / ".oelm" / "agent").iterdir()
    path = agent / "agent" / f"{module}.py"
    assert truth in path.read_text()
    path.chmod(0o644)
    path.write_text(path.read_text().replace(truth, lie))


def announce(rig: Rig, row: dict[str, object]) -> None:
    """Have the host's agent list a file besides those of a run."""
    end = "    return answer\n"
    lie(rig, "transfer/inventory", end, f"    answer['files'].append({row!r})\n{end}")


def refuses(oelm: Callable[..., subprocess.CompletedProcess[str]], rig: Rig, *words: str) -> str:
    failed = oelm("fetch", *words, check=False)
    assert failed.returncode == 3, failed.stderr + failed.stdout
    assert victim(rig).read_text() == "mine" and victim(rig).stat().st_nlink == 1
    return failed.stderr


@pytest.mark.parametrize("path", ["/../../../../..", "/x/../../../../../..", "relative", "", 7, None])
def test_a_run_that_lies_above_its_folder_is_not_fetched(done: Rig, path: object) -> None:
    announce(done, {"name": "precious.txt", "size": 4, "sha256": "0" * 64, "grows": False})
    lie(done, "transfer/inventory", "os.path.realpath(run_dir),", f"{path!r},")
    said = refuses(done.oelm, done)
    assert "refused" in said or "answers nonsense" in said


@pytest.mark.parametrize("name", ["../precious.txt", "../../../../precious.txt", "{}/precious.txt", "a/../../b", ".."])
def test_a_file_whose_name_leads_out_is_not_fetched(done: Rig, name: str) -> None:
    row = {"name": name.format(done.project), "size": 4, "sha256": "0" * 64, "grows": False, "content": "bm9wZQ=="}
    announce(done, row)
    assert "refused" in refuses(done.oelm, done)


def test_links_below_a_runs_copy_and_in_staging_lead_nowhere(done: Rig, tmp_path: Path) -> None:
    fetched(done)
    outside = tmp_path / "outside"
    outside.mkdir()
    log = done.run_dir() / "training.log"
    for place in (done.home_dir() / ".oelm", done.home_dir().parent / ".oelm-fetch" / "files"):
        kept = place.with_name(place.name + "-kept")
        place.parent.mkdir(exist_ok=True)
        if place.exists():
            place.rename(kept)
        place.symlink_to(outside)
        log.write_text(log.read_text() + "more\n")
        (done.run_dir() / "MANIFEST.json").unlink(missing_ok=True)
        assert "leads elsewhere" in refuses(done.oelm, done)
        assert not list(outside.rglob("*"))
        place.unlink()
        if kept.exists():
            kept.rename(place)
    assert fetched(done)["gpt_base"]["files"], "once they are gone, all is as it was"


def test_a_users_own_links_to_a_big_disk_are_followed(done: Rig, tmp_path: Path) -> None:
    disk = tmp_path / "big disk"
    disk.mkdir()
    (done.project / "models").symlink_to(disk)
    assert fetched(done)["gpt_base"]["verified"]
    assert (disk / "checkpoints" / "tiny" / "exp_gpt_base" / "MANIFEST.json").is_file()


def test_records_with_names_of_no_study_do_not_get_into_the_index(done: Rig) -> None:
    path = done.run_dir() / ".oelm" / "run.json"
    record = json.loads(path.read_text())
    for number, changes in enumerate(
        [{"run": "../../../precious"}, {"study": "../.."}, {"label": "\x1b[2J"}, {"tag": "../x"}, {"seed": "x"}]
    ):
        other = done.run_dir(f"other{number}") / ".oelm"
        other.mkdir(parents=True)
        (other / "run.json").write_text(json.dumps({**record, **changes}))
    rebuilt = done.oelm("status", "--rebuild", "--json")
    assert [run["name"] for run in json.loads(rebuilt.stdout)["runs"]] == ["gpt_base"]
    assert rebuilt.stderr.count("box: a record in") == 5 and "\x1b" not in rebuilt.stderr
    assert fetched(done)["gpt_base"]["verified"]
    assert victim(done).read_text() == "mine"


def test_an_index_that_has_such_names_already_leads_nowhere(done: Rig) -> None:
    with Store() as store:
        store._db.execute("UPDATE run SET name = '../../../precious'")
    failed = done.oelm("fetch", check=False)
    assert failed.returncode == 2 and "oelm-status --rebuild" in failed.stderr
    assert not list(done.project.glob("exp_*")) and victim(done).read_text() == "mine"
    done.oelm("status", "--rebuild")
    assert fetched(done)["gpt_base"]["verified"]


def test_data_go_to_no_other_folder_than_was_asked_for(done: Rig) -> None:
    lie(done, "transfer/tokens", '"link": link,', '"link": ".ssh",')
    (done.host.home() / "oelm" / "data" / "tiny" / "train.bin").unlink()
    done.edit(("seeds = [42]", "seeds = [7]"))
    failed = done.oelm("submit", "--study", "tiny", "--target", "box", "--send-data", check=False)
    assert failed.returncode == 3 and "refused" in failed.stderr
    assert not (done.host.home() / ".ssh" / "train.bin").exists()
