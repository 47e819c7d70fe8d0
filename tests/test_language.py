"""All text can be read in Chinese: every sentence that the code can print has its template in the catalogue."""

from __future__ import annotations

import ast
import copy
import importlib
import itertools
import json
import os
import re
import string
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pytest

from oelm_jobs import language
from oelm_jobs.agent.sentences import _, joined, names
from oelm_jobs.cli import common, doctor, hosts, view
from oelm_jobs.cli.main import COMMANDS
from oelm_jobs.errors import few
from tests.support import REPOSITORY
from tools import translations

TOOLKIT = "oelm_jobs"
"""Folder in which every text of several words counts as a sentence, unless something here says that it is none."""
MARKS = {"_", "Sentence"}
"""What marks a sentence for the catalogues: its arguments are looked up as templates, not as finished sentences."""
UNREAD_CALLS = {
    "AssertionError", "AttributeError",  # never said
    "add_argument", "ArgumentParser",  # the agent's own command line, which programs call
    "endswith", "findall", "fullmatch", "match", "partition", "removeprefix", "replace", "search", "search_runs",
    "split", "startswith", "sub",  # looked for, not printed
    "execute", "executemany",  # SQL
    "add_column", "field", "metavar",
}  # fmt: skip
"""Functions whose text arguments nobody reads."""
UNREAD = re.compile(
    r"CREATE |ALTER |SELECT |WHERE |INSERT |UPDATE |DELETE |PRAGMA |BEGIN "  # SQL in variables
    r"|import |from \S+ import |exec |echo ⟦x⟧|if ! |(?:el)?if \[ |-c \"|\[ ! |mkdir "  # commands
    r"|oelm-data demo$|oelm-data make TEXT"
    r"|command -v |printf |Submitted batch job "
    r"|# |Not submitted: "  # comments in files that are written: they stay in the language of the files around them
    r"|%Y-|setup = |\{?\"[a-z]+\": |⟦x⟧ h ⟦x⟧ min$|⟦x⟧ here$|Application Support$"  # formats, names
    r"|--key value$|[A-Z ]+$|.*\(\?"  # marks in what others print, and patterns
    r"|oelm-submit --study ⟦x⟧ --target ⟦x⟧ --send-data$|pip install (?:wandb|mlflow)$|wandb login$"  # to be typed
    r"|⟦x⟧ -m pip install$|⟦x⟧ torch --index-url"
    r"|HTTP ⟦x⟧|Bearer ⟦x⟧|application/json; "  # HTTP's own
    r"|bash, rsync$|No module named 'torch'$"
    r"|(?:not running|still ending|signal ⟦x⟧|node failure|another process of the run has ended)$"
    r"|the request ended in the middle|… cut here"  # said before the agent is there; within a recorded diff
)
"""Beginnings of texts that are no sentences."""
PLACEHOLDER = "⟦x⟧"
"""Stands for what is filled in; the catalogue leaves it as it is."""

IN_LOGS = (
    "processes.py", "start.py", "supervise.py", "host/host.py", "run/admission.py", "run/script.py", "run/work.py",
    "slurm/job.py", "__main__.py", "oelm_run.py", "notify/telling.py",
)  # fmt: skip
"""Modules of the agent whose words go into logs, or into messages from where no catalogue is: these are English."""


def text_of(node: ast.AST) -> list[str]:
    """Return the texts that an expression can be, placeholders marked; none where nothing is known of it."""
    if isinstance(node, ast.Constant):
        return [re.sub(r"%[-+0-9.]*[sdfrg]", PLACEHOLDER, node.value)] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        parts = [text_of(part) or [PLACEHOLDER] for part in node.values]
        return ["".join(choice) for choice in itertools.islice(itertools.product(*parts), 64)]
    if isinstance(node, ast.FormattedValue):
        return text_of(node.value)
    if isinstance(node, ast.IfExp):
        return (text_of(node.body) or [PLACEHOLDER]) + (text_of(node.orelse) or [PLACEHOLDER])
    if isinstance(node, ast.BoolOp):
        return [text for value in node.values for text in text_of(value) or [PLACEHOLDER]]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return text_of(node.left)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        lefts, rights = text_of(node.left), text_of(node.right)
        if not lefts and not rights:
            return []
        return [left + right for left in lefts or [PLACEHOLDER] for right in rights or [PLACEHOLDER]]
    return []


