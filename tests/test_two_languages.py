"""Pages in two languages say the same: headings, commands, files, options, numbers and links, in the same order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tests.test_translations import ANOTHER_WORD, OTHER_MEANINGS, chinese_sentences

MARK = re.compile(r"\.zh(-CN)?(?=\.md$)")
"""What the name of a Chinese page has before its ending."""
PAGES = [path for path in (*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")) if MARK.search(path.name)]
TRANSLATED = {path.with_name(MARK.sub("", path.name)): path for path in PAGES}
CHINESE = re.compile("[一-鿿]")
COMMENT = re.compile(r"(?:^|\s+)# .*")
CODE = re.compile(r"`([^`]+)`|<code>(.*?)</code>")
LINK = re.compile(r"\]\(([^)#]*)#?([^)]*)\)|src=\"([^\"]+)()\"")
NUMBER = re.compile(r"(?<![A-Za-z\d.,])\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Part:
    """A heading, a paragraph, an item of a list, a row of a table, a block of code."""

    kind: str
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def parts(page: str) -> list[Part]:
    """Return what a page is made of, in its order."""
    found: list[Part] = []
    is_code, before = False, ""
    for line in page.splitlines():
        begins = re.match(r"```.*|#+ |- |\||</?\w+", line)
        if is_code:
            is_code = line != "```"
            found[-1].lines.extend([line] if is_code else [])
        elif begins:
            is_code = line.startswith("```")
            found.append(Part(begins[0], [] if is_code else [line]))
        elif line and before:
            found[-1].lines.append(line)
        elif line:
            found.append(Part("", [line]))
        before = line
    return found


def prose(part: Part) -> str:
    """Return the words of a part: code is a letter, links are what they are called, tabs stand between cells."""
    return re.sub("[*[]", "", re.sub(r"<.*?>| ?\| ?", "\t", LINK.sub("", CODE.sub("x", part.text))))


def is_same_line(english: str, chinese: str) -> bool:
    """Say whether two lines are the same to a machine; what people read, comments and quoted Chinese, is free."""
    if bool(COMMENT.search(english)) != bool(COMMENT.search(chinese)):
        return False
    quoted = re.split(f'"[^"]*{CHINESE.pattern}[^"]*"', COMMENT.sub("", chinese))
    return bool(re.fullmatch('"[^"]*"'.join(map(re.escape, quoted)), COMMENT.sub("", english)))


def is_same_output(english: str, chinese: str) -> bool:
    """Say whether a command printed the same in both languages, as far as numbers tell."""
    in_both = [sorted(NUMBER.findall(text)) for text in (english, chinese)]
    return english == chinese or (bool(CHINESE.search(chinese)) and in_both[0] == in_both[1])


def pieces(part: Part) -> list[str]:
    """Return what is compared one by one: the lines of a file; commands, and what stands before and behind each."""
    if part.kind in ("```console", "```text"):
        return re.split(r"^(\$ .*)$", part.text, flags=re.MULTILINE)
    return part.lines


def is_same_piece(kind: str, english: str, chinese: str) -> bool:
    """Say whether two pieces of blocks of code are the same: a line of a file, a command, what it prints."""
    is_output = kind in ("```console", "```text") and not english.startswith("$ ")
    return (is_same_output if is_output else is_same_line)(english, chinese)


def headings(page: str) -> list[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    said = (part.text.lstrip("# ").lower() for part in parts(page) if part.kind.startswith("#"))
    return [re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in said]


def links(part: Part, page: Path, text: str) -> list[tuple[str, object]]:
    """Return where a part leads: an English page, and there an anchor, or a heading's number where it is translated."""
    found: list[tuple[str, object]] = []
    for match in LINK.findall(part.text):
        path, anchor = (match[0] or match[2], match[1])
        there = (page.parent / path).resolve() if path else page
        original = there.with_name(MARK.sub("", there.name))
        if anchor and original in TRANSLATED:
            within = headings(text if there == page else there.read_text(encoding="utf-8"))
            found.append((str(original), within.index(anchor) if anchor in within else anchor))
        else:
            found.append((str(original), anchor))
    return sorted(found, key=str)


