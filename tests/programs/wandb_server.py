"""A stand-in for W&B's server: takes what its client sends, and keeps the history of each run."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """The server, and what it has."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, dict[str, Any]] = {}
        """The variables of the last mutation of each run, by its id."""
        self.history: dict[str, list[dict[str, Any]]] = {}
        """The rows that each run has logged."""

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        self._body()
        self._reply({})

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/graphql":
            self._reply({"data": self._graphql(json.loads(body))})
            return
        if self.path.endswith("/file_stream"):
            run = self.path.split("/")[-2]
            chunk = (json.loads(body).get("files") or {}).get("wandb-history.jsonl") or {}
            rows = self.server.history.setdefault(run, [])
            rows[chunk.get("offset", len(rows)) :] = map(json.loads, chunk.get("content", ()))
        self._reply({})

    def _graphql(self, asked: dict[str, Any]) -> dict[str, Any]:
        query, given = asked["query"], asked.get("variables") or {}
        if "mutation UpsertBucket" in query:
            known = self.server.runs.setdefault(given["name"], {})
            known.update({name: value for name, value in given.items() if value})
            project = {"id": "p", "name": given.get("project") or "p", "entity": {"id": "e", "name": "me"}}
            count = len(self.server.history.get(given["name"], []))
            bucket = {"id": "b", "name": given["name"], "displayName": known.get("displayName"), "config": "{}",
                      "project": project, "historyLineCount": count}  # fmt: skip
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "mutation CreateRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.server.url}/upload"} for name in given["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if "query RunResumeStatus" in query:
            bucket = self._to_resume(given["name"])
            return {"model": {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}, "bucket": bucket}}
        return {}

    def _to_resume(self, run: str) -> dict[str, Any] | None:
        if run not in self.server.history:
            return None
        rows = self.server.history[run]
        return {"id": "b", "name": run, "summaryMetrics": json.dumps(rows[-1] if rows else {}), "displayName": run,
                "logLineCount": 0, "historyLineCount": len(rows), "eventsLineCount": 0, "config": "{}", "tags": [],
                "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]), "eventsTail": "[]",
                "wandbConfig": json.dumps({"t": 1})}  # fmt: skip

    def _body(self) -> bytes:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        return gzip.decompress(content) if self.headers.get("content-encoding") == "gzip" else content

    def _reply(self, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def serving() -> Iterator[Server]:
    """Serve in another thread."""
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
