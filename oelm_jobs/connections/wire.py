"""The conversation with the agent on another machine: a program and a request in, framed answers out. The other end is
oelm_jobs/agent/bootstrap.py.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import agent
from ..agent import reasons, schema, verbs
from ..agent.registry import may_repeat
from ..agent.sentences import _
from ..errors import Nonsense, TargetError, UnknownAnswer
from . import Own, PlacedTree
from .answers import MAX_ANSWER_BYTES
from .channel import Broken, Channel
from .greeting import LINE_MISSED, Heard, greet, line_missed

if TYPE_CHECKING:
    from ..code.snapshot import Tree

IDLE_S = 30.0
"""The agent says every 5 s that it is at work; after so long without a word the connection counts as dead."""
SLICE_BYTES = 256 << 10
WHOLE_BYTES = 512 << 10
"""A tree of no more bytes is sent as it is, without asking which of its files are there."""


class Interrupted(Exception):
    """The connection broke during the conversation.

    Attributes:
        sent: Whether an acting request may have arrived.
    """

    def __init__(self, message: str, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the agent answered."""

    answer: dict[str, object]
    home: str
    """The home folder there."""
    is_noisy: bool
    """Whether the login shell prints where nobody looks."""


@functools.lru_cache(maxsize=1)
def _program() -> bytes:
    """Return the program for Python there, compressed because every request carries it."""
    import binascii

    folder = Path(str(agent.__file__)).parent
    text = b"\n".join((folder / f"{name}.py").read_bytes() for name in ("sentences", "privacy", "trees", "bootstrap"))
    packed = binascii.b2a_base64(zlib.compress(text, 9), newline=False)
    return b"import binascii,zlib;exec(zlib.decompress(binascii.a2b_base64(b'%s')))" % packed


def _frame(content: bytes) -> bytes:
    return b"%d\n" % len(content) + content


def pack(tree: Tree, numbers: Iterable[int]) -> bytes:
    """Return files of a tree as a compressed archive."""
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
        for number in numbers:
            content = tree.read(number)
            member = tarfile.TarInfo(tree.files[number][0])
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def converse(
    channel: Channel,
    verb: str,
    request: Mapping[str, object],
    places: Sequence[PlacedTree],
    *,
    own: Own,
    timeout_s: float,
) -> Reply:
    """Send one request over a channel that runs ``command``; return the agent's reply.

    Args:
        verb: Empty where trees alone are to be placed.
        own: Where the root there is and who may use it, as ``connections.own`` gives it.
        places: Trees that must be there, the agent's own first.

    Raises:
        Interrupted: The connection broke off.
        Nonsense: What is said there is not what was agreed.
        TargetError: It was certainly not carried out.
        UnknownAnswer: It may have been carried out.
    """
    reads = may_repeat(verb)  # then it is sent without waiting for the agent to be ready
    deadline = time.monotonic() + timeout_s
    nonce = os.urandom(16).hex()
    trees = [{"folder": place.folder, "hash": place.tree.hash} for place in places]
    header = {"nonce": nonce, "verb": verb, "reads": reads, "trees": trees, **own}
    wanted: Tree | None = None
    payload = json.dumps(request).encode("ascii")
    sent = False
    lacking = {place.tree.hash: place.tree for place in places}

    def patience() -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Broken(_("{verb} took longer than {n:.0f} s", verb or _("sending"), timeout_s))
        return min(IDLE_S, left)

    def send(content: bytes) -> None:
        for start in range(0, len(content), SLICE_BYTES):
            channel.write(content[start : start + SLICE_BYTES], patience())

    def send_blob(blob: bytes) -> None:
        nonlocal deadline
        import hashlib  # here, like others: most requests find everything in its place

        deadline += len(blob) / 50_000  # a slow uplink may take its time
        send(_frame(hashlib.sha256(blob).hexdigest().encode()) + _frame(blob))

    try:
        heard = greet(channel, patience)
        greeted = False
        with contextlib.suppress(Broken):  # where Python did not start its end is told below, by its exit code
            send(_frame(_program()) + _frame(json.dumps(header).encode("ascii")) + (_frame(payload) if reads else b""))
        for message in _messages(heard, nonce, patience):
            greeted = True
            if "need" in message:
                wanted = lacking.pop(message["need"], None)
                if wanted is None:
                    raise schema.Misfit(_(".need = {hash}: is no tree that it may lack", message["need"]))
                # Where nothing can be written the agent answers from memory, and needs all of itself for that.
                is_whole = wanted is places[0].tree or wanted.size <= WHOLE_BYTES
                rows = json.dumps({"whole": is_whole, "rows": wanted.rows}).encode("ascii")
                send_blob(zlib.compress(rows, 6))
                if is_whole:
                    send_blob(pack(wanted, range(len(wanted.files))))
                    wanted = None
            elif "lacks" in message:
                if wanted is None:
                    raise schema.Misfit(_(".lacks: was said of no tree"))
                send_blob(pack(wanted, _chosen(wanted, message["lacks"])))
                wanted = None
            elif "ready" in message:
                if sent or reads:
                    raise schema.Misfit(_(".ready: was said twice, or of what was sent already"))
                sent = True
                send(_frame(payload))
            elif "error" in message:
                raise _failed(verb, message, sent)
            elif "answer" in message:
                if "home" not in message:
                    raise schema.Misfit(_(".home is missing"))
                return Reply(answer=message["answer"], home=message["home"], is_noisy=heard.noise > 0)
        code, said = channel.end()
    except schema.Misfit as error:
        raise (UnknownAnswer if sent else Nonsense)(_("answers nonsense: message{where}", str(error))) from error
    except Broken as error:
        raise Interrupted(str(error), sent) from error
    if code is None or code == 255:  # 255 is also what the ssh command says of its own troubles (ssh(1))
        raise Interrupted(said or _("the connection was closed"), sent)
    raise _ended(code, said, greeted, sent)