def differences(page: Path, english: str, chinese: str) -> Iterator[str]:
    """Say in what a page and its translation differ, up to the first part that one of them lacks."""
    for one, other in zip_longest(parts(english), parts(chinese)):
        if one is None or other is None or one.kind != other.kind:
            yield f"{one and one.text!r} against {other and other.text!r}"
            return
        if one.kind.startswith("```"):
            for line, translated in zip_longest(pieces(one), pieces(other), fillvalue=""):
                if not is_same_piece(one.kind, line, translated):
                    yield f"{line!r} against {translated!r}"
        elif (
            set(CODE.findall(one.text)) != set(CODE.findall(other.text))
            or sorted(NUMBER.findall(prose(one))) != sorted(NUMBER.findall(prose(other)))
            or links(one, page, english) != links(other, TRANSLATED[page], chinese)
        ):
            yield f"{one.text!r} against {other.text!r}"


def test_readme_and_tutorial_are_there_in_chinese() -> None:
    assert {"README.zh-CN.md", "tutorial.zh.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.name)
def test_a_page_says_the_same_in_both_languages(page: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in (page, TRANSLATED[page])]
    differ = "\n".join(differences(page, *texts))
    assert not differ, f"change {page.name} and {TRANSLATED[page].name} together"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("$ oelm init --study script", "$ oelm init --study reference"),
        ("$ oelm fetch --tag server\n", ""),
        ("### A verdict\n\n", ""),
        ("### A verdict", "## A verdict"),
        ("- `H1` says", "`H1` says"),
        ("steps = 400", "steps = 500"),
        ("go along with `--send-data`", "are sent"),
        ("3, 5 and 8", "3, 5 and 9"),
        ("2.4031", "2.4032"),
        ("](report.md)", "](statistics.md)"),
        ("](#the-other-kind-of-study)", "](#on-a-server)"),
        ("host = \"gpu1\"                                # an alias of ~/.ssh/config", "host = \"gpu1\""),
    ],
)  # fmt: skip
def test_what_changes_in_one_language_alone_is_noticed(before: str, after: str) -> None:
    page = REPOSITORY / "docs" / "tutorial.md"
    texts = [path.read_text(encoding="utf-8") for path in (page, TRANSLATED[page])]
    assert before in texts[0]
    changed = list(differences(page, texts[0].replace(before, after), texts[1]))
    assert set(changed) - set(differences(page, *texts))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_chinese_page_leads_to_chinese_pages_where_there_are_some(page: Path) -> None:
    for part in parts(page.read_text(encoding="utf-8")):
        if not part.text.startswith("[English]"):
            there = {(page.parent / match[0]).resolve() for match in LINK.findall(part.text)}
            assert not there & set(TRANSLATED), part.text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_chinese_page_has_the_words_and_the_type_of_the_screens(page: Path) -> None:
    for part in parts(page.read_text(encoding="utf-8")):
        text = prose(part)
        if not part.kind.startswith("```") and CHINESE.search(text):
            others = [word for word in ANOTHER_WORD if word in OTHER_MEANINGS.sub("", text)]
            assert not others, (text, [ANOTHER_WORD[word] for word in others])
            assert not re.search("[一-鿿] ?[,;:!?]|[,;!?] ?[一-鿿]|[，。；：？！（）] ", text), text
            assert not re.search("[一-鿿][A-Za-z0-9]|[A-Za-z0-9%][一-鿿]|[一-鿿]\n", text), text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_chinese_page_shows_of_screens_is_what_they_say(page: Path) -> None:
    words = f"{CHINESE.pattern}+"  # of which what is filled in has some more
    said = {piece for _, chinese, _ in chinese_sentences() for piece in re.findall(words, chinese)}
    composed = re.compile(f"(?:{'|'.join(sorted(said, key=len, reverse=True))})+")
    for part in parts(page.read_text(encoding="utf-8")):
        if part.kind in ("```console", "```text"):
            shown = "\n".join(piece for piece in pieces(part) if not piece.startswith("$ "))
            assert [piece for piece in re.findall(words, shown) if not composed.fullmatch(piece)] == []