def _inner(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a text expression whose own texts are not parts of its texts."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Constant, ast.JoinedStr, ast.FormattedValue, ast.IfExp, ast.BoolOp, ast.BinOp)):
            yield from _inner(child)
        else:
            yield child


def _texts(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield (text, line) of all that people may read below a node: no docstrings, types, keys or things compared."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, (ast.Compare, ast.Subscript)):
        return
    if isinstance(node, ast.Assign) and any(ast.unparse(target).endswith("_WORDS") for target in node.targets):
        return  # what other programs say, to be recognised
    if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in UNREAD_CALLS:
        return
    children: Iterable[ast.AST | None]
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in MARKS:
        children = node.keywords
    elif isinstance(node, ast.FunctionDef):
        children = [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults, *node.body]
    elif isinstance(node, ast.AnnAssign):
        children = [node.value]
    elif isinstance(node, ast.Dict):
        children = node.values
    elif isinstance(node, ast.expr) and (texts := text_of(node)):
        yield from ((text, node.lineno) for text in texts)
        children = _inner(node)
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        if child is not None:
            yield from _texts(child)


def unmarked() -> Iterator[str]:
    """Yield every text of several words that people may read and no mark makes a sentence, with its place."""
    for path in sorted((REPOSITORY / TOOLKIT).rglob("*.py")):
        if path.is_relative_to(REPOSITORY / TOOLKIT / "agent") and str(path).endswith(IN_LOGS):
            continue
        for text, line in _texts(ast.parse(path.read_text(encoding="utf-8"))):
            for part in () if UNREAD.match(text.strip()) else text.split("\n"):
                letters = sum(c in string.ascii_letters for c in re.sub(r"⟦x⟧|--[a-z-]+", "", part))
                if letters > 3 and " " in part.strip() and not UNREAD.match(part.strip()):
                    yield f"{path.relative_to(REPOSITORY)}:{line}: {part.strip()}"


def marked() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call that marks a sentence, with its place."""
    for folder in translations.FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in MARKS and path.name != "sentences.py":
                    yield f"{path.relative_to(REPOSITORY)}:{node.lineno}", node


@pytest.fixture(autouse=True)
def chinese() -> Iterator[None]:
    language.choose("zh")
    yield
    language.choose("en")


def test_every_sentence_is_marked() -> None:
    assert list(unmarked()) == []


def test_the_trainers_errors_are_marked() -> None:
    found = []
    for path in sorted((REPOSITORY / "train").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            said = node.exc if isinstance(node, ast.Raise) else node
            name = getattr(said.func, "id", "") if isinstance(said, ast.Call) else ""
            is_error = isinstance(node, ast.Raise) and name != "ValueError"  # a ValueError is read in the log alone
            if said and (is_error or name == "_require"):
                found += [f"{path.name}:{line}: {text}" for text, line in _texts(said) if " " in text.strip()]
    assert found == []


def test_words_of_tables_are_marked() -> None:
    marks = [mark for mark, _colour in doctor.MARKS.values()]
    words = {*view.HEADERS, *hosts.HEADERS, *hosts.PARTITION_HEADERS, *marks}
    assert [word for word in words if not _has_chinese(language.translated(word))] == []
    found = {
        str(each.value)
        for path in (REPOSITORY / TOOLKIT / "checks").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Finding", "good", "warning", "bad")
        for each in [*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg == "what")]
        if isinstance(each, ast.Constant)
    }
    assert found == {"torch", "slurm", "sbatch", "bash, rsync"}


def test_a_marked_sentence_is_a_template_that_its_values_fit() -> None:
    for where, call in marked():
        template = call.args[0]
        assert isinstance(template, ast.Constant) and isinstance(template.value, str), where
        wanted = names(template.value)
        assert re.sub(r"[{][{]|[}][}]|[{]\w+(![rs])?(:[^{}]*)?[}]", "", template.value).count("{") == 0, where
        is_of_a_table = where.startswith("oelm_jobs/agent/reasons.py") and len(call.args) == 1 and not call.keywords
        if is_of_a_table or any(keyword.arg is None for keyword in call.keywords):
            continue
        given = [*wanted[: len(call.args) - 1], *(keyword.arg for keyword in call.keywords)]
        assert len(call.args) - 1 <= len(wanted) and sorted(given) == sorted(wanted), where


def test_help_is_whole() -> None:
    commands = [importlib.import_module(f"oelm_jobs.cli.{name.replace('-', '_')}").main for name in COMMANDS]
    below = [command for group in commands if isinstance(group, click.Group) for command in group.commands.values()]
    for command in map(copy.copy, [*commands, *below]):  # each keeps its help option in the language of the first time
        with language.of_click():
            shown = command.get_help(click.Context(command, info_name=command.name, **command.context_settings))
        assert _has_chinese(shown) and not re.search(r"[a-z]{2,},? [a-z]{2,} [a-z]{2,}|default:", shown), shown
        listed = [line for line in shown.splitlines() if re.match(r"  (-|[a-z]+  )", line) and len(line.split()) > 2]
        assert all(map(_has_chinese, listed)), shown


@pytest.mark.parametrize(
    ("name", "argv", "expected"),
    [
        ("submit", ["--sedes", "3"], "没有选项 '--sedes'。是不是想用 '--seeds', '--set', '--yes'？"),
        ("submit", ["--mode", "both"], "'--mode' 的值无效：'both' 不在可选值之中：'sequential', 'parallel'。"),
        ("submit", ["--num-seeds", "0"], "'--num-seeds' 的值无效：0 超出范围 1<=x<=10000。"),
        ("logs", [], "缺少参数 'RUN'。"),
        ("logs", ["a", "b", "c"], "多余的参数：b c"),
        ("logs", ["a", "-n"], "选项 '-n' 需要 1 个值。"),
        ("report", ["--style", "no-such"], "'--style' 的值无效：路径 'no-such' 不存在。"),
    ],
)
def test_click_speaks_chinese(name: str, argv: list[str], expected: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        importlib.import_module(f"oelm_jobs.cli.{name.replace('-', '_')}").main.main(argv, standalone_mode=False)
    with language.of_click():
        assert language.click_says(caught.value.format_message()) == expected


@pytest.mark.parametrize("own", [None, "fr"])
def test_what_a_command_starts_keeps_the_language_of_the_user(own: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LANGUAGE", raising=False)
    if own is not None:
        monkeypatch.setenv("LANGUAGE", own)
    seen = []

    @common.command("oelm-try")
    def command() -> None:
        seen.append(os.environ.get("LANGUAGE"))

    command.main([], standalone_mode=False)
    with pytest.raises(click.UsageError, match="没有选项"):
        command.main(["--no-such"], standalone_mode=False)
    assert [*seen, os.environ.get("LANGUAGE")] == [own, own]


def test_the_users_own_words_and_foreign_ones_stay() -> None:
    label = "Does loss 3; or more, harm: no such file?"
    assert language.translated(label) == label
    assert language.translated_help("") == ""  # gettext says its header for it
    question = _("  question  {question}", label)
    assert language.translated(question) == f"  问题      {label}"
    failed = _("{target}: {why}", "gpu1: a", _("{command}: {why}", "squeue", "slurmctld: no; such file"))
    assert language.translated(failed) == "gpu1: a：squeue：slurmctld: no; such file"


@pytest.mark.parametrize(
    ("metric", "group", "expected"),
    [
        (_("training speed"), "a", "a 的训练速度比 b 低 5 %"),
        ("val_loss", "a", "a 的 val_loss 比 b 低 5 %"),
        ("val_loss", "大", "大的 val_loss 比 b 低 5 %"),
    ],
)
def test_chinese_and_latin_letters_stand_apart_whatever_is_filled_in(metric: str, group: str, expected: str) -> None:
    sentence = "The {metric} of {group} is {percent} below that of {against} ({a} against {b})."
    assert expected in language.translated(_(sentence, metric, group, "5 %", "b", "1", "2"))


def test_sentences_in_sentences_are_translated() -> None:
    why = joined([_("nothing was cancelled there"), "", _("{what}: {details}", _("no such file"), ["a", "b"])])
    assert language.translated(_("[{number}]{wrong}", 1, _("no such file"))) == "[1]没有该文件"
    many = [f"n{number}" for number in range(12)]
    assert language.translated(few(many[:2])) == "n0、n1" and language.translated(few(many)).startswith("n0、n1、n2、")
    assert language.translated(joined(["x; y", why])) == "x; y；那里没有取消任何运行；没有该文件：a、b"


def _has_chinese(text: str) -> bool:
    return bool(re.search("[一-鿿（）：；，、]", text))


def test_commands_speak_chinese_and_keep_what_programs_read(oelm, project: Path) -> None:
    assert _has_chinese(oelm("status", "--help", "--lang", "zh").stdout)
    failed = oelm("submit", "--study", "tinny", "--lang", "zh", check=False)
    assert failed.returncode == 2 and _has_chinese(failed.stderr) and "'tiny'" in failed.stderr
    assert json.loads(oelm("status", "--json", "--lang", "zh").stdout)["version"] == 1
