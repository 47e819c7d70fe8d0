"""Bring the translations up to date with the code: ``python tools/translations.py`` collects every marked sentence into
``oelm_jobs/locale/LANGUAGE/LC_MESSAGES/oelm_jobs.po``, compiles what is translated, and says what isn't.

Translate in the ``.po`` file, then run it again; the compiled ``.mo`` beside it is what a program reads.
"""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import click
from babel.messages import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

REPOSITORY = Path(__file__).resolve().parent.parent
LOCALE = REPOSITORY / "oelm_jobs" / "locale"
FOLDERS = ("oelm_jobs", "analysis", "train")
KEYWORDS = {"_": None, "Sentence": None, "gettext": None, "ngettext": (1, 2)}
"""What marks a sentence: in the project ``_``, in click the functions of gettext."""
HEADER = """\
# Translations of what oelm-jobs says; tools/translations.py brings the sentences up to date with the code.
msgid ""
msgstr ""
"Language: {language}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: {plural_forms}\\n"

"""
CLICK = "click"
"""Stands for the place of what click says; those of its versions that aren't installed keep their translations."""


def collected() -> Catalog:
    """Return every sentence that people may read, with the file that it is in."""
    found = Catalog(project="oelm-jobs", charset="utf-8")
    for path in sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py")):
        place = str(path.relative_to(REPOSITORY))
        for text in [*_marked(path), *(_help(path) if path.parent.name == "cli" else ())]:
            found.add(text, locations=[(place, 0)])
    for path in sorted(Path(click.__file__).parent.rglob("*.py")):
        for text in _marked(path):
            found.add(text, locations=[(CLICK, 0)])
    return found


def _marked(path: Path) -> Iterator[str | tuple[str, ...]]:
    with path.open("rb") as file:
        for _, text, _, _ in extract("python", file, KEYWORDS):
            yield tuple(part for part in text if part) if isinstance(text, tuple) else text


def _help(path: Path) -> Iterator[str]:
    """Yield the paragraphs of what commands say in their help."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and any(
            part in ast.unparse(decorator) for decorator in node.decorator_list for part in ("command(", "group(")
        ):
            for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                yield " ".join(paragraph.split())


def read(path: Path) -> Catalog:
    """Return a language's translations."""
    with path.open("rb") as file:
        return read_po(file, locale=path.parent.parent.name, abort_invalid=True)


def brought_up_to_date(old: Catalog, found: Catalog) -> Catalog:
    """Return a catalogue of what was found, with the old translations of exactly these sentences."""
    new = Catalog(locale=old.locale, charset="utf-8")
    for message in found:
        if message.id:
            known = old.get(message.id)
            new.add(message.id, known.string if known else None, locations=message.locations)
    for message in old:
        if message.id and message.id not in new and any(place == CLICK for place, _ in message.locations):
            new.add(message.id, message.string, locations=[(CLICK, 0)])
    return new


def as_po(catalogue: Catalog) -> bytes:
    """Return a catalogue as the text of its ``.po`` file; nothing in it changes but with a sentence."""
    file = io.BytesIO()
    write_po(file, catalogue, width=110, sort_by_file=True, omit_header=True, include_lineno=False)
    header = HEADER.format(language=catalogue.locale, plural_forms=catalogue.plural_forms)
    return header.encode() + file.getvalue()


def as_mo(catalogue: Catalog) -> bytes:
    """Return a catalogue compiled; the same bytes for the same translations."""
    catalogue.creation_date = catalogue.revision_date = datetime(2000, 1, 1, tzinfo=timezone.utc)
    file = io.BytesIO()
    write_mo(file, catalogue)
    return file.getvalue()


def missing(catalogue: Catalog) -> list[str]:
    """Return the sentences that have no translation."""
    return [str(message.id) for message in catalogue if message.id and not message.string]


def main() -> int:
    """Update every language; return 1 where sentences lack a translation."""
    found, lacks = collected(), 0
    for path in sorted(LOCALE.glob("*/LC_MESSAGES/oelm_jobs.po")):
        catalogue = brought_up_to_date(read(path), found)
        path.write_bytes(as_po(catalogue))
        path.with_suffix(".mo").write_bytes(as_mo(catalogue))
        untranslated = missing(catalogue)
        lacks += len(untranslated)
        for text in untranslated:
            print(f"{path.parent.parent.name}: not translated: {text}")
    return 1 if lacks else 0


if __name__ == "__main__":
    sys.exit(main())
