"""A small W&B server: what an init, a file stream, files and artifacts ask for, kept in memory."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class StoredRun:
    """What the server has of a run. ``history``: rows by line number, as W&B's own server has it:
    a line that is sent again replaces itself."""

    properties: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None

    def values(self, key: str) -> list[Any]:
        """Of the rows that have it, in order."""
        return [row[key] for row in self.history if key in row]


@dataclass
class WandbServer:
    """trouble: asked before every answer with the request's path; a status that it gives is
    answered in place of what was asked for."""

    address: str = ""
    runs: dict[str, StoredRun] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    trouble: Callable[[str], int | None] = lambda _: None
    die: Callable[[], None] = lambda: None

    def run(self, name: str) -> StoredRun:
        return self.runs.setdefault(name, StoredRun())

    def stream(self, name: str, body: dict[str, Any]) -> None:
        run = self.run(name)
        files = body.get("files") or {}
        if rows := files.get("wandb-history.jsonl"):
            for number, line in enumerate(rows["content"], start=rows["offset"]):
                run.history[number : number + 1] = [json.loads(line)]
        if summary := files.get("wandb-summary.json"):
            run.summary = json.loads(summary["content"][-1])
        if "exitcode" in body:
            run.exit_code = body["exitcode"]

    def query(self, text: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": variables.get("project"), "entity": {"id": "e", "name": "me"}}
        name = variables.get("name") or variables.get("run") or variables.get("runName") or ""
        operation = text.split("(")[0].split("{")[0].split()[-1]
        match operation:
            case "RunResumeStatus":
                found = self.runs.get(name)
                return {"model": found and {**project, "bucket": self._bucket(name, found)}}
            case "UpsertBucket":
                run = self.run(name)
                given = {key: value for key, value in variables.items() if value is not None}
                run.config |= json.loads(given.pop("config", "{}"))
                run.properties |= given
                bucket = {"id": name, "name": name, "config": "{}", "project": project}
                return {"upsertBucket": {"bucket": bucket, "inserted": True}}
            case "CreateRunFiles":
                return {"createRunFiles": self._upload(name, variables["files"])}
            case "ServerFeaturesQuery" | "Viewer" | "query":
                viewer = {"id": "v", "entity": "me", "username": "me", "flags": "{}"}
                return {"viewer": viewer, "serverInfo": {"features": []}}
            case "ArtifactType":
                return {"project": {"artifact": None}}
            case "CreateArtifact":
                given = variables["input"]
                self.artifacts[given["artifactCollectionName"]] = given
                sequence = {"latestArtifact": {"id": given["digest"]}}
                # As of content that the server has already: nothing of it is uploaded.
                found = {"id": given["digest"], "state": "COMMITTED", "artifactSequence": sequence}
                return {"createArtifact": {"artifact": found}}
            case "UseArtifact":
                return {"useArtifact": {"artifact": {"id": "a"}}}
        self.unknown.append(f"{text}\n{json.dumps(variables)}")
        return {}

    def _bucket(self, name: str, run: StoredRun) -> dict[str, Any]:
        lines = len(run.history)
        tail = json.dumps([json.dumps(row) for row in run.history[-1:]])
        return {
            "id": name,
            "name": name,
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.properties.get("displayName"),
            "logLineCount": 0,
            "historyLineCount": lines,
            "eventsLineCount": 0,
            "historyTail": tail,
            "eventsTail": "[]",
            "config": json.dumps(run.config),
            "tags": run.properties.get("tags"),
            "notes": run.properties.get("notes"),
            "wandbConfig": json.dumps(
                {"t": run.config.get("_wandb", {}).get("value", {}).get("t")}
            ),
        }

    def _upload(self, name: str, files: list[str]) -> dict[str, Any]:
        urls = [{"name": f, "uploadUrl": f"{self.address}/upload/{name}/{f}"} for f in files]
        return {"runID": name, "uploadHeaders": [], "files": urls}


@contextlib.contextmanager
def serving() -> Iterator[WandbServer]:
    state = WandbServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def handle_one_request(self) -> None:
            with contextlib.suppress(ConnectionError):
                super().handle_one_request()

        def do_GET(self) -> None:
            self.answer(lambda _: {})

        def do_POST(self) -> None:
            self.answer(self.post)

        def do_PUT(self) -> None:
            self.answer(self.put)

        def do_CONNECT(self) -> None:
            state.requests.append(self.requestline)
            self.send_error(503)

        def post(self, body: bytes) -> dict[str, Any]:
            content = json.loads(body)
            if self.path == "/graphql":
                data = state.query(content["query"], content.get("variables") or {})
                return {"data": data}
            state.stream(self.path.split("/")[-2], content)
            return {}

        def put(self, body: bytes) -> dict[str, Any]:
            _, _, name, path = self.path.split("/", 3)
            state.run(name).files[path.partition("?")[0]] = body
            return {}

        def answer(self, respond: Callable[[bytes], dict[str, Any]]) -> None:
            state.requests.append(self.requestline)
            body = self.body()
            status = state.trouble(self.path)
            text = json.dumps(respond(body) if status is None else {"error": "no"}).encode()
            self.send_response(status or 200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        listening.block_on_close = False
        state.die = listening.socket.close
        state.address = f"http://127.0.0.1:{listening.server_port}"
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        try:
            yield state
        finally:
            listening.shutdown()
