"""A reader of docs/tutorial.md, who makes its files and gives its commands, word for word and in its order."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support import REPOSITORY, wait_until

PAGE = REPOSITORY / "docs" / "tutorial.md"
BLOCK = re.compile(r"^## (?P<title>[^\n]*)$|^```(?P<language>\w+)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = ("pip ", "mkdir ", "oelm demo")
"""Commands that tests of their own run: an installation (tests/packaging), the demo (tests/cli/test_demo.py)."""
TARGETS = {"box": "server", "cluster": "full"}
"""Target to the tag of what the page submits to it."""


class Reader:
    """A reader in a folder, with one remote target or none: commands about the others are only shown to work."""

    def __init__(
        self, folder: Path, oelm: Callable[..., Any], target: str = "", instead: Mapping[str, str] | None = None
    ) -> None:
        """Make the reader.

        Args:
            oelm: Runs a command: ``oelm("main", "status", cwd=…)``.
            instead: What of the page's files is called otherwise here.
        """
        self.folder, self.oelm, self.target, self.instead = folder, oelm, target, instead or {}
        self.given: list[str] = []
        """Commands that were given."""

    def read(self, *titles: str, may_give: Callable[[str], bool] = lambda command: True) -> None:
        """Read parts of the page, all of them by default: make their files, give their commands.

        Args:
            may_give: Says whether a command is given.
        """
        title = ""
        for found in BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
            title = found["title"] or title
            if found["text"] and (not titles or title in titles):
                if found["language"] == "console":
                    for command in re.findall(r"^\$ (.*)$", found["text"], re.MULTILINE):
                        if not command.startswith(ELSEWHERE) and self._is_here(command) and may_give(command):
                            self._give(command)
                else:
                    self._write(found["language"], found["text"])

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the runs by study and name, as ``oelm status --json`` shows them."""
        shown = json.loads(self.oelm("main", "status", "--json", cwd=self.folder).stdout)["runs"]
        return {f"{row['study']}/{row['name']}": row for row in shown}

    def _is_here(self, command: str) -> bool:
        others = [word for target, tag in TARGETS.items() if target != self.target for word in (target, tag)]
        is_shown = "submit" in command and "--dry-run" in command
        return is_shown or not re.search(rf"\b({'|'.join(others)})\b", command)

    def _write(self, language: str, text: str) -> None:
        for shown, here in self.instead.items():
            text = text.replace(shown, here)
        jobs = self.folder / "jobs"
        if language == "python":
            (self.folder / "train.py").write_text(text, encoding="utf-8")
            return
        jobs.mkdir(exist_ok=True)
        if "[groups]" in text:
            (jobs / ("rates.toml" if "[program]" in text else "frozen.toml")).write_text(text, encoding="utf-8")
        else:
            with (jobs / "targets.toml").open("w" if "[local]" in text else "a", encoding="utf-8") as file:
                file.write(text)

    def _give(self, command: str) -> None:
        words = shlex.split(command, comments=True)
        self.given.append(command)
        if words[0] != "oelm":
            subprocess.run(["sh", "-ec", command], cwd=self.folder, check=True, capture_output=True, timeout=60)
            return
        if words[1] == "fetch":  # "later", says the page
            wait_until(lambda: all(row["state"] == "DONE" for row in self.rows().values()), "all runs to be done")
        # Before runs are forgotten a reader is asked on the terminal.
        self.oelm("main", *words[1:], *(["--yes"] if words[1] == "forget" else []), cwd=self.folder)
        if words[1] == "submit" and "long" in words:
            saved = self.folder / "models/checkpoints/rates/exp_high-long/work/last.txt"
            wait_until(saved.exists, "a checkpoint to go on from")
