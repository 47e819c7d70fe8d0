"""The catalogues are complete, and what they say is what the sentences say."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from oelm_jobs import language
from oelm_jobs.agent.sentences import names
from tools import translations

COMMAND_LINE = re.compile(r"`[^`]*`|\b(?:apt|brew|pip|git|ssh-keygen|oelm-[a-z]+|sbatch|python) [^；，。（）]*")
"""What stays English in a translation: words to type."""
ANOTHER_WORD = {
    "文件夹": "目录",
    "你": "您",
    "训练器": "训练程序",
    "因子": "因素",
    "目标": "目标机",
    "忘掉": "忘记",
    "词汇表": "词表",
    "每次运行": "每个运行",
}
"""One word for one idea: what isn't said in Chinese, and what is said in its place."""
OTHER_MEANINGS = re.compile("目标(?:机|函数|词元|步数|值)")


@pytest.mark.parametrize("code", [code for code in language.LANGUAGES if code != "en"])
def test_catalogues_are_complete_and_compiled(code: str) -> None:
    path = translations.LOCALE / code / "LC_MESSAGES" / "oelm_jobs.po"
    new = translations.brought_up_to_date(translations.read(path), translations.collected())
    missing = translations.missing(new)
    assert not missing, "translate these in the .po file, then run python tools/translations.py:\n" + "\n".join(missing)
    assert path.read_bytes() == translations.as_po(new), "python tools/translations.py brings it up to date"
    assert path.with_suffix(".mo").read_bytes() == translations.as_mo(new), "python tools/translations.py compiles it"


def chinese_sentences() -> Iterator[tuple[str, str, bool]]:
    """Yield (English, Chinese, whether click says it) of the catalogue; of what has plural forms, the plural."""
    for message in translations.read(translations.LOCALE / "zh" / "LC_MESSAGES" / "oelm_jobs.po"):
        is_click = any(place == translations.CLICK for place, _line in message.locations)
        if isinstance(message.id, tuple):
            yield message.id[1], message.string[0], is_click
        elif message.id:
            yield message.id, str(message.string), is_click


def test_translations_keep_the_placeholders() -> None:
    for english, chinese, is_click in chinese_sentences():
        assert set(names(chinese)) <= set(names(english)), english
        assert is_click or set(names(chinese)) == set(names(english)), english


def test_translations_are_whole() -> None:
    for english, chinese, is_click in chinese_sentences():
        prose = COMMAND_LINE.sub("", re.sub(r"[{][^{}]*[}]", "", chinese))
        assert not re.search(r"[a-z]{2,},? [a-z]{2,} [a-z]{2,}", prose), (english, chinese)
        letters = re.findall(r"[A-Za-z]{2,}", COMMAND_LINE.sub("", re.sub(r"[{][^{}]*[}]", "", english)))
        assert is_click or _has_chinese(chinese) or len(letters) < 3, english


def test_chinese_has_one_word_for_one_idea() -> None:
    for english, chinese, _is_click in chinese_sentences():
        others = [word for word in ANOTHER_WORD if word in OTHER_MEANINGS.sub("", chinese)]
        assert not others, (english, chinese, [ANOTHER_WORD[word] for word in others])


def test_chinese_is_set_as_chinese() -> None:
    """Full-width punctuation, and a blank between Chinese and Latin letters or digits."""
    for english, chinese, _is_click in chinese_sentences():
        text = re.sub(r"[{][^{}]*[}]", "_", chinese)
        assert not re.search("[一-鿿] ?[,;:!?]|[,;!?] ?[一-鿿]|[，。；：？！（）] (?! )", text), (english, chinese)
        assert not re.search("[一-鿿][A-Za-z0-9]|[A-Za-z0-9%][一-鿿]", text), (english, chinese)


def _has_chinese(text: str) -> bool:
    return bool(re.search("[一-鿿（）：；，、]", text))


def test_no_sentence_sends_to_a_file_that_an_installation_lacks() -> None:
    sentences = [str(message.id) for message in translations.collected() if message.id]
    assert sentences and not [each for each in sentences if re.search(r"docs/|README|\.md\b", each)]
