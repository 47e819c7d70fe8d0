"""Send a message on one way: a webhook, mail, a command. A program of its own, so that no server can hold anybody up.

Secrets are read here, where they are used, and are in no message: what a server or a library says of an address goes
out with dots in its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from .. import processes
from ..sentences import _
from . import forms

WAYS = ("webhook", "mail", "command")
PATIENCE_S = 30.0
"""So long a way may take, all of it."""
CONNECT_S = 10.0
"""So long a server may be silent."""
MOST_SECRET_BYTES = 4096
SENDMAIL_FOLDERS = "/usr/sbin:/usr/lib:/usr/local/sbin"
"""Where sendmail lies beside PATH (FHS 3.0, /usr/lib)."""
SHARE = 5 / 6
"""So much of what a way may take a server or a program has: the rest is for saying what became of it."""
PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from %s import main; main()"
BEGUN = b"begun\n"
"""Said before anything goes out by which somebody may be told."""


class NotSent(Exception):
    """It was not sent; the message says why and holds no secret."""


class MayBeSent(Exception):
    """It went out, and nobody knows whether it arrived; the message says why and holds no secret."""


class Said(NamedTuple):
    """What became of a message on one way."""

    is_sent: Optional[bool]
    """None where nobody knows."""
    words: str
    """What came back, or why it was not sent."""


def start(module: str, *, stdin: Any = subprocess.PIPE, stdout: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    """Start a module's ``main`` as a program that is tied to nobody, and no process of a run.

    Args:
        stdin: A pipe, or the file that it reads.

    Raises:
        OSError: It doesn't start.
    """
    top = Path(__file__).parents[len(__name__.split(".")) - 1]
    own = (processes.ATTEMPT_VARIABLE, processes.RUN_DIR_VARIABLE)
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", PROGRAM % module, str(top)],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name not in own},
        cwd="/",
        start_new_session=True,
    )


def send(way: str, how: Any, message: forms.Message, patience_s: Optional[float] = None) -> Said:
    """Send a message on a way, in a process of its own, which is ended with all that it started after a time.

    Args:
        how: What the settings say of the way.
        patience_s: That time; PATIENCE_S unless it is given.
    """
    patience_s = PATIENCE_S if patience_s is None else patience_s
    try:
        child = start(__name__, stdout=subprocess.PIPE)
    except OSError as error:
        return Said(False, str(error))
    why = ""
    try:
        order = [way, how, message, time.monotonic() + patience_s * SHARE]
        child.communicate(json.dumps(order).encode(), patience_s)
    except subprocess.TimeoutExpired:
        why = _("no end within {seconds:.0f} s", patience_s)
    except OSError as error:
        why = str(error)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    said, _err = child.communicate()  # all that came, also before the time was over
    answer = said[len(BEGUN) :] if said.startswith(BEGUN) else said
    try:
        is_sent, words = json.loads(answer)
        return Said(is_sent if is_sent is None else bool(is_sent), str(words))
    except (ValueError, TypeError):
        why = why or _("the program that sends it ended: exit code {code}", child.poll())
        return Said(None, _unclear(why)) if said.startswith(BEGUN) else Said(False, why)


def _unclear(why: str) -> str:
    return _("{why}: whether it arrived is not known", why)


class _Sending:
    """What the program that sends knows of itself."""

    def __init__(self, until: float) -> None:
        self._until = until  # by the monotonic clock
        self.is_begun = False

    @property
    def left_s(self) -> float:
        """So long a server or a program may take."""
        return max(0.1, self._until - time.monotonic())

    def begins(self) -> None:
        """Say that from now on it may arrive."""
        self.is_begun = True
        sys.stdout.write(BEGUN.decode())
        sys.stdout.flush()


def main() -> None:
    """Send the message that stdin names on the way that it names, and say on stdout what became of it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)  # whoever asks may ignore them, which what is started here would inherit
    way, how, message, until = json.load(sys.stdin)
    sending = _Sending(until)
    said: List[Any]
    try:
        words = _SENDERS[way](how, forms.Message(*message), sending)
        said = [True, words]
    except NotSent as error:
        said = [False, str(error)]
    except MayBeSent as error:
        said = [None, _unclear(str(error))]
    except Exception as error:  # whose message may hold what is secret
        said = [None if sending.is_begun else False, type(error).__name__]
    json.dump(said, sys.stdout)


