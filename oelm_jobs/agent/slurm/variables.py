"""The environment variables of sbatch: which ones a submission may not get, and which of the user's own it has read."""

from __future__ import annotations

import os
import re
from typing import Dict, List

from .. import processes
from ..sentences import _
from . import profile

OWNED_VARIABLES = (
    "SBATCH_ARRAY_INX", "SBATCH_CLUSTERS", "SBATCH_ERROR", "SBATCH_INPUT", "SBATCH_JOB_NAME", "SBATCH_NO_REQUEUE",
    "SBATCH_OPEN_MODE", "SBATCH_OUTPUT", "SBATCH_REQUEUE", "SBATCH_SIGNAL", "SBATCH_TEST_ONLY", "SBATCH_WAIT",
)  # fmt: skip
"""Variables for options that are the toolkit's own, whether a script states them or not."""
VARIABLES = {"time": "SBATCH_TIMELIMIT", "switches": "SBATCH_REQ_SWITCH"}
"""Long options whose variable is called otherwise (sbatch(1), INPUT ENVIRONMENT VARIABLES)."""
ALTERNATIVES = (
    ("SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU", "SBATCH_MEM_PER_NODE", "SBATCH_MEM"),
    ("SBATCH_GPUS", "SBATCH_GPUS_PER_NODE", "SBATCH_GPUS_PER_SOCKET", "SBATCH_GPUS_PER_TASK", "SBATCH_GRES",
     "SBATCH_TRES_PER_TASK"),
)  # fmt: skip
"""Variables for the same thing: an option for one of them sets all aside."""
JOB_NAME_VARIABLE = "OELM_JOB_NAME"
"""In which a script keeps its job's name (templates/slurm.sh.j2)."""
OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "SALLOC_")
"""Variables that name the job in which a submission is made: its new job would take itself for a part of that one, as
Slurm resets some of them alone.
"""
OF_THE_CLUSTER = (*profile.OF_THE_CLUSTER, "SLURM_JWT")
"""Those of them that say where Slurm is."""
MOST_LISTED = 400
"""Characters of what is told of variables."""


def set_aside(script: str) -> List[str]:
    """Return the variables that sbatch may not get with a script: those that would override what it states (sbatch(1):
    a variable wins over a line of the script), and those of a job or run in which this process runs.
    """
    # Not "^": of a script of a thousand runs every character would be tried.
    stated = {
        VARIABLES.get(option, "SBATCH_" + option.upper().replace("-", "_"))
        for option in re.findall(r"\n#SBATCH --([a-z0-9-]+)", "\n" + script)
    }
    for same in ALTERNATIVES:
        if stated.intersection(same):
            stated.update(same)
    stated.update(OWNED_VARIABLES)
    own = (processes.ATTEMPT_VARIABLE, processes.RUN_DIR_VARIABLE, JOB_NAME_VARIABLE)
    return [
        name
        for name in os.environ
        if name in stated or name in own or (name.startswith(OF_A_JOB) and name not in OF_THE_CLUSTER)
    ]


def with_variables(answer: Dict[str, str], script: str) -> Dict[str, str]:
    """Return an answer of sbatch's; where it took no job, with the variables of the user's own that it has read besides
    what the script states.
    """
    names = sorted({name for name in os.environ if name.startswith("SBATCH_")}.difference(set_aside(script)))
    listed = ", ".join("%s=%s" % (name, os.environ[name]) for name in names)
    if len(listed) > MOST_LISTED:
        listed = listed[:MOST_LISTED] + "…"
    return {
        kind: _("{words}; in the environment: {variables}", said, listed)
        if listed and kind in ("refused", "limit")
        else said
        for kind, said in answer.items()
    }
