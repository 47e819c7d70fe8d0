"""Which GPUs of a host runs may have: not those that are out of order, only those that the environment permits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from oelm_jobs.agent import rundir
from oelm_jobs.agent.host import devices, lease, permitted
from oelm_jobs.spec.target import Target
from tests.support import (
    end_all,
    launch_runs,
    make_run,
    needs,
    outcome_of,
    read,
    stand_in_for_nvidia_smi,
    wait_for_state,
    wait_until,
)

UNREADABLE = ["[GPU requires reset]", "[N/A]", "ERR!", "[Unknown Error]", "[Not Supported]"]
LISTING = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa-0)
  MIG 3g.20gb     Device  0: (UUID: MIG-1111-a)
  MIG 3g.20gb     Device  1: (UUID: MIG-2222-b)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-aabb-1)
"""


def row(index: int, uuid: str, total: str = "40960", used: str = "3", busy: str = "0") -> str:
    return f"{index}, {uuid}, NVIDIA A100, {total}, {used}, {busy}\n"


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stand-in for nvidia-smi that lists two GPUs on PATH; return the file that it answers from."""
    table, listing = tmp_path / "gpus.csv", tmp_path / "listing"
    table.write_text(row(0, "GPU-aaaa-0") + row(1, "GPU-aabb-1"))
    listing.write_text(LISTING)
    stand_in_for_nvidia_smi(tmp_path, monkeypatch, f'[ "$1" = -L ] && exec cat {listing}\nexec cat {table}')
    return table


def labels() -> list[str]:
    return [device.label for device in devices.of_host()]


# Out of order ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", UNREADABLE)
def test_a_gpu_whose_memory_cant_be_read_is_not_idle(gpus: Path, words: str) -> None:
    gpus.write_text(row(0, "GPU-aaaa-0", words, words, words) + row(1, "GPU-aabb-1"))
    held = lease.acquire(1, queued_at=time.time(), token="a", run="a", run_dir="/a")
    assert [device.label for device in held.devices] == ["gpu:1"]
    assert lease.table()["devices"][0]["fault"] == f"gpu:0 can't be used: nvidia-smi says {words}"
    held.release()


@pytest.mark.parametrize("words", ["[N/A]", "N/A", "[Not Supported]"])
def test_a_utilisation_alone_that_isnt_told_is_no_fault(gpus: Path, words: str) -> None:
    gpus.write_text(row(0, "GPU-aaaa-0", busy=words) + row(1, "GPU-aabb-1"))
    assert [device.fault for device in devices.of_host()] == ["", ""], "so are GPUs in MIG mode"


def test_a_utilisation_that_is_an_error_is_a_fault(gpus: Path) -> None:
    gpus.write_text(row(0, "GPU-aaaa-0", busy="ERR!") + row(1, "GPU-aabb-1"))
    assert [device.fault for device in devices.of_host()] == ["ERR!", ""]


def test_an_unreadable_uuid_names_no_path(gpus: Path) -> None:
    gpus.write_text(row(0, "[N/A]") + row(1, "../../x"))
    assert [(device.key, device.fault) for device in devices.of_host()] == [
        ("gpu-index-0", "[N/A]"),
        ("gpu-index-1", "../../x"),
    ]


def test_a_gpu_that_fell_off_the_bus_does_not_take_the_others_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "echo 'Unable to determine the device handle for GPU0000:41:00.0: Unknown Error'"
    stand_in_for_nvidia_smi(tmp_path, monkeypatch, f"{lines}\necho '{row(1, 'GPU-b').strip()}'\nexit 15")
    assert labels() == ["gpu:1"]


WAITER = """
import os, sys
from oelm_jobs.agent.host import lease
lease.FOREIGN_POLL_S = 0.2
held = lease.acquire(eval(sys.argv[1]), queued_at=float(sys.argv[2]), token=sys.argv[3], run=sys.argv[3],
                     run_dir="/" + sys.argv[3], tell=lambda text: print("says", text, flush=True))
