"""Make sure that our own command runs on the other machine before anything is sent that another program could read.

A login shell may hand over to another shell, end, or read input before it runs its command, and a server may force a
program of its own on a login. So the program for Python is sent only after /bin/sh has printed our greeting; the next
thing that /bin/sh does is to start Python. That costs no time where Python takes longer to start than the greeting to
arrive.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable

from ..agent.sentences import _
from ..errors import TargetError
from .channel import Broken, Channel, last_line

MAX_NOISE_BYTES = 1 << 20
"""What a login shell may print before it lets a command run."""
TOLD_BYTES = 4 << 10
"""How much of that is kept, to say what ran instead: its end."""
FIRST_LINE = b"exit 93\n"
"""Sent at once: a shell that reads commands from stdin ends with it, Python passes over it. As a packet of SFTP it is
one of 1.7 GB, which servers refuse."""
SHELL_READS, LINE_MISSED, BAD_PACKET = 93, 94, 11
"""Exit codes: of such a shell; of Python where somebody else has read the first line; of OpenSSH's sftp-server."""
AFTER_END_S = 3.0
"""How long something that waited for its input may take to end once that has."""
# Said by our line, not in it: a program that repeats the command that it was given does not say this.
_GREETING = b"\noelm-jobs=1\n"
# Plain enough for sh, bash, csh and fish alike: the user's login shell gets to read it. -I and -S keep the user's own
# modules and site packages out; -X utf8 makes file names the same whatever the locale says.
_COMMAND = (
    'exec /bin/sh -c \'case $0 in "~/"*) set -- "$HOME/${0#??}";; *) set -- "$0";; esac; echo; echo "oelm-jobs=$#";'
    ' PATH="$PATH:/usr/local/bin:/usr/bin:/bin" exec "$1" -I -S -X utf8'
    f' -c "import sys;i=sys.stdin.buffer;len(i.readline())=={len(FIRST_LINE)}or sys.exit({LINE_MISSED});'
    "exec(i.read(int(i.readline())))\"' "
)
_FILES = _("~/.bashrc, ~/.zshenv, ~/.cshrc or ~/.config/fish/config.fish")
_FORCED = _("does the server force a command on this login (ForceCommand, or command= in authorized_keys)?")


def command(python: str) -> str:
    """Return the line for the login shell that makes ``python`` read a program from stdin."""
    return _COMMAND + shlex.quote(python)


class Heard:
    """What a channel prints, between whose parts anything may stand."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.noise = 0
        """How many bytes came before what was looked for."""
        self.text = bytearray()
        """What has come and not been taken."""

    def more(self, patience: Callable[[], float]) -> bool:
        """Wait for more text; return False at the end.

        Raises:
            Broken: Nothing came for too long.
        """
        piece = self._channel.read(patience())
        self.text += piece
        return bool(piece)

    def skip_to(self, mark: bytes, patience: Callable[[], float]) -> bool:
        """Drop the text up to a mark, and the mark; return whether it came before the end.

        Raises:
            Broken: Nothing came for too long.
            TargetError: Too much came.
        """
        while (at := self.text.find(mark)) < 0:
            passed = max(0, len(self.text) - TOLD_BYTES)
            self.noise += passed
            del self.text[:passed]
            if self.noise > MAX_NOISE_BYTES:
                raise TargetError(
                    _("the login shell there prints more than 1 MB before anything runs"),
                    hint=_("let its start-up files (~/.bashrc, ~/.cshrc) print nothing where there is no terminal"),
                )
            if not self.more(patience):
                return False
        self.noise += at
        del self.text[: at + len(mark)]
        return True


def greet(channel: Channel, patience: Callable[[], float]) -> Heard:
    """Wait for the greeting on a channel that runs ``command``; return what is heard from then on.

    Raises:
        Broken: The connection broke off, or nobody said anything.
        TargetError: Something else runs there. It was sent nothing but the first line.
    """
    heard = Heard(channel)
    with contextlib.suppress(Broken):  # what has ended already is told by its exit code
        channel.write(FIRST_LINE, patience())
    try:
        is_greeted = heard.skip_to(_GREETING, patience)
    except Broken as silence:
        # It is slow, gone, or waits for more: the end of its input tells.
        try:
            channel.close_input()
            is_greeted = heard.skip_to(_GREETING, lambda: AFTER_END_S)
        except Broken:
            raise silence from None
        if is_greeted:
            raise line_missed() from None
    if not is_greeted:
        code, said = channel.end()
        raise _instead(code, said or last_line(bytes(heard.text)))
    return heard


def line_missed() -> TargetError:
    """Return the error about start-up files that read the input of the command."""
    return TargetError(
        _("the login shell there reads input before it runs what it is told"),
        hint=_(
            "look for `read` in its start-up files ({files}): it may ask on a terminal only, as in"
            " [ -t 0 ] && read answer",
            _FILES,
        ),
    )


def _instead(code: int | None, said: str) -> TargetError:
    """Return the error that says what ran instead of our command.

    Raises:
        Broken: Nothing is known of it: the connection went.
    """
    if code is None or code == 255:  # 255 is also what the ssh command says of its own troubles (ssh(1))
        raise Broken(said or _("the connection was closed"))
    why = said or _("exit code {n}", code)
    if code == SHELL_READS:
        return TargetError(
            _("another shell takes over there before anything runs"),
            hint=_(
                "look for `exec` in the login shell's start-up files ({files}): it may hand over on a"
                " terminal only, as in [ -t 1 ] && exec zsh; or {forced}",
                _FILES,
                _FORCED,
            ),
        )
    lower = said.lower()
    if "sftp" in lower or (code == BAD_PACKET and not said):
        return TargetError(
            _("this login is for file transfer alone (sftp): {why}", why),
            hint=_(
                "nothing can be run there: ask its administrators for a login that has a shell (ForceCommand"
                " internal-sftp in their sshd_config keeps this one from it)"
            ),
        )
    if "account is" in lower and "not available" in lower:
        return TargetError(
            _("this login has no shell: {why}", said),
            hint=_("ask its administrators for a login that has a shell: this one's in /etc/passwd is nologin"),
        )
    return TargetError(
        _("the login shell there ended before anything ran: {why}", why),
        hint=_("look for `exit` or `exec` in its start-up files ({files}), or {forced}", _FILES, _FORCED),
    )
