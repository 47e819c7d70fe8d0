"""All text can be read in Chinese: every sentence that the code can print has its template in the catalogue."""

from __future__ import annotations

import ast
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
from oelm_jobs.cli import common, doctor, hosts, view
from oelm_jobs.cli.main import COMMANDS
from tests.support import REPOSITORY

TOOLKIT = "oelm_jobs"
"""Folder in which every text of several words counts as a sentence, unless something here says that it is none."""
TRAINER = "train"
"""Folder of which only errors reach the toolkit's output: a study's values that can't be, and why a run failed."""
TRAINER_SPEAKING = {"_require", "_diverge", "_choose", "advice"}
"""Functions of the trainer whose arguments, or results, are part of an error."""

MARKS = {"_", "Sentence"}
"""What marks a sentence for the catalogues: its arguments are looked up as templates, not as finished sentences."""
UNREAD_CALLS = {
    "AssertionError", "AttributeError",  # never said
    "add_argument", "ArgumentParser",  # the agent's own command line, which programs call
    "endswith", "findall", "fullmatch", "match", "partition", "removeprefix", "replace", "search", "split",
    "startswith", "sub",  # looked for, not printed
    "execute", "executemany",  # SQL
    "add_column", "field", "metavar",
}  # fmt: skip
"""Functions whose text arguments nobody reads."""
UNREAD = re.compile(
    r"CREATE |ALTER |SELECT |INSERT |UPDATE |DELETE |PRAGMA |BEGIN "  # SQL in variables
    r"|import |from \S+ import |exec |echo ⟦x⟧|if ! |(?:el)?if \[ |-c \"|\[ ! |mkdir "  # commands
    r"|oelm-data demo$|oelm-data make TEXT"
    r"|command -v |printf |Submitted batch job "
    r"|# |Not submitted: "  # comments in files that are written: they stay in the language of the files around them
    r"|%Y-|setup = |\{?\"[a-z]+\": |⟦x⟧ h ⟦x⟧ min$|⟦x⟧ here$|Application Support$"  # formats, names
    r"|[A-Z ]+$|.*\(\?"  # marks in what others print, and patterns
)
"""Beginnings of texts that are no sentences."""
COMMAND_LINE = re.compile(r"`[^`]*`|\b(?:apt|brew|pip|git|ssh-keygen|oelm-[a-z]+|sbatch|python) [^；，。（）]*")
"""What stays English in a translation: words to type."""
PLACEHOLDER = "⟦x⟧"
"""Stands for what is filled in; the catalogue leaves it as it is."""

CLICK = (
    "Usage:", "Options", "Commands", "Show this message and exit.", "Show the version and exit.",
    "No such option '--foo'.", "No such option '--sedes'. Did you mean '--seeds'?",
    "No such option '--se'. (Did you mean one of: '--seed', '--seeds'?)",
    "No such command 'sumbit'.", "No such command 'sumbit'. Did you mean 'submit'?",
    "No such command 'x'. (Did you mean one of: 'a', 'b'?)", "Missing command.",
    "Missing argument 'RUN'.", "Missing option '--output'.", "Missing parameter: x",
    "Invalid value: x", "Got unexpected extra argument (x)", "Got unexpected extra arguments (x y)",
    "Invalid value for '--lines' / '-n': 'x' is not a valid integer range.",
    "Invalid value for '--lines': -1 is not in the range x>=0.",
    "Invalid value for '--port': 70000 is not in the range 0<=x<=65535.",
    "Invalid value for '--mode': 'both' is not one of 'sequential', 'parallel'.",
    "Invalid value for '--target-loss': 'x' is not a valid float.",
    "Invalid value for '--vocab': 'x' is not a valid integer.",
    "Invalid value for '--style': File 'x.mplstyle' does not exist.",
    "Invalid value for '--val': Path 'x' does not exist.",
    "Invalid value for '--output': Directory 'x' is a file.", "Invalid value for '--style': File 'x' is a directory.",
    "Invalid value for 'X': Path 'x' is not readable.", "Invalid value for 'X': Directory 'x' is not writable.",
    "Option '--study' requires an argument.", "Option '--watch' does not take a value.",
    "Argument 'sources' takes 2 values.", "Option '--x' requires 2 arguments.",
    "Could not open file 'x': No such file or directory",
    "How many of the last lines.  [default: 50]", "How many of the last lines.  [default: 50; x>=0]",
    "The study's seeds, continued upward to N of them.  [x>=1]", "Folder to make.  [required]",
    "With --host: its port.  [0<=x<=65535]",
)  # fmt: skip
"""What click itself says (exceptions.py, types.py, parser.py and core.py of click 8.2 to 8.5)."""
SYSTEM = (
    "/x/y: No such file or directory", "/x: can't be written: [Errno 28] No space left on device: '/x/y'",
    "/x: can't be read: [Errno 13] Permission denied: '/x'", "error: disk full", "out of memory",
)  # fmt: skip
"""What comes from the operating system inside sentences."""


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