print("has", [device.label for device in held.devices], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Waiter:
    """A process that asks for devices; called, it returns what it has said so far."""

    process: subprocess.Popen[bytes]
    output: Path

    def __call__(self) -> str:
        return self.output.read_text()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def waiter(tmp_path: Path) -> Iterator[Callable[[object, float, str], Waiter]]:
    """Ask for devices in a process of its own, which ends with the test."""
    made: list[Waiter] = []

    def ask(request: object, at: float, name: str) -> Waiter:
        output = tmp_path / f"{name}.out"
        argv = [sys.executable, "-c", WAITER, repr(request), str(at), name]
        with open(output, "wb") as file:
            made.append(Waiter(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=file, stderr=file), output))
        return made[-1]

    yield ask
    for waiting in made:
        waiting.end()


@pytest.mark.slow
def test_who_asks_for_a_broken_gpu_waits_lets_others_go_first_and_goes_on_when_it_is_mended(gpus: Path, waiter) -> None:
    whole = gpus.read_text()
    gpus.write_text(row(0, "GPU-aaaa-0", *3 * ["[GPU requires reset]"]) + row(1, "GPU-aabb-1"))
    now = time.time()
    exact = waiter((0,), now - 10, "exact")
    wait_until(lambda: "waiting for GPU 0; gpu:0 can't be used: nvidia-smi says [GPU requires reset]" in exact(), "it")
    other = waiter(1, now - 5, "other")
    wait_until(lambda: "has ['gpu:1']" in other(), "a later run to have the healthy one")
    both = waiter(2, now - 4, "both")
    wait_until(lambda: "waiting for 2 GPUs; gpu:0 can't be used" in both(), "who can't be served before, either")
    both.end()  # of those who queue anew the one that notices first comes first, and it would wait for the other GPU
    gpus.write_text(whole)
    wait_until(lambda: "has ['gpu:0']" in exact(), "the mended one")


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["", "exit 9"], ids=["no GPU is listed", "nvidia-smi fails"])
def test_gpus_that_vanish_while_a_run_waits_make_it_wait_on_and_take_no_cpu_slots(
    gpus: Path, waiter, tmp_path: Path, broken: str
) -> None:
    whole = gpus.read_text()
    gpus.write_text(row(0, "GPU-aaaa-0", used="9000") + row(1, "GPU-aabb-1", used="9000"))
    run = waiter(1, time.time(), "patient")
    wait_until(lambda: "in use without a lease: gpu:0, gpu:1" in run(), "it to wait")
    program = tmp_path / "bin" / "nvidia-smi"
    gpus.write_text(""), replace_with(program, f"#!/bin/sh\n{broken}\n")
    words = "nvidia-smi fails: exit code 9" if broken else "nvidia-smi lists no GPU for it"
    wait_until(lambda: f"waiting for 1 GPU; {words}" in run(), "the reason")
    gpus.write_text(whole), replace_with(program, f"#!/bin/sh\nexec cat {gpus}\n")
    wait_until(lambda: "has ['gpu:0']" in run(), "the GPU once it is back")


def replace_with(program: Path, content: str) -> None:
    """Replace a program in one step: half of one is never run."""
    new = program.with_name("new")
    new.write_text(content)
    new.chmod(0o755)
    new.rename(program)


@pytest.mark.usefixtures("quick")
def test_what_is_out_of_order_is_shown_by_status_and_doctor(oelm, project: Path, gpus: Path) -> None:
    gpus.write_text(row(0, "GPU-aaaa-0", *3 * ["[GPU requires reset]"]) + row(1, "GPU-aabb-1"))
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait")
    shown = oelm("status", "--gpus").stdout
    assert "gpu:0 can't be used: nvidia-smi says [GPU requires reset]" in shown
    assert read(project / "models/checkpoints/tiny/exp_gpt_base/.oelm" / rundir.START)["devices"] == ["gpu:1"]
    looked = oelm("doctor", check=False).stdout
    assert "FAILS   devices" in looked and "gpu:0 can't be used: nvidia-smi says [GPU requires reset]" in looked


