"""A web server on loopback that keeps what is posted to it, and stand-ins for sendmail."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Post:
    """A request that came."""

    path: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.content)
        return found


@dataclass
class Receiver:
    """A server that answers every POST alike."""

    status: int = 200
    answer: bytes = b'{"code": 0, "errcode": 0, "msg": "success", "errmsg": "ok"}'
    holds: threading.Event | None = None
    """Until it is set nobody is answered."""
    breaks_off: bool = False
    """Whether an answer is shorter than it says."""
    posts: list[Post] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """An address whose path is a secret."""
        return f"http://127.0.0.1:{self.port}/hook/SECRET-7f3a9c"

    def events(self) -> list[tuple[str, str]]:
        """Return event and run of each, of the form json."""
        return [(post.json["event"], post.json.get("run", "")) for post in self.posts]


@contextmanager
def receiving(address: str = "127.0.0.1", **values: Any) -> Iterator[Receiver]:
    """Serve for a while."""
    receiver = Receiver(**values)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            receiver.posts.append(Post(self.path, dict(self.headers), content))
            if receiver.holds is not None:
                receiver.holds.wait(120)
            try:
                self.send_response(receiver.status)
                self.send_header("Content-Length", str(len(receiver.answer) + receiver.breaks_off))
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(receiver.answer)
            except OSError:  # who asked has gone
                pass

        def log_message(self, *_given: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer((address, 0), Handler) as server:
        server.daemon_threads = True
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            if receiver.holds is not None:
                receiver.holds.set()
            server.shutdown()
            thread.join()


def secret_file(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    path.chmod(mode)
    return path


def stand_in_for_sendmail(folder: Path, lines: str = "") -> Path:
    """Make a sendmail in a folder that keeps letters and its arguments beside itself; return where the letters are.

    Args:
        lines: Of shell, done first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    letters = folder / "letters"
    program = folder / "sendmail"
    program.write_text(f'#!/bin/sh\n{lines}\necho "$@" >> "{folder}/arguments"\ncat >> "{letters}"\n')
    program.chmod(0o755)
    return letters