def trouble(way: str, how: Any) -> str:
    """Return why nothing can be sent on a way from here, as far as that can be seen without sending; else empty."""
    try:
        if way == "webhook":
            _secrets(how)
        elif way == "mail":
            _sendmail()
        else:
            _program(how)
    except NotSent as error:
        return str(error)
    return ""


# Webhooks -------------------------------------------------------------------------------------------------------------


def _webhook(how: Mapping[str, Any], message: forms.Message, sending: _Sending) -> str:
    import http.client
    import urllib.error
    import urllib.request

    class Stays(urllib.request.HTTPRedirectHandler):
        """Follow no redirect: it would turn the POST into a GET, or carry the token elsewhere."""

        def redirect_request(self, *_given: Any, **_named: Any) -> None:
            return None

    url, token = _secrets(how)
    content, headers = forms.body(how["form"], message)
    headers["Content-Length"] = str(len(content))
    headers["User-Agent"] = "oelm-jobs"
    if token:
        headers["Authorization"] = "Bearer " + token
    hidden = [secret for secret in (url, token) if secret]

    def body() -> Iterator[bytes]:
        sending.begins()  # the server is there, and is sent what it acts by
        yield content

    try:
        request = urllib.request.Request(url, data=body(), headers=headers, method="POST")
        with urllib.request.build_opener(Stays()).open(request, timeout=min(CONNECT_S, sending.left_s)) as answer:
            code, said = answer.status, b""
            with contextlib.suppress(OSError, http.client.HTTPException):  # it has said that it took it
                said = answer.read(2000)
    except urllib.error.HTTPError as error:
        with contextlib.suppress(OSError, http.client.HTTPException):
            raise NotSent(_told(error.code, error.read(2000), hidden)) from None
        raise NotSent("HTTP %d" % error.code) from None
    except OSError as error:  # URLError, too
        reason = getattr(error, "reason", error)
        why = _masked(str(getattr(reason, "strerror", "") or reason), hidden)
        raise (MayBeSent if sending.is_begun else NotSent)(why) from None
    except (ValueError, http.client.HTTPException) as error:
        if sending.is_begun:
            raise MayBeSent(type(error).__name__) from None
        raise NotSent(_("its address can't be used: {why}", type(error).__name__)) from None
    refused = forms.refusal(how["form"], said)
    if refused:
        raise NotSent(_masked("HTTP %d, %s" % (code, refused), hidden))
    return _told(code, said, hidden)


def _told(code: int, said: bytes, hidden: List[str]) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    first = "".join(c for c in lines[0] if c.isprintable())[:200] if lines else ""
    return _masked("HTTP %d: %s" % (code, first) if first else "HTTP %d" % code, hidden)


def _masked(text: str, hidden: List[str]) -> str:
    """Return text with dots in place of secrets, and of the parts of an address that may be."""
    from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

    parts = set(hidden)
    for url in map(urlsplit, hidden):
        values = [value for _name, value in parse_qsl(url.query)]
        raw = [word.partition("=")[2] for word in url.query.split("&")]
        parts.update([url.path, url.query, *url.path.split("/"), *values, *raw, url.username or "", url.password or ""])
    parts |= {plain for part in parts for plain in (unquote(part), unquote_plus(part))}
    for part in sorted((part for part in parts if len(part) > 5), key=len, reverse=True):
        text = text.replace(part, "…")
    return text


def _secrets(how: Mapping[str, Any]) -> Tuple[str, str]:
    """Return (address, token, which may be empty).

    Raises:
        NotSent: One of them can't be had here, or is none.
    """
    found: Dict[str, str] = {"url": how.get("url") or "", "token": ""}
    for what in found:
        variable, file = how.get(what + "_env"), how.get(what + "_file")
        if variable:
            found[what] = os.environ.get(variable, "").strip()
            if not found[what]:
                raise NotSent(_("the environment variable {name} is not set here", variable))
        elif file:
            found[what] = _content(file)
    url, token = found["url"], found["token"]
    where = how.get("url_env") or how.get("url_file") or ""
    if not url.startswith(("https://", "http://")) or not _is_word(url):
        raise NotSent(_("{where} holds no address that begins with https://", where))
    if token and url.startswith("http://") and not _is_own(url):
        raise NotSent(_("a token is sent to an address that begins with https:// alone"))
    if token and not _is_word(token):
        raise NotSent(_("{where} holds no token", how.get("token_env") or how.get("token_file") or ""))
    return url, token