def _chosen(tree: Tree, numbers: Sequence[int]) -> list[int]:
    """Return the files that the agent asks for, each once.

    Raises:
        schema.Misfit: The tree has no such file.
    """
    wanted = sorted(set(numbers))
    if wanted and wanted[-1] >= len(tree.files):
        raise schema.Misfit(_(".lacks = {value}: must lie between 0 and {high}", wanted[-1], len(tree.files) - 1))
    return wanted


def _failed(verb: str, message: Mapping[str, Any], sent: bool) -> TargetError:
    error = reasons.read(dict(message, reason=message["error"][:2000].encode("utf-8", "replace").decode()))
    if message.get("python"):
        return TargetError(
            error, hint=_('name a newer interpreter in the targets file, as in python = "~/venv/bin/python"')
        )
    if sent and not message.get("refused"):
        return UnknownAnswer(_("{verb} failed there: {why}", verb, error))
    return TargetError(error)


def _ended(code: int, said: str, greeted: bool, sent: bool) -> TargetError:
    """Return the error about a command that ended without an answer."""
    why = said or _("exit code {n}", code)
    if greeted:
        kind = UnknownAnswer if sent else TargetError
        return kind(_("the agent there ended without an answer: {why}", why))
    if code in (126, 127):
        return TargetError(
            _("no Python there: {why}", why), hint=_('name one in the targets file, as in python = "~/venv/bin/python"')
        )
    if code == LINE_MISSED:
        return line_missed()
    return TargetError(_("Python there ended before it read the request: {why}", why))


def _messages(heard: Heard, nonce: str, patience: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """Yield the agent's messages, whose answers are not checked yet; other output between them is skipped.

    Raises:
        schema.Misfit: One is none.
    """
    while heard.skip_to(f"\n{nonce} ".encode(), patience):
        while heard.text.find(b"\n", 0, 16) < 0 and len(heard.text) < 16:
            if not heard.more(patience):
                return
        line = bytes(heard.text[:16]).partition(b"\n")[0]
        size, begin = int(line) if line.isdigit() else -1, len(line) + 1
        if not 0 <= size <= MAX_ANSWER_BYTES:
            raise schema.Misfit(_(": {size} bytes are no size of one", line.decode("ascii", "replace")))
        while len(heard.text) < begin + size:
            if not heard.more(patience):
                return
        message = schema.loads(bytes(heard.text[begin : begin + size]))
        del heard.text[: begin + size]
        wrong = verbs.MESSAGE.wrong(message)
        if wrong is not None:
            raise schema.Misfit(wrong)
        yield dict(message)
