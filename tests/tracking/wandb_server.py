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
class StoredArtifact:
    """``given``: what W&B was told at its creation. made_by and used_by: names of runs."""

    given: dict[str, Any]
    state: str = "PENDING"
    files: dict[str, bytes] = field(default_factory=dict)
    made_by: set[str] = field(default_factory=set)
    used_by: set[str] = field(default_factory=set)


@dataclass
class WandbServer:
    """trouble: asked before every answer with the request's path; a status that it gives is
    answered in place of what was asked for. agent_commands: what a W&B agent is told, one when it
    has nothing to run."""

    address: str = ""
    runs: dict[str, StoredRun] = field(default_factory=dict)
    artifacts: dict[str, StoredArtifact] = field(default_factory=dict)
    sweep_command: list[str] = field(default_factory=list)
    agent_commands: list[dict[str, Any]] = field(default_factory=list)
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
            case "SweepWithRuns":
                config = json.dumps({"command": self.sweep_command})
                sweep = {"id": "s", "name": variables["sweep"], "config": config}
                return {"project": {"sweep": {**sweep, "runs": {"edges": []}}}}
            case "CreateAgent":
                return {"createAgent": {"agent": {"id": "agent"}}}
            case "Heartbeat":
                states = json.loads(variables["runState"] or "{}")
                commands = [] if states else self.agent_commands[:1]
                del self.agent_commands[: len(commands)]
                answer = commands if commands or states else [{"type": "exit"}]
                return {"agentHeartbeat": {"agent": {"id": "a"}, "commands": json.dumps(answer)}}
            case "CreateArtifact":
                return {"createArtifact": {"artifact": self._create(variables["input"])}}
            case "CreateArtifactManifest":
                url = self._artifact_url(variables["artifactID"], variables["name"])
                file = {"id": "f", "uploadUrl": url, "uploadHeaders": []}
                return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}
            case "CreateArtifactFiles":
                nodes = [self._artifact_file(each) for each in variables["input"]["artifactFiles"]]
                edges = [{"node": node} for node in nodes]
                return {"createArtifactFiles": {"files": {"edges": edges}}}
            case "CommitArtifact":
                found = self.artifacts[variables["artifactID"]]
                found.state = "COMMITTED"
                digest = found.given["digest"]
                artifact = {"id": variables["artifactID"], "digest": digest}
                return {"commitArtifact": {"artifact": artifact}}
            case "ArtifactByID":
                return {"artifact": self._describe(variables["id"])}
            case "UseArtifact":
                given = variables.get("input", variables)  # wandb's two halves ask differently
                self.artifacts[given["artifactID"]].used_by.add(given["runName"])
                return {"useArtifact": {"artifact": {"id": given["artifactID"]}}}
        self.unknown.append(f"{text}\n{json.dumps(variables)}")
        return {}

    def _create(self, given: dict[str, Any]) -> dict[str, Any]:
        """W&B knows an artifact by collection and digest; what it has is not uploaded again."""
        identity = f"{given['artifactCollectionName']}-{given['digest']}"
        found = self.artifacts.setdefault(identity, StoredArtifact(given))
        if given["runName"]:
            found.made_by.add(given["runName"])
        return {"id": identity, "state": found.state, "artifactSequence": {"latestArtifact": None}}

    def _artifact_url(self, identity: str, path: str) -> str:
        return f"{self.address}/artifact/{identity}/{path}"

    def _artifact_file(self, given: dict[str, Any]) -> dict[str, Any]:
        identity, path = given["artifactID"], given["name"]
        return {
            "name": path,
            "displayName": path,
            "storagePath": f"{identity}/{path}",
            "uploadUrl": self._artifact_url(identity, path),
            "uploadHeaders": [],
            "uploadMultipartUrls": None,
            "artifact": {"id": identity},
        }

    def _describe(self, identity: str) -> dict[str, Any]:
        found = self.artifacts[identity]
        owner = {"id": "p", "internalId": "p", "name": "lungan", "entity": {"name": "me"}}
        name = found.given["artifactCollectionName"]
        return {
            "__typename": "Artifact",
            "id": identity,
            "artifactSequence": {"__typename": "ArtifactSequence", "name": name, "project": owner},
            "versionIndex": 0,
            "artifactType": {"name": found.given["artifactTypeName"]},
            "description": None,
            "metadata": found.given["metadata"],
            "ttlDurationSeconds": -1,
            "ttlIsInherited": False,
            "tags": [],
            "historyStep": None,
            "state": found.state,
            "size": sum(map(len, found.files.values())),
            "digest": found.given["digest"],
            "commitHash": None,
            "fileCount": len(found.files),
            "createdAt": "2026-01-01T00:00:00",
            "updatedAt": None,
            "aliases": [],
        }

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
            _, kind, name, path = self.path.split("/", 3)
            of = state.artifacts[name] if kind == "artifact" else state.run(name)
            of.files[path.partition("?")[0]] = body
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