def _is_own(url: str) -> bool:
    """Tell whether an address is this machine's own."""
    from urllib.parse import urlsplit

    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or re.fullmatch(r"127\.\d+\.\d+\.\d+", host) is not None


def _is_word(text: str) -> bool:
    """Tell whether a text can stand in a request's line or header: nothing in it begins another one."""
    return all("!" <= character <= "~" for character in text)


def _content(name: str) -> str:
    """Return what a file holds that nobody else may read.

    Raises:
        NotSent: It can't be read, or others may.
    """
    path = os.path.expanduser(name)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise NotSent(_("{path}: can't be read: {why}", path, error.strerror)) from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise NotSent(_("{path}: is no file", path))
        if found.st_uid not in (os.getuid(), 0) or found.st_mode & 0o077:
            mode = "%04o" % stat.S_IMODE(found.st_mode)
            raise NotSent(_("{path}: others may read it (mode {mode}): chmod 600 {path}", path, mode))
        text = os.read(handle, MOST_SECRET_BYTES).decode("ascii", "replace").strip()
    finally:
        os.close(handle)
    if not text:
        raise NotSent(_("{path}: is empty", path))
    return text


# Mail and commands ----------------------------------------------------------------------------------------------------


def _mail(address: str, message: forms.Message, sending: _Sending) -> str:
    from email.message import EmailMessage

    mail = EmailMessage()
    mail["To"], mail["Subject"] = address, message.title
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday note answers it
    mail.set_content(message.whole(1 << 20))
    # The address is read from the letter: it is in nobody's list of processes.
    return _run([_sendmail(), "-t", "-oi"], mail.as_bytes(), {}, sending)


def _sendmail() -> str:
    found = shutil.which("sendmail", path="%s:%s" % (os.environ.get("PATH", ""), SENDMAIL_FOLDERS))
    if not found:
        raise NotSent(_("there is no sendmail here"))
    return found


def _command(argv: List[str], message: forms.Message, sending: _Sending) -> str:
    facts = forms.as_json(message)
    variables = {
        "OELM_" + name.upper(): str(facts[name])
        for name in ("event", "title", "study", "run", "state")
        if facts.get(name)
    }
    content = json.dumps(facts, ensure_ascii=False).encode("utf-8", "replace")
    return _run([_program(argv), *argv[1:]], content, variables, sending)


def _program(argv: List[str]) -> str:
    name = os.path.expanduser(argv[0])
    found = shutil.which(name)
    if not found:
        raise NotSent(_("{program}: no such program here", name))
    return found


def _run(argv: List[str], content: bytes, variables: Dict[str, str], sending: _Sending) -> str:
    """Run a program that reads the message; return how it ended.

    Raises:
        NotSent: It failed.
        MayBeSent: It didn't end in time.
    """
    with tempfile.TemporaryFile() as errors:
        sending.begins()
        left_s = sending.left_s
        try:
            done = subprocess.run(
                argv,
                input=content,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, **variables},
                cwd=os.path.expanduser("~") if os.path.isdir(os.path.expanduser("~")) else "/",
                timeout=left_s,
            )
        except subprocess.TimeoutExpired:
            raise MayBeSent(_("no end within {seconds:.0f} s", left_s)) from None
        except OSError as error:
            raise NotSent(_("{program}: {why}", argv[0], error.strerror)) from None
        if done.returncode == 0:
            return _("exit code {code}", 0)
        errors.seek(0)
        lines = errors.read(4000).decode("utf-8", "replace").strip().splitlines()
    last = "".join(c for c in lines[-1] if c.isprintable())[:200] if lines else ""
    how = _("exit code {code}", done.returncode)
    raise NotSent(_("{what}: {details}", how, last) if last else how)


_SENDERS: Dict[str, Callable[[Any, forms.Message, _Sending], str]] = {
    "webhook": _webhook, "mail": _mail, "command": _command
}  # fmt: skip
