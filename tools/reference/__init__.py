"""Write the reference pages from the code: ``python -m tools.reference`` makes docs/reference anew.

Options come from click, keys and their types and defaults from the readers that check them, the trainer's keys from its
configuration, JSON from its types. What each means stands beside its definition: an option's help, and the docstrings
of fields and constants.
"""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "docs" / "reference"


def pages() -> dict[str, str]:
    """Return the text of each page by its file's name.

    Raises:
        Meaningless: An option, a key or a field has no meaning in the code.
    """
    from . import commands, keys, objects, trainer

    return {
        "commands.md": commands.page(),
        "study.md": keys.study_page(),
        "targets.md": keys.targets_page(),
        "trainer.md": trainer.page(),
        "json.md": objects.page(),
    }
