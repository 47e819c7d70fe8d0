"""The demo somewhere else, where somewhere else is this machine: an SSH server on loopback, or a two-node Slurm.

    python tools/demo_remote.py ssh|slurm VENV

Everything, the project's copy included, lies in build/demo-ssh or build/demo-slurm and is made anew each time; servers
and daemons end with this program. Needs root, for the namespaces and device files of the stand-in machines.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from tests.slurm.testbed import Testbed, missing  # noqa: E402
from tests.ssh.testbed import Client, Host, running  # noqa: E402

SBATCH = {"gpus": "a5000:1", "time": "00:30:00"}
SETUP = ["export OMP_NUM_THREADS=1"]
"""The stand-in GPUs compute on this machine's cores, which the runs share."""


@contextlib.contextmanager
def ssh(place: Path) -> Iterator[tuple[dict[str, object], dict[str, str]]]:
    """Run an SSH server on loopback; yield its target, and environment variables by which commands find it."""
    client, host = Client(place / "laptop"), Host(place=place / "server", name="box")
    client.knows(host)
    with running(host, client=client):
        yield {"kind": "ssh", "host": "box"}, {"PATH": f"{client.place / 'bin'}:{os.environ['PATH']}"}
        print(f"\nThe server ran {host.commands()} commands over {host.logins()} connections, its log says.")


@contextlib.contextmanager
def slurm(place: Path) -> Iterator[tuple[dict[str, object], dict[str, str]]]:
    """Run a Slurm of two nodes with four stand-in GPUs each; yield as ``ssh`` does."""
    with Testbed(place / "slurm") as cluster:
        yield {"kind": "slurm", "sbatch": SBATCH, "setup": SETUP}, cluster.environment
        columns = "JobID%6,JobName%28,State%9,Elapsed%8,NodeList%8,AllocTRES%38"
        print("\n" + cluster.run("sacct", "--allocations", "--format=" + columns))


def main(kind: str, venv: Path) -> int:
    """Run the demo; return its exit code."""
    if os.getuid() != 0 or (kind == "slurm" and missing()):
        lacking = ", ".join(missing()) if kind == "slurm" else ""
        print(f"demo-{kind}: run it as root{'; not installed: ' + lacking if lacking else ''}", file=sys.stderr)
        return 2
    place = REPOSITORY / "build" / f"demo-{kind}"
    shutil.rmtree(place, ignore_errors=True)
    project = place / "project"
    for folder in ("jobs", "train"):
        shutil.copytree(REPOSITORY / folder, project / folder, ignore=shutil.ignore_patterns("__pycache__"))
    with {"ssh": ssh, "slurm": slurm}[kind](place) as (target, variables):
        values = {**target, "python": str(venv / "bin" / "python")}
        lines = ["[demo]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
        (project / "jobs" / "targets.toml").write_text("\n".join(lines) + "\n")
        environment = {**os.environ, **variables, "OELM_STATE_DIR": str(place / "state")}
        argv = [str(venv / "bin" / "oelm"), "demo", ".", "--target", "demo"]
        code = subprocess.run(argv, cwd=project, env=environment).returncode
    print(f"The project, with its results and its report, is {project}; all else of the demo lies beside it.")
    return code


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and daemons end with it
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).absolute()))