def _trainer_texts(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield (text, line) of the trainer's errors."""
    for node in ast.walk(tree):
        name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        is_error = name.endswith("Error") or name in ("DiskFull", "NoGpu", "PeerLost", "Diverged", "OutOfMemory")
        if isinstance(node, ast.Call) and (is_error or name in TRAINER_SPEAKING):
            yield from ((text, node.lineno) for argument in node.args for text in text_of(argument))
        elif isinstance(node, ast.FunctionDef) and node.name in TRAINER_SPEAKING:
            yield from (found for part in node.body if isinstance(part, (ast.If, ast.Return)) for found in _texts(part))


def _help_texts(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield (paragraph, line) of what commands say in their help."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(
            re.search("command|group", ast.unparse(decorator)) for decorator in node.decorator_list
        ):
            doc = ast.get_docstring(node) or ""
            yield from ((" ".join(paragraph.split()), node.lineno) for paragraph in doc.split("\n\n"))


def sentences() -> dict[str, str]:
    """Return every sentence that people may read, with where it arises."""
    found = dict.fromkeys(CLICK, "click") | dict.fromkeys(SYSTEM, "the system")

    def add(text: str, where: str) -> None:
        for line in text.split("\n"):
            line = line.strip()
            letters = sum(c in string.ascii_letters for c in re.sub(r"⟦x⟧|--[a-z-]+", "", line))
            if letters > 3 and " " in line and not UNREAD.match(line):
                # What is added to a sentence is tried behind one.
                found.setdefault(PLACEHOLDER + line if line[0] in ",;:" else line, where)

    for path in sorted([*(REPOSITORY / TOOLKIT).rglob("*.py"), *(REPOSITORY / TRAINER).glob("*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [*_trainer_texts(tree)] if path.parent.name == TRAINER else [*_texts(tree)]
        if path.parent.name == "cli":
            texts += _help_texts(tree)
        for text, line in texts:
            if not UNREAD.match(text.strip()):
                add(text, f"{path.relative_to(REPOSITORY)}:{line}")
    for path in sorted((REPOSITORY / "templates").glob("*.j2")):
        for text in re.findall(r"echo (?:\{\{ \()?'([^']*)'", path.read_text(encoding="utf-8")):
            add(text + PLACEHOLDER * text.endswith(" "), f"templates/{path.name}")
    return found


@pytest.fixture(autouse=True)
def chinese() -> Iterator[None]:
    language.choose("zh")
    yield
    language.choose("en")


def test_every_sentence_has_a_translation() -> None:
    missing = [f"{where}: {text}" for text, where in sentences().items() if not _has_chinese(language.tr(text))]
    assert not missing, f"{len(missing)} sentences are not in oelm_jobs/text/zh.json:\n" + "\n".join(missing)


def test_translations_are_whole() -> None:
    half = []
    for text, where in sentences().items():
        translation = language.tr(text)
        prose = COMMAND_LINE.sub("", translation)
        if _has_chinese(translation) and re.search(r"[a-z]{2,},? [a-z]{2,} [a-z]{2,}", prose):
            half.append(f"{where}: {text}\n    {translation}")
    assert not half, f"{len(half)} sentences are Chinese in part:\n" + "\n".join(half)


def test_help_is_whole() -> None:
    commands = [importlib.import_module(f"oelm_jobs.cli.{name}").main for name in COMMANDS]
    below = [command for group in commands if isinstance(group, click.Group) for command in group.commands.values()]
    for command in [*commands, *below]:
        with language.of_click():
            shown = command.get_help(click.Context(command, info_name=command.name))
        assert _has_chinese(shown) and not re.search(r"[a-z]{2,},? [a-z]{2,} [a-z]{2,}|default:", shown), shown
        listed = [line for line in shown.splitlines() if re.match(r"  (-|[a-z]+  )", line) and len(line.split()) > 2]
        assert all(map(_has_chinese, listed)), shown


@pytest.mark.parametrize(
    ("name", "argv", "expected"),
    [
        ("submit", ["--sedes", "3"], "没有选项 '--sedes'。 是不是想用 '--seeds', '--set', '--yes'？"),
        ("submit", ["--mode", "both"], "'--mode' 的值无效：'both' 不在可选值之中：'sequential', 'parallel'。"),
        ("submit", ["--num-seeds", "0"], "'--num-seeds' 的值无效：0 超出范围 1<=x<=10000。"),
        ("logs", [], "缺少参数 'RUN'."),
        ("logs", ["a", "b", "c"], "多余的参数：b c"),
        ("logs", ["a", "-n"], "选项 '-n' 需要 1 个值。"),
        ("data", ["mak"], "没有命令 'mak'。 是不是想用 'make'？"),
        ("report", ["--style", "no-such"], "'--style' 的值无效：路径 'no-such' 不存在。"),
    ],
)
def test_click_speaks_chinese(name: str, argv: list[str], expected: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        importlib.import_module(f"oelm_jobs.cli.{name}").main.main(argv, standalone_mode=False)
    with language.of_click():
        assert caught.value.format_message() == expected


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


def test_words_of_tables_have_translations() -> None:
    findings = [
        str(keyword.value.value)
        for path in (REPOSITORY / TOOLKIT).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding"
        for keyword in node.keywords
        if keyword.arg == "what" and isinstance(keyword.value, ast.Constant)
    ]
    marks = [mark for mark, _ in doctor.MARKS.values()]
    tools = ("bash here", "rsync here", "ssh here")
    words = {
        *view.HEADERS,
        *hosts.HEADERS,
        *hosts.PARTITION_HEADERS,
        "default",
        "down",
        "group",
        "runs",
        *marks,
        *findings,
        *tools,
    } - {"torch", "bash", "slurm", "sbatch"}
    assert not [word for word in words if not _has_chinese(language.tr(word))]


@pytest.mark.parametrize(
    ("english", "expected"),
    [
        ("loss: submitted to disk", "loss：已提交到 disk"),
        ("question  Does loss 3; or more, harm: no?", "问题      Does loss 3；or more, harm: no?"),
        ("gpu1: /data/x: no such file; nothing was queued", "gpu1：/data/x：没有该文件；没有任何运行进入队列"),
        ("a.toml: [train] max_stps = 12: unknown key; did you mean 'max_steps'? valid: beta1, beta2",
         "a.toml：[train] max_stps = 12：未知的键；是不是 'max_steps'？可选：beta1, beta2"),
        ("'x' names no study, group or run that was submitted here; did you mean 'y'? valid: y, z and 1,492 more",
         "'x' 不是这里提交过的研究、组或运行；是不是 'y'？可选：y, z，另有 1,492 个"),
        ("cluster: squeue: timed out; nothing was cancelled there",
         "cluster：squeue 报错：超时；那里没有取消任何运行"),
        ("a is QUEUED (waits for its turn (Priority)); its log follows when it is written",
         "a 处于 QUEUED 状态（等待轮到它（Priority））；一有日志就会显示"),
        ("all free; 3 runs wait", "全部空闲；3 个运行在等待"),
        ("out of memory: Slurm killed the job: submit again to resume",
         "内存不足：作业被 Slurm 杀死：再次提交即可继续"),
        ("attempt 2: oom: x; y; starting again", "第 2 次尝试：内存不足：x; y；重新开始"),
        ("oom: out of memory at --batch_size 8 (3 GB available); --batch_size 4 --gradient_accumulation_steps 2"
         " should fit and trains on the same global batch; submit again",
         "内存不足：--batch_size 8 放不下（可用 3 GB）；改用 --batch_size 4 --gradient_accumulation_steps 2"
         " 应可放下，全局批量不变；submit again"),
        ("after time limit, without a checkpoint; waits for its turn (Priority)",
         "到达时间上限之后，未写检查点；等待轮到它（Priority）"),
        ("slurmctld: foo: bar; baz: unheard of", "slurmctld: foo: bar; baz: unheard of"),
        ("  two spaces\n\n  No run is in that state.", "  two spaces\n\n  没有处于该状态的运行。"),
    ],
)  # fmt: skip
def test_names_and_foreign_words_stay_and_parts_are_found(english: str, expected: str) -> None:
    assert language.tr(english) == expected


def _has_chinese(text: str) -> bool:
    return bool(re.search("[一-鿿（）：；，、]", text))


def test_translations_keep_the_placeholders() -> None:
    catalogue = json.loads((REPOSITORY / "oelm_jobs" / "text" / "zh.json").read_text(encoding="utf-8"))
    for english, chinese in catalogue.items():
        assert set(re.findall(r"\{(\w+)\}", english)) >= set(re.findall(r"\{(\w+)\}", chinese)), english
        assert _has_chinese(chinese), english


def test_commands_speak_chinese_and_keep_what_programs_read(oelm, project: Path) -> None:
    assert _has_chinese(oelm("status", "--help", "--lang", "zh").stdout)
    failed = oelm("submit", "--study", "tinny", "--lang", "zh", check=False)
    assert failed.returncode == 2 and _has_chinese(failed.stderr) and "'tiny'" in failed.stderr
    assert json.loads(oelm("status", "--json", "--lang", "zh").stdout)["version"] == 1
