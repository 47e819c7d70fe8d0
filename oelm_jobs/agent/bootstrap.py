"""Owns the first words on a server: reads a request from stdin, installs the agent and other trees that are missing,
lets the agent answer, and frames what is said; leaves answering to the verbs' modules.

The client sends this file's text down the channel and the server's Python runs it, so nothing has to be there before,
and one command is one round trip (oelm_jobs/connections/wire.py is the other end). The login shell may be noisy and
the answer is therefore framed by a nonce; nothing is done before the request has arrived whole.

Frames to the server: length in decimal, newline, so many bytes. Frames from it: newline, nonce, space, length,
newline, so many bytes of JSON. First of all an object with ``hello``, then ``need`` (hash of a tree that the client
then sends), ``ready`` (for a request that acts; one that only reads is sent at once), ``alive`` (still at work), and
at last ``answer`` or ``error``.

This module parses on Python 3.6, so that an old interpreter can be named as such.
"""

import json
import os
import sys
import threading
from typing import Any, Dict, List, Optional

ALIVE_S = 5.0
"""How often a verb that takes its time says that it is at work."""
CONTROL = ".oelm"
"""As in rundir, which isn't there yet."""


class Cut(Exception):
    """The client's words ended in the middle."""


def receive(stream: Any) -> bytes:
    """Return the next frame.

    Raises:
        Cut: It did not come whole.
    """
    head = stream.readline(32)
    if not head.endswith(b"\n"):
        raise Cut
    content = stream.read(int(head))
    if len(content) != int(head):
        raise Cut
    return bytes(content)


class Homeless(Exception):
    """Nobody says where this user's files belong: nothing was done."""

    is_refusal = True


class Speaker:
    """Says frames on what was stdout; stdout itself becomes stderr, so that nothing else can get between."""

    def __init__(self, nonce: str) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._nonce = nonce
        self._lock = threading.Lock()

    def say(self, **content: Any) -> None:
        """Send one frame."""
        payload = json.dumps(content).encode("ascii")
        data = ("\n%s %d\n" % (self._nonce, len(payload))).encode("ascii") + payload
        with self._lock:
            while data:
                data = data[os.write(self._out, data) :]


def resolve(path: str, home: str) -> str:
    """Return an absolute path: ``~`` is a home folder, what is relative lies below one's own."""
    return os.path.normpath(os.path.join(home, os.path.expanduser(path)))


def home_folder() -> str:
    """Return this user's home folder.

    Raises:
        Homeless: Neither HOME nor the user database names one.
    """
    found = os.path.expanduser("~")
    if not os.path.isabs(found):
        raise Homeless(
            "no home folder is known on %s: HOME is not set, and user %d is not in its user database; let the login"
            " set HOME" % (os.uname().nodename, os.getuid())
        )
    return found


def unpack(blob: bytes) -> Dict[str, Any]:
    """Return the files of a packed tree: name to (content, whether it is executable)."""
    import io
    import tarfile

    found = {}
    with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            if file is None or member.name.startswith("/") or ".." in member.name.split("/"):
                raise ValueError("%r can't be part of a tree" % member.name)
            found[member.name] = (file.read(), bool(member.mode & 0o100))
    return found