@pytest.mark.usefixtures("quick")
def test_an_nvidia_smi_that_fails_hides_no_runs_and_doctor_says_where_to_look(
    oelm, project: Path, gpus: Path, tmp_path: Path
) -> None:
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait")
    replace_with(tmp_path / "bin" / "nvidia-smi", "#!/bin/sh\necho Driver/library version mismatch\nexit 18\n")
    shown = oelm("status", "--gpus").stdout
    assert "no devices: nvidia-smi fails: Driver/library version mismatch" in shown and "DONE" in shown, shown
    looked = oelm("doctor", check=False).stdout
    assert "nvidia-smi fails: Driver/library version mismatch" in looked and "run nvidia-smi there by hand" in looked


# What the environment permits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("1", ["gpu:1"]),
        ("1,0", ["gpu:0", "gpu:1"]),
        ("GPU-aabb-1", ["gpu:1"]),
        ("GPU-aab", ["gpu:1"]),
        ("GPU-aa", []),  # which of them?
        ("0,7,1", ["gpu:0"]),  # CUDA looks no further than what is not there
        ("7", []),
        ("MIG-2222-b", ["gpu:0"]),
        ("MIG-GPU-aabb-1/1/0", ["gpu:1"]),
        ("MIG-3333-c", []),
        ("\u00b2", []),
        ("9" * 5000, []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(
    gpus: Path, monkeypatch: pytest.MonkeyPatch, value: str, found: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert labels() == found


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
def test_cuda_visible_devices_that_hides_all_gpus_means_cpu_slots(
    gpus: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert labels() == [f"cpu:{index}" for index in range(len(os.sched_getaffinity(0)))]


def test_a_run_held_to_a_mig_instance_sees_that_alone(gpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The whole GPU is in use, by the other instance's user, and nobody tells how busy it is.
    gpus.write_text(row(0, "GPU-aaaa-0", used="21000", busy="[N/A]") + row(1, "GPU-aabb-1"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-2222")
    held = lease.acquire(1, queued_at=time.time(), token="a", run="a", run_dir="/a")
    assert held.environment()["CUDA_VISIBLE_DEVICES"] == "MIG-2222-b"
    held.release()


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"SLURM_JOB_GPUS": "1"}, ["gpu:1"]),
        ({"SLURM_JOB_GPUS": "0,1", "SLURM_STEP_GPUS": "0"}, ["gpu:0"]),
        ({"SLURM_JOB_GPUS": "1", "CUDA_VISIBLE_DEVICES": "0,1"}, ["gpu:1"]),
        ({"SLURM_JOB_GPUS": "4,6", "CUDA_VISIBLE_DEVICES": "0,1"}, ["gpu:0", "gpu:1"]),  # a cgroup hides the others
        ({"SLURM_JOB_GPUS": "4-5"}, ["gpu:0", "gpu:1"]),
        ({"OELM_GPUS": "0", "CUDA_VISIBLE_DEVICES": "0,1"}, ["gpu:0"]),
    ],
)
def test_the_gpus_of_a_job_around_it_hold_a_local_run(
    gpus: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], found: list[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert labels() == found


def test_the_limit_is_that_of_the_terminal_that_submits_whatever_set_up_lines_make_of_it(
    gpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    widened = Target(name="local", kind="local", root="", python="", setup=("export CUDA_VISIBLE_DEVICES=0,1",))
    run = make_run(tmp_path, "a")
    try:
        launch_runs(tmp_path, [(run, outcome_of("completed"))], target=widened)
        wait_for_state(run, "DONE")
    finally:
        end_all(tmp_path)
    assert read(rundir.control(run.run_dir, rundir.START))["devices"] == ["gpu:1"]


def test_a_request_beyond_the_limit_names_the_limit(gpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(lease.ImpossibleRequest, match=r"asks for GPU 0; .* \(held to CUDA_VISIBLE_DEVICES=1\)"):
        lease.acquire((0,), queued_at=1.0, token="a", run="a", run_dir="/a")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    with pytest.raises(lease.ImpossibleRequest, match=r"no GPU that it may have \(held to CUDA_VISIBLE_DEVICES=5\)"):
        lease.acquire(1, queued_at=1.0, token="a", run="a", run_dir="/a")


@pytest.mark.usefixtures("quick")
def test_plan_submit_and_status_say_what_holds_a_local_run(
    oelm, project: Path, gpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    only = ("--study", "tiny", "--group", "gpt_base")
    assert "held to   CUDA_VISIBLE_DEVICES=1" in oelm("submit", *only, "--dry-run").stdout
    study = project / "jobs" / "tiny.toml"
    content = study.read_text()
    study.write_text(content.replace('model_type = "gpt" }', 'model_type = "gpt", gpus = [0] }'))
    refused = oelm("submit", *only, check=False)
    assert "asks for GPU 0; local has GPUs 1 (held to CUDA_VISIBLE_DEVICES=1)" in refused.stderr, refused.stderr
    study.write_text(content)
    oelm("submit", *only, "--wait")
    assert "held to CUDA_VISIBLE_DEVICES=1" in oelm("status", "--gpus").stdout
    assert "held to CUDA_VISIBLE_DEVICES=1" in oelm("doctor", check=False).stdout


def test_no_limit_is_named_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (permitted.CUDA, permitted.AT_SUBMISSION, permitted.OF_TARGET, *permitted.OF_JOB):
        monkeypatch.delenv(name, raising=False)
    assert permitted.description() == "" and permitted.travelling({}) == {}


# What torch can't see -------------------------------------------------------------------------------------------------


def test_a_leased_gpu_that_torch_cant_see_is_a_failure_at_once(
    oelm, project: Path, gpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OELM_STAND_IN_GPUS")
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("max_retries = 0", "max_retries = 2"))
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait", check=False)
    result = read(project / "models/checkpoints/tiny/exp_gpt_base" / rundir.RESULT)
    assert result["status"] == "FAILED" and len(result["attempts"]) == 1, "nothing will be different in another attempt"
    assert "torch sees no GPU, 1 given to this run: torch " in result["reason"], result["reason"]
    rows = json.loads(oelm("status", "--json").stdout)["runs"]
    assert "torch sees no GPU" in rows[0]["reason"]


@pytest.mark.slow
def test_the_trainers_words_for_a_gpu_it_cant_see_are_those_that_the_supervisor_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from oelm_jobs.agent.run import failure
    from train import distributed
    from train.errors import NoGpu

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv(lease.GPUS_VARIABLE, "2")
    with pytest.raises(NoGpu, match=failure.NO_GPU_WORDS):
        distributed.join()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(NoGpu, match=f"torch sees 1 GPU only, 2 {failure.NO_GPU_WORDS}"):
        distributed.join()
    monkeypatch.undo()
    monkeypatch.setenv(lease.GPUS_VARIABLE, "2")
    monkeypatch.setenv("OELM_STAND_IN_GPUS", "1")
    assert distributed.join().device.type == "cpu"


# Where nvidia-smi is looked for ---------------------------------------------------------------------------------------


def test_a_closed_folder_of_path_costs_no_cpu_slot(oelm, project: Path, tmp_path: Path) -> None:
    needs("setpriv", root=True, linux=True)
    closed, empty = tmp_path / "closed", tmp_path / "empty"  # of the machine's own folders one may hold an nvidia-smi
    closed.mkdir(mode=0o700)
    os.chown(closed, 1, -1)
    empty.mkdir()
    powers = "-dac_override,-dac_read_search"
    dropped = [str(shutil.which("setpriv")), f"--bounding-set={powers}", f"--inh-caps={powers}"]
    program = "from oelm_jobs.agent.host import devices; print([device.label for device in devices.of_host()])"
    for path in (f"{closed}:{empty}", f"{empty}:{closed}"):
        done = subprocess.run(
            [*dropped, sys.executable, "-c", program], env={**os.environ, "PATH": path}, capture_output=True, text=True
        )
        assert done.stdout.startswith("['cpu:0'"), done.stderr
