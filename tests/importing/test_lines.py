"""Lines of every kind are carried over or named, with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from oelm_jobs.importing import shell

CARRIED = {
    "parallel -j 2 python train.py --seed {} ::: 1 2": ["--seed 1", "--seed 2"],
    "parallel python train.py --lr {1} --seed {2} ::: a b ::: 1 2": [
        "--lr a --seed 1", "--lr a --seed 2", "--lr b --seed 1", "--lr b --seed 2",
    ],
    "parallel --delay 5 python train.py --lr {1} --seed {2} ::: a b :::+ 1 2": ["--lr a --seed 1", "--lr b --seed 2"],
    "parallel 'python train.py --config {} --name {/.}' ::: cfg/a.yaml": ["--config cfg/a.yaml --name a"],
    "parallel python train.py --seed ::: 1 2": ["--seed 1", "--seed 2"],
    "parallel -C ' ' python train.py --lr {1} --seed {2} :::: grid.txt": ["--lr 0.1 --seed 1", "--lr 0.2 --seed 2"],
    "run() { python train.py --seed $1; }; export -f run; parallel run ::: 1 2": ["--seed 1", "--seed 2"],
    "echo python train.py --seed 1 > jobs.txt; echo python train.py --seed 2 >> jobs.txt; parallel < jobs.txt": [
        "--seed 1", "--seed 2",
    ],
    "xargs -a grid.txt -L 1 python train.py": ["0.1 1", "0.2 2"],
    "cat grid.txt | while read lr seed; do python train.py --lr $lr --seed $seed; done": [
        "--lr 0.1 --seed 1", "--lr 0.2 --seed 2",
    ],
    "set -- --lr 1; python train.py \"$@\" --seed 1": ["--lr 1 --seed 1"],
    "JOB=$(sbatch --parsable --wrap 'python train.py --seed 1' | cut -d' ' -f4)": ["--seed 1"],
    "conda run -n torch python train.py --seed 1": ["--seed 1"],
    "coproc python train.py --seed 1": ["--seed 1"],
    "#PBS -J 1-2\npython train.py --seed $PBS_ARRAY_INDEX": ["--seed 1", "--seed 2"],
    "#PBS -t 3,5\npython train.py --seed $PBS_ARRAYID": ["--seed 3", "--seed 5"],
    "#BSUB -J \"sweep[1-2]%1\"\npython train.py --seed $LSB_JOBINDEX": ["--seed 1", "--seed 2"],
    "#$ -t 1-4:2\npython train.py --seed $SGE_TASK_ID": ["--seed 1", "--seed 3"],
}  # fmt: skip
NAMED = {
    "parallel --pipe python train.py --seed 1": "parallel starts a command isn't known",
    "parallel python train.py --seed {} :::: none.txt": "parallel starts a command isn't known",
    "cut -f1 x | xargs python train.py --seed": "what a pipe passes on",
    "cat none.txt | while read s; do python train.py --seed $s; done": "what a pipe passes on",
    "#PBS -l walltime=1:00:00\npython train.py": "a line for PBS, which no target speaks",
    "#BSUB -W 4:00\npython train.py": "a line for LSF",
    "#$ -l gpu=1\npython train.py": "a line for Grid Engine",
    "qsub train.pbs": "another scheduler than Slurm",
    "#SBATCH --array=5-1\npython train.py --seed $SLURM_ARRAY_TASK_ID": "indices can't be read",
    "#SBATCH -p gpu\nset -e\n#SBATCH --mem=1G\npython train.py": "behind the first command",
    "python train.py || python train.py --resume": "behind || is for where the program fails",
    "until python train.py; do sleep 5; done": "starts again until it succeeds",
    "select x in a b; do python train.py --size $x; done": "it asks which one",
    "cat <<EOF > cfg.yaml\nlr: 1\nEOF\npython train.py --config cfg.yaml": "it reads cfg.yaml, which the script writes",
    "docker run img python train.py": "starts no training that is known",
    "case $1 in a) python train.py;; esac": "which of its cases holds",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A program's folder."""
    (tmp_path / "train.py").touch()
    (tmp_path / "grid.txt").write_text("0.1 1\n0.2 2\n")
    return tmp_path


def explored(folder: Path, text: str) -> tuple[list[str], str]:
    """Return the arguments of what a script starts, and what was named."""
    (folder / "a.sh").write_text(text + "\n")
    found = shell.explore([folder / "a.sh"], folder)
    words = [" ".join(each.words[each.words.index("train.py") + 1 :]) for each in found.started]
    return words, " | ".join(str(each.why) for each in found.left.values())


@pytest.mark.parametrize("text", CARRIED)
def test_lines_are_carried_over(folder: Path, text: str) -> None:
    assert explored(folder, text) == (CARRIED[text], "")


@pytest.mark.parametrize("text", NAMED)
def test_other_lines_are_named(folder: Path, text: str) -> None:
    assert NAMED[text] in explored(folder, text)[1]


def test_gpus_of_another_scheduler_count(folder: Path) -> None:
    (folder / "a.sh").write_text("#PBS -l select=1:ngpus=4\npython train.py\n")
    assert [each.gpus for each in shell.explore([folder / "a.sh"], folder).started] == [4]


def test_a_rate_that_ends_in_the_seed_is_not_put_together_of_it(folder: Path) -> None:
    from oelm_jobs.importing import proposal

    (folder / "a.sh").write_text("python train.py --lr 0.1 --seed 1\npython train.py --lr 0.2 --seed 2\n")
    study = proposal.propose([folder / "a.sh"], folder).study
    assert [group.values["lr"] for group in study.groups.values()] == [0.1, 0.2]
