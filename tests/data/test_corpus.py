"""Tests of how files become documents."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from oelm_jobs.data import corpus
from oelm_jobs.data.corpus import DocumentPiece, cut_documents, cut_tail, find_files, read_documents, split_by_name
from oelm_jobs.data.text_files import TextFile
from oelm_jobs.data.token_folder import END_OF_TEXT, Oddities
from oelm_jobs.data.tokenizer import encode
from oelm_jobs.errors import DataError
from tests.data.stories import STORIES, write_parquet, write_stories


def joined(pieces: list[DocumentPiece]) -> list[str]:
    """Put the pieces of each document together, checking that their marks fit."""
    documents: list[str] = []
    open_ = False
    for piece in pieces:
        assert piece.first is not open_
        if piece.first:
            documents.append("")
        documents[-1] += piece.text
        open_ = not piece.last
    assert not open_
    return documents


def read(path: Path, **options: str) -> list[str]:
    (file,) = find_files([path])
    return joined(list(read_documents(file, **options)))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "train-00000-of-00004-abc.parquet"])
def test_every_form_gives_the_same_documents(tmp_path: Path, name: str) -> None:
    assert read(write_stories(tmp_path / name, STORIES)) == STORIES


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_blank_ends_and_empty_documents_vanish_and_a_separator_always_separates(tmp_path: Path, name: str) -> None:
    path = write_stories(tmp_path / name, ["\n one ", "", "\t\n", f"two{END_OF_TEXT} three{END_OF_TEXT}"])
    assert read(path) == ["one", "two", "three"]


@given(text=st.text(alphabet="ab \n") | st.text(), sizes=st.lists(st.integers(1, 9), min_size=1))
@example(text=f"a{END_OF_TEXT}{END_OF_TEXT} b {END_OF_TEXT}", sizes=[1])
@example(text="a" * 100, sizes=[3])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_documents_and_pieces_do_not_depend_on_how_the_text_is_read(
    text: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "PIECE_CHARS", 30)
    monkeypatch.setattr(corpus, "LOOKAHEAD_CHARS", 20)
    chunks, rest = [], text
    while rest:
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(rest[:size])
        rest = rest[size:]
    pieces = list(cut_documents(chunks))
    expected = [part.strip() for part in text.split(END_OF_TEXT) if part.strip()]
    assert joined(pieces) == expected
    whole = [piece for document in expected for piece in cut_documents([document])]
    assert [piece.text for piece in pieces if piece.first] == [piece.text for piece in whole if piece.first]


@given(
    words=st.lists(
        st.text(min_size=1, max_size=8) | st.sampled_from(["it's", "'ll", "12", "!?", "naïve", "🙂🙂"]), min_size=1
    ),
    blanks=st.lists(st.sampled_from([" ", "\n", "  ", "\n\n", "\t", " \n ", "\u00a0", "\r\n"]), min_size=1),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cutting_a_long_document_at_a_lone_blank_changes_no_token(
    words: list[str], blanks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "PIECE_CHARS", 10)
    monkeypatch.setattr(corpus, "LOOKAHEAD_CHARS", 60)
    text = "".join(word + blanks[index % len(blanks)] for index, word in enumerate(words)).strip()
    pieces = [piece.text for piece in cut_documents([text])]
    if all(piece[0] in " \n" for piece in pieces[1:]):  # else there was no such blank, and any place had to do
        assert b"".join(encode(piece, 50257) for piece in pieces) == encode("".join(pieces), 50257)


def test_a_document_larger_than_a_piece_comes_in_pieces_that_encode_as_the_whole(tmp_path: Path) -> None:
    text = " ".join(STORIES * 12).replace(END_OF_TEXT, "")
    assert len(text) > 2 * corpus.PIECE_CHARS
    (tmp_path / "long.txt").write_text(text, encoding="utf-8")
    pieces = list(read_documents(find_files([tmp_path / "long.txt"])[0]))
    assert len(pieces) > 1
    assert max(len(piece.text) for piece in pieces) <= corpus.PIECE_CHARS + corpus.LOOKAHEAD_CHARS
    assert b"".join(encode(piece.text, 50257) for piece in pieces) == encode(text, 50257)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "hello"}\n\n')
    assert read(tmp_path / "a.txt") == read(tmp_path / "a.jsonl") == ["hello"]


def test_another_field_can_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"story": "x", "text": 1}\n{"story": null}\n')
    write_parquet(tmp_path / "a.parquet", {"story": ["x", None]}, 1)
    assert read(tmp_path / "a.jsonl", field="story") == read(tmp_path / "a.parquet", field="story") == ["x"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.txt", "naïve".encode("latin-1"), r"latin\.txt is not UTF-8 text \(byte 2 is 0xef\)"),
        ("late.txt", b"a" * (1 << 20) + b"b\xff", r"byte 1048577 is 0xff"),
        ("cut.txt", "雪".encode()[:2], r"is not UTF-8 text \(byte 0 is 0xe9\)"),
        ("wide.txt", "hello".encode("utf-16"), r"wide\.txt is UTF-16 text, not UTF-8"),
        ("wide.jsonl", '{"text": "x"}\n'.encode("utf-16"), r"wide\.jsonl is UTF-16 text, not UTF-8"),
        ("binary.txt", bytes(range(32)), r"holds zero bytes"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', r"a\.jsonl: the line at byte 14 is not JSON"),
        ("a.jsonl", b'["x"]\n', r"is no object: \[\"x\"\]"),
        ("a.jsonl", b'{"txt": "x", "id": 1}\n', r"no field 'text'; did you mean 'txt'\? valid: id, txt"),
        ("a.jsonl", b'{"text": 3}\n', r"field 'text', is no text but int"),
        ("a.jsonl", b'{"text": "\xff"}\n', r"is not JSON"),
        ("a.jsonl", b'{"text": "x", "n": nan}\n', r"is not JSON"),
    ],
)
def test_text_that_is_not_what_its_name_says_is_refused_with_the_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_parquet_that_is_none_or_lacks_the_column_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
    (tmp_path / "a.parquet").write_text("PAR1 but no more")
    with pytest.raises(DataError, match=r"a\.parquet is not a parquet file"):
        read(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.parquet")
    assert "git lfs pull" in caught.value.hint
    write_parquet(tmp_path / "a.parquet", {"texts": ["x"], "n": ["y"]}, 1)
    with pytest.raises(DataError, match=r"no column 'text'; did you mean 'texts'\? valid: n, texts"):
        read(tmp_path / "a.parquet")
    write_parquet(tmp_path / "a.parquet", {"text": [1, 2]}, 1)
    with pytest.raises(DataError, match=r"row 0, column 'text', is no text but int"):
        read(tmp_path / "a.parquet")


def test_without_pyarrow_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match="needs pyarrow") as caught:
        read(tmp_path / "a.parquet")
    assert "oelm-jobs[parquet]" in caught.value.hint


def test_a_missing_source_names_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "tiny.txt").touch()
    with pytest.raises(DataError, match=r"tinny\.txt does not exist.*did you mean 'tiny\.txt'"):
        find_files([tmp_path / "tinny.txt"])
    with pytest.raises(DataError, match="does not exist"):
        find_files([tmp_path / "no" / "such.txt"])


def test_a_source_of_an_unknown_kind_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.docx").touch()
    with pytest.raises(DataError, match=r"can't read \.docx; valid: \.txt, \.jsonl"):
        find_files([tmp_path / "a.docx"])
    with pytest.raises(DataError, match=r"holds no text; valid: files that end in \.txt"):
        find_files([tmp_path])


def test_a_folder_is_searched_in_depth_in_order_without_hidden_files_each_file_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/y.jsonl", ".git/x.txt", ".hidden.txt", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in find_files([tmp_path, tmp_path / "b.txt"])] == ["a/y.jsonl", "a/z.txt", "b.txt"]


@pytest.mark.parametrize(
    ("names", "validation"),
    [
        (["TinyStories-train.txt", "TinyStories-valid.txt"], ["TinyStories-valid.txt"]),
        (
            ["train-00000-of-00004-a.parquet", "validation-00000-of-00001-b.parquet"],
            ["validation-00000-of-00001-b.parquet"],
        ),
        (["train.txt", "val.txt", "valley.txt", "dev.jsonl"], ["val.txt", "dev.jsonl"]),
        (["valid.txt"], []),
    ],
)
def test_what_its_publisher_called_validation_stays_validation(names: list[str], validation: list[str]) -> None:
    files = [TextFile(path=Path(name), name=name, kind="text") for name in names]
    train, val = split_by_name(files)
    assert [file.name for file in val] == validation
    assert [file.name for file in train] == [name for name in names if name not in validation]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_a_tail_is_cut_between_documents_and_loses_none(tmp_path: Path, name: str) -> None:
    (file,) = find_files([write_stories(tmp_path / name, STORIES)])
    head, tail = (joined(list(read_documents(part))) for part in cut_tail(file, 0.1))
    assert head + tail == STORIES
    assert 20 <= len(tail) <= 60


@pytest.mark.parametrize("blank", ["\n\n", "\n", " ", ""])
def test_a_plain_text_is_cut_at_its_best_blank_and_never_inside_a_character(tmp_path: Path, blank: str) -> None:
    text = f"雪ïab{blank}" * 999
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (file,) = find_files([tmp_path / "a.txt"])
    head, tail = cut_tail(file, 0.05)
    content = (tmp_path / "a.txt").read_bytes()
    assert content[: head.stop].decode() + content[tail.start :].decode() == text
    assert content[: head.stop].decode().endswith(blank)
    assert 0.04 < len(content[tail.start :]) / len(content) < 0.06


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    for name in ("a.txt", "a.jsonl", "a.parquet"):
        (file,) = find_files([write_stories(tmp_path / name, STORIES)])
        told: list[int] = []
        list(read_documents(file, advance=told.append))
        assert sum(told) == pytest.approx(file.path.stat().st_size, abs=len(told))


def test_each_chapter_of_the_novels_is_a_document() -> None:
    documents = joined(list(read_documents(corpus.novels())))
    chapters = [document for document in documents if document.lower().startswith("chapter")]
    assert len(chapters) == 269
    assert max(len(document) for document in documents) < 60_000
    assert "Emma Woodhouse, handsome, clever, and rich" in chapters[0]


def test_json_of_any_escape_is_the_text_itself(tmp_path: Path) -> None:
    text = 'a "quoted"\\ line\nwith 雪 and 🙂'
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=True) + "\n")
    assert read(tmp_path / "a.jsonl") == [text]


def test_tokens_of_the_separator_are_one_id() -> None:
    assert np.frombuffer(encode(f"x{END_OF_TEXT}y", 1024), "<u2").tolist().count(1023) == 1


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-16", "UTF-16"),  # PowerShell's > and Notepad's "Unicode"
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("utf-32", "UTF-32"),
        ("gb18030", "GB18030"),
        ("cp1252", "CP1252"),
        ("latin-1", "LATIN1"),
    ],
)
def test_the_conversion_that_is_advised_makes_the_text_readable(tmp_path: Path, encoding: str, named: str) -> None:
    text = {
        "gb18030": "从前有一个小女孩，她叫丽丽。\r\n她喜欢 red 球。\r\n",
        "cp1252": "\u201cOnce\u201d upon a time, in a caf\xe9, there was \xe9t\xe9.\r\n",
        "latin-1": "Once upon a time in a caf\xe9 there was \xe9t\xe9 and na\xefvet\xe9.\r\n",
    }.get(encoding, "Once upon a time, in a caf\xe9.\r\nThe end.\r\n")
    path = tmp_path / "a story.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError) as caught:
        read(path)
    command = caught.value.hint.partition("convert it: ")[2]
    assert f"-f {named} " in command
    subprocess.run(["sh", "-c", command], check=True, cwd="/")
    assert read(tmp_path / "a story.utf8.txt") == [text.strip()]


def test_lines_that_their_writers_parser_reads_are_read_and_counted(tmp_path: Path) -> None:
    lines = [
        '{"text": "one", "score": NaN}',
        '{"text": "two", "score": [1, -Infinity], "deep": {"x": Infinity}}',
        json.dumps({"text": "three", "other": float("nan")}),
        '{"text": NaN}',  # pandas' missing value, like null
        r'{"text": "half \ud83d of it"}',
        r'{"text": "whole \ud83d\ude00"}',
        '{"text": "six", "n": 1e999}',
    ]
    raw = "\n".join(lines).encode() + b'\n{"text": "as bytes \xed\xa0\xbd\xed\xb8\x80 and \xed\xa0\xbd"}\n'
    (tmp_path / "a.jsonl").write_bytes(raw)
    oddities = Oddities()
    (file,) = find_files([tmp_path / "a.jsonl"])
    found = joined(list(read_documents(file, oddities=oddities)))
    assert found == [
        "one", "two", "three", "half \ufffd of it", "whole \U0001f600", "six", "as bytes \U0001f600 and \ufffd"
    ]  # fmt: skip
    assert (oddities.not_finite, oddities.surrogates) == (4, 2)
