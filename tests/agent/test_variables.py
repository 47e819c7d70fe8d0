"""What a program of the user's own finds in its environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oelm_jobs.agent import rundir
from oelm_jobs.agent.run import variables
from oelm_jobs.agent.run_record import RunRecord

LOGGED_IN = {"WANDB_API_KEY": "0" * 40}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of a user who is logged in to nothing."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def silence() -> Iterator[str]:
    """An address that answers no more, as one behind a firewall: the place in its line is taken."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        place = listening.getsockname()
        others = [socket.socket() for _ in range(8)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(place)
        yield f"http://127.0.0.1:{place[1]}"
        for other in others:
            other.close()


@pytest.fixture
def nobody(server: str) -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def record(run_dir: Path, **changes: str) -> RunRecord:
    (run_dir / rundir.CONTROL).mkdir(parents=True, exist_ok=True)
    known = {"study": "rates", "run": "low-s43", "group": "low", "token": "t1", "run_dir": str(run_dir), **changes}
    rundir.mark_origin(run_dir, known["token"])
    return RunRecord(**known)


def mode(run_dir: Path, **environment: str) -> str | None:
    """Return the mode that W&B is told."""
    return variables.of_program(record(run_dir), environment).get("WANDB_MODE")


def test_wandb_knows_a_run_by_its_study_group_and_name(tmp_path: Path) -> None:
    found = variables.of_program(record(tmp_path), {})
    told = {name: value for name, value in found.items() if name.startswith("WANDB_")}
    assert told == {
        "WANDB_DIR": str(tmp_path), "WANDB_RUN_ID": found["WANDB_RUN_ID"], "WANDB_NAME": "low-s43",
        "WANDB_RUN_GROUP": "rates/low", "WANDB_RESUME": "allow", "WANDB_MODE": "offline",
    }  # fmt: skip
    assert found["WANDB_RUN_ID"].startswith("low-s43-")
    tagged = variables.of_program(record(tmp_path, tag="lr1e-3"), {})
    assert tagged["WANDB_RUN_GROUP"] == "rates/low-lr1e-3"


def test_trackers_know_a_run_by_one_id_until_it_is_started_over(tmp_path: Path) -> None:
    first = variables.run_id(record(tmp_path / "a"))
    assert variables.run_id(record(tmp_path / "a", token="t2")) == first, "it was submitted again, to go on"
    started_over = variables.run_id(record(tmp_path / "b", token="t2"))
    another = variables.run_id(record(tmp_path / "a", study="other"))
    assert len({first, started_over, another}) == 3


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    own = {"WANDB_MODE": "online", "WANDB_DIR": "/scratch", "WANDB_RUN_GROUP": "mine"}
    found = variables.of_program(record(tmp_path), own)
    assert not own.keys() & found.keys() and found["WANDB_NAME"] == "low-s43"


def test_wandb_is_offline_unless_somebody_is_logged_in_and_its_server_takes_connections(
    tmp_path: Path, server: str, nobody: str
) -> None:
    assert mode(tmp_path, WANDB_BASE_URL=server) == "offline"
    assert mode(tmp_path, WANDB_BASE_URL=nobody, **LOGGED_IN) == "offline"
    assert mode(tmp_path, WANDB_BASE_URL=server, **LOGGED_IN) is None


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_out_of_reach(tmp_path: Path, silence: str) -> None:
    assert mode(tmp_path, WANDB_BASE_URL=silence, **LOGGED_IN) == "offline"


@pytest.mark.parametrize("address", ["http://me:p[w@proxy:80", "http://proxy:port", "http://proxy:99999"])
@pytest.mark.parametrize("name", ["http_proxy", "WANDB_BASE_URL"])
def test_what_is_no_address_is_out_of_reach(tmp_path: Path, server: str, name: str, address: str) -> None:
    own = {"WANDB_BASE_URL": server, name: address}
    assert mode(tmp_path, **own, **LOGGED_IN) == "offline"
    assert mode(tmp_path, **own) == "offline"


def test_behind_a_proxy_it_is_the_proxy_that_has_to_answer(tmp_path: Path, server: str, nobody: str) -> None:
    assert mode(tmp_path, http_proxy=server, WANDB_BASE_URL="http://nowhere.invalid", **LOGGED_IN) is None
    without_scheme = server.partition("//")[2]
    assert mode(tmp_path, HTTPS_PROXY=without_scheme, **LOGGED_IN) is None
    assert mode(tmp_path, http_proxy=nobody, WANDB_BASE_URL=server, **LOGGED_IN) == "offline"


def test_a_login_that_wandb_keeps_in_netrc_is_found(tmp_path: Path) -> None:
    assert not variables.wandb_login({})
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    assert variables.wandb_login({})
    assert not variables.wandb_login({"WANDB_BASE_URL": "https://wandb.example.org"})
    (tmp_path / "other").write_text("machine wandb.example.org login user password secret")
    own = {"WANDB_BASE_URL": "https://wandb.example.org", "NETRC": str(tmp_path / "other")}
    assert variables.wandb_login(own)


def test_nothing_that_is_told_is_a_secret(tmp_path: Path) -> None:
    found = variables.of_program(record(tmp_path), {**LOGGED_IN, "WANDB_MODE": "offline"})
    assert "0" * 40 not in repr(found) and "t1" not in found["WANDB_RUN_ID"]


def test_a_program_imports_oelm_run_and_its_own_module_of_that_name_first(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    text = "import oelm_run; print(oelm_run.__file__)"

    def imported() -> str:
        environment = {**os.environ, **variables.of_program(record(tmp_path / "run"), {"PYTHONPATH": str(own)})}
        return subprocess.check_output([sys.executable, "-c", text], env=environment, cwd=tmp_path, text=True)

    assert imported().rstrip().endswith("importable/oelm_run.py")
    (own / "oelm_run.py").write_text("")
    assert imported().rstrip() == str(own / "oelm_run.py")
