"""Bootstrap that is sent over SSH: read a request from stdin, install the trees that are missing, let the agent answer.

The client sends this file's text down the channel and the server's Python runs it, so nothing has to be there before,
and one command is one round trip (oelm_jobs/connections/wire.py is the other end). The login shell may be noisy and
the answer is therefore framed by a nonce; nothing is done before the request has arrived whole.

Frames to the server: length in decimal, newline, so many bytes. Frames from it: newline, nonce, space, length,
newline, so many bytes of JSON. First of all an object with ``hello``, then ``need`` (hash of a tree of which the
client then sends a list of files), ``lacks`` (numbers in that list: what is not stored there, and sent then),
``ready`` (for a request that acts; one that only reads is sent at once), ``alive`` (still at work), and
at last ``answer`` or ``error``, the latter with its ``code`` and ``values`` (sentences.encoded).

This module parses on Python 3.6, so that an old interpreter can be named as such.
"""

import json
import os
import sys
import threading
from typing import Any, Dict, List, Optional

if "keep" not in globals():  # where it is sent, their text comes before this one's (connections/wire.py)
    from .privacy import confine, enter
    from .sentences import _, encoded
    from .trees import is_kept, keep

ALIVE_S = 5.0
"""How often a verb that takes its time says that it is at work."""


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
        words = _(
            "no home folder is known on {host}: HOME is not set, and user {user} is not in its user database; let the"
            " login set HOME",
            os.uname().nodename, os.getuid(),
        )  # fmt: skip
        raise Homeless(words)
    return found


def unpack(blob: bytes) -> Dict[str, bytes]:
    """Return the files of a packed tree: name to content."""
    import io
    import tarfile

    found = {}
    with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            if file is None:
                raise ValueError(_("{name!r} can't be part of a tree", member.name))
            found[member.name] = file.read()
    return found


class Memory:
    """Imports the agent from memory where the disk takes nothing any more: a full disk must not hide itself."""

    def __init__(self, files: Dict[str, bytes]) -> None:
        import importlib.util

        self._spec = importlib.util.spec_from_loader
        self._sources = files

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return how to import a module of the agent (importlib's protocol for finders)."""
        for ending in (".py", "/__init__.py"):
            file, loader = name.replace(".", "/") + ending, self  # type: str, Any
            if file in self._sources:
                return self._spec(name, loader, origin=file, is_package=ending != ".py")
        return None

    def create_module(self, spec: Any) -> None:
        """Let importlib make the module."""

    def exec_module(self, module: Any) -> None:
        """Run the module's source."""
        exec(compile(self._sources[module.__spec__.origin], module.__spec__.origin, "exec"), module.__dict__)


def receive_blob(stream: Any) -> bytes:
    """Return what comes as a frame with its hash before it."""
    import hashlib  # here, like others below: most requests find everything in its place

    digest, blob = receive(stream).decode("ascii"), receive(stream)
    if hashlib.sha256(blob).hexdigest() != digest:
        raise ValueError(_("what arrived is not what was sent"))
    return blob


def fetch_trees(header: Dict[str, Any], home: str, stream: Any, speaker: Speaker) -> Optional[Dict[str, bytes]]:
    """Have every tree that the request needs in its place.

    Returns:
        The agent's files where they could not be written (the first tree is the agent), else None. A request that
        only reads does without trees that can't be written.
    """
    for number, tree in enumerate(header["trees"]):
        folder = resolve(tree["folder"], home)
        if is_kept(folder, tree["hash"]):
            continue
        speaker.say(need=tree["hash"])
        files = {}  # type: Dict[str, bytes]
        try:
            receive_tree(folder, tree["hash"], files, stream, speaker)
        except OSError:
            if not header["reads"] or (number and not header["verb"]):
                raise
            if number == 0:
                return files
    return None


def receive_tree(folder: str, name: str, files: Dict[str, bytes], stream: Any, speaker: Speaker) -> None:
    """Have a tree that isn't there sent, and keep it.

    Args:
        files: Gets the content of what was sent, by name.

    Raises:
        OSError: It can't be written.
    """
    import zlib

    announced = json.loads(zlib.decompress(receive_blob(stream)).decode("utf-8"))
    rows = [(path, bool(executable), sha256) for path, executable, sha256 in announced["rows"]]
    if announced["whole"]:
        files.update(unpack(receive_blob(stream)))

    def contents(lacking: List[int]) -> Any:
        if not announced["whole"]:
            speaker.say(lacks=lacking)
            files.update(unpack(receive_blob(stream)))
        return lambda number: files[rows[number][0]]

    keep(folder, name, rows, contents)


def work(speaker: Speaker, stream: Any, header: Dict[str, Any]) -> Dict[str, Any]:
    """Do what a request asks for and return its answer; nobody reads what is written who may not."""
    home = home_folder()
    confine(header["share"])
    try:
        enter(resolve(header["root"], home), header["share"], [resolve(path, home) for path in header["also"]])
    except OSError:  # a full disk, say: a request that only reads may be about that
        if not header["reads"]:
            raise
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
        from agent.__main__ import answer  # type: ignore[import-not-found]  # its name on a target

        return dict(answer(header["verb"], request))
    finally:
        done.set()


def too_old(version: Any) -> str:
    """Return what to say where Python is too old, naming newer ones that are there; empty where it will do."""
    if version >= (3, 8):
        return ""
    import shutil

    newer = next(filter(None, (shutil.which("python3.%d" % n) for n in range(30, 7, -1))), "")
    version = sys.version.split()[0]
    if not newer:
        return _("Python {version} is too old for oelm-jobs, which needs 3.8", version)
    return _("Python {version} is too old for oelm-jobs, which needs 3.8; there is {newer}", version, newer)


def main() -> None:
    """Answer one request on stdin and stdout."""
    stream = sys.stdin.buffer
    try:
        header = json.loads(receive(stream).decode("utf-8"))
        speaker = Speaker(header["nonce"])
        speaker.say(hello=1)
        problem = too_old(sys.version_info)
        if problem:
            speaker.say(error=problem, python=True, **encoded(problem))
            return
        try:
            answer = work(speaker, stream, header)
        except Cut:
            raise
        except Exception as error:
            import traceback

            words = str(error)
            if not hasattr(error, "is_refusal"):
                words = _("{kind}: {error}", type(error).__name__, words)
            traceback.print_exc()
            speaker.say(error=words, refused=bool(getattr(error, "is_refusal", False)), **encoded(words))
        else:
            speaker.say(answer=answer, home=os.path.expanduser("~"))
    except Cut:
        sys.exit("the request ended in the middle; nothing was done")


if __name__ == "__main__":
    main()