def install(files: Dict[str, Any], place: str) -> None:
    """Write files to ``place``, whole or not at all; nobody ever sees half of it."""
    import shutil
    import tempfile

    folder = os.path.dirname(place)
    os.makedirs(folder, exist_ok=True)
    temporary = tempfile.mkdtemp(prefix=".%s." % os.path.basename(place), dir=folder)
    try:
        for name, (content, executable) in files.items():
            path = os.path.join(temporary, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
            os.chmod(path, 0o555 if executable else 0o444)
        os.chmod(temporary, 0o755)
        os.rename(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if not os.path.isdir(place):  # else another client was faster with the same content
            raise


class Memory:
    """Imports the agent from memory where the disk takes nothing any more: a full disk must not hide itself."""

    def __init__(self, files: Dict[str, Any]) -> None:
        import importlib.util

        self._spec = importlib.util.spec_from_loader
        self._sources = {name: content for name, (content, _) in files.items()}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return how to import a module of the agent (importlib's protocol for finders)."""
        for file, package in ((name.replace(".", "/") + ".py", False), (name.replace(".", "/") + "/__init__.py", True)):
            if file in self._sources:
                loader = self  # type: Any
                return self._spec(name, loader, origin=file, is_package=package)
        return None

    def create_module(self, spec: Any) -> None:
        """Let importlib make the module."""

    def exec_module(self, module: Any) -> None:
        """Run the module's source."""
        exec(compile(self._sources[module.__spec__.origin], module.__spec__.origin, "exec"), module.__dict__)


def fetch_trees(header: Dict[str, Any], home: str, stream: Any, speaker: Speaker) -> Optional[Dict[str, Any]]:
    """Have every tree that the request needs in its place.

    Returns:
        The agent's files where they could not be written (the first tree is the agent), else None. A request that
        only reads does without trees that can't be written.
    """
    for number, tree in enumerate(header["trees"]):
        place = os.path.join(resolve(tree["folder"], home), tree["hash"])
        if os.path.isdir(place):
            continue
        speaker.say(need=tree["hash"])
        import hashlib  # here, like others below: most requests find everything in its place

        digest, blob = receive(stream).decode("ascii"), receive(stream)
        if hashlib.sha256(blob).hexdigest() != digest:
            raise ValueError("what arrived is not what was sent")
        files = unpack(blob)
        try:
            install(files, place)
        except OSError:
            if not header["reads"] or (number and not header["verb"]):
                raise
            if number == 0:
                return files
    return None


def work(speaker: Speaker, stream: Any, header: Dict[str, Any]) -> Dict[str, Any]:
    """Do what a request asks for and return its answer."""
    home = home_folder()
    words = receive(stream) if header["reads"] else b""
    in_memory = fetch_trees(header, home, stream, speaker)
    if not header["verb"]:
        return {}
    if not header["reads"]:
        speaker.say(ready=True)
        words = receive(stream)
    request = json.loads(words.decode("utf-8"))
    if in_memory is not None:
        sys.meta_path.insert(0, Memory(in_memory))
    else:
        tree = header["trees"][0]
        sys.path.insert(0, os.path.join(resolve(tree["folder"], home), tree["hash"]))
    done = threading.Event()

    def stay_alive() -> None:
        while not done.wait(ALIVE_S):
            speaker.say(alive=True)

    threading.Thread(target=stay_alive, daemon=True).start()
    try:
        from agent.__main__ import answer  # type: ignore[import-not-found]

        return dict(answer(header["verb"], request))
    finally:
        done.set()


def too_old(version: Any) -> str:
    """Return what to say where Python is too old, naming newer ones that are there; empty where it will do."""
    if version >= (3, 8):
        return ""
    import shutil

    newer: List[str] = [path for path in (shutil.which("python3.%d" % n) for n in range(30, 7, -1)) if path]
    return "Python %s is too old for oelm-jobs, which needs 3.8%s" % (
        sys.version.split()[0],
        "; there is %s" % newer[0] if newer else "",
    )


def main() -> None:
    """Answer one request on stdin and stdout."""
    stream = sys.stdin.buffer
    try:
        header = json.loads(receive(stream).decode("utf-8"))
        speaker = Speaker(header["nonce"])
        speaker.say(hello=1)
        problem = too_old(sys.version_info)
        if problem:
            speaker.say(error=problem, python=True)
            return
        try:
            answer = work(speaker, stream, header)
        except Cut:
            raise
        except Exception as error:
            import traceback

            is_ours = hasattr(error, "is_refusal")
            words = str(error) if is_ours else "%s: %s" % (type(error).__name__, error)
            traceback.print_exc()
            speaker.say(error=words, refused=bool(getattr(error, "is_refusal", False)))
            return
        speaker.say(answer=answer, home=os.path.expanduser("~"))
    except Cut:
        sys.exit("the request ended in the middle; nothing was done")


if __name__ == "__main__":
    main()
