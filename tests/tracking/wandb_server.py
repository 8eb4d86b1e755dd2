"""A W&B server on loopback, as much of one as the client needs, that remembers what it was sent."""

import contextlib
import gzip
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = Any


@dataclass
class SentRun:
    """What a client has sent of one run."""

    files: dict[str, dict[int, str]] = field(default_factory=dict)
    """Lines of the streamed files, by their offset."""
    properties: dict[str, Json] = field(default_factory=dict)
    """The last value of everything that was upserted."""
    exit_codes: list[int] = field(default_factory=list)
    preempting: bool = False
    """Whether a client has ever said so."""
    state: str = "running"

    def lines(self, name: str) -> list[str]:
        """A streamed file."""
        return [text for _, text in sorted(self.files.get(name, {}).items())]

    @property
    def history(self) -> list[dict[str, Json]]:
        """The logged rows in the server's order."""
        return [json.loads(line) for line in self.lines("wandb-history.jsonl")]

    @property
    def summary(self) -> dict[str, Json]:
        """The summary as it stands."""
        lines = self.lines("wandb-summary.json")
        return json.loads(lines[-1]) if lines else {}

    @property
    def config(self) -> dict[str, Json]:
        """The configuration, with the client's own entry ``_wandb``."""
        return {k: v["value"] for k, v in json.loads(self.properties["config"]).items()}


class WandbServer:
    """Serves until ``stop``; use it as a context manager. ``runs`` holds what arrived, by run."""

    def __init__(self, runs: dict[str, SentRun] | None = None) -> None:
        self.runs = {} if runs is None else runs
        self.uploads: dict[str, bytes] = {}
        self.artifacts: list[str] = []
        self._streams_left = -1
        self._answers = threading.Event()
        self._answers.set()
        self._http = _HttpServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "WandbServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Be gone: connections break and new ones are refused. Harmless the second time."""
        self._answers.set()
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
            self._http.server_close()
            self._http.break_connections()

    def hang(self) -> None:
        """Take requests and answer none, until ``stop``."""
        self._answers.clear()

    def stop_after_streams(self, count: int) -> None:
        """Be gone as soon as so many requests brought rows."""
        self._streams_left = count

    def answer(self, path: str, sent: Json) -> Json:
        """The answer to a POST."""
        self._answers.wait()
        if path == "/graphql":
            name = re.search(r"(?:query|mutation) (\w+)", sent["query"])
            handler = getattr(self, f"_on_{name and name[1]}", None)
            return {"data": handler(sent.get("variables") or {}) if handler else {}}
        if path.endswith("/file_stream"):
            self._stream(self.runs.setdefault(path.split("/")[-2], SentRun()), sent)
        return {}

    def _stream(self, run: SentRun, sent: Json) -> None:
        for name, chunk in (sent.get("files") or {}).items():
            lines = run.files.setdefault(name, {})
            lines.update(enumerate(chunk["content"], start=chunk["offset"]))
            self._streams_left -= name == "wandb-history.jsonl"
        if self._streams_left == 0:
            threading.Thread(target=self.stop).start()
        if sent.get("preempting"):
            run.preempting, run.state = True, "preempting"
        if sent.get("complete"):
            run.exit_codes.append(sent["exitcode"])
            is_back_soon = run.state == "preempting" and sent["exitcode"]
            run.state = (
                "preempted" if is_back_soon else "failed" if sent["exitcode"] else "finished"
            )

    def _on_Viewer(self, _: Json) -> Json:  # noqa: N802
        return {
            "viewer": {
                "id": "u",
                "entity": "team",
                "username": "someone",
                "email": "someone@example.org",
                "flags": "{}",
                "teams": {"edges": [{"node": {"name": "team"}}]},
            }
        }

    def _on_GetDefaultEntity(self, _: Json) -> Json:  # noqa: N802
        return {"viewer": {"id": "u", "entity": "team"}}

    def _on_Run(self, variables: Json) -> Json:  # noqa: N802
        run = self.runs.get(variables["name"])
        if run is None:
            return {"project": {"run": None}}
        shown = {
            "projectId": "1",
            "state": run.state,
            "user": {"name": "someone", "username": "someone"},
            "readOnly": False,
        }
        return {"project": {"run": self._bucket(variables, run) | shown}}

    def _on_RunResumeStatus(self, variables: Json) -> Json:  # noqa: N802
        run = self.runs.get(variables["name"])
        return {"model": _project(variables) | {"bucket": run and self._bucket(variables, run)}}

    def _on_UpsertBucket(self, variables: Json) -> Json:  # noqa: N802
        new = variables["name"] not in self.runs
        run = self.runs.setdefault(variables["name"], SentRun())
        if variables.get("host"):
            run.state = "running"
        run.properties.update({k: v for k, v in variables.items() if v is not None})
        return {"upsertBucket": {"bucket": self._bucket(variables, run), "inserted": new}}

    def _bucket(self, variables: Json, run: SentRun) -> Json:
        history, events = run.lines("wandb-history.jsonl"), run.lines("wandb-events.jsonl")
        return {
            "id": "bucket-" + variables["name"],
            "name": variables["name"],
            "displayName": run.properties.get("displayName") or variables["name"],
            "description": None,
            "project": _project(variables),
            "sweepName": None,
            "summaryMetrics": json.dumps(run.summary),
            "config": run.properties.get("config") or "{}",
            "historyLineCount": len(history),
            "eventsLineCount": len(events),
            "logLineCount": 0,
            "historyTail": json.dumps(history[-1:]),
            "eventsTail": json.dumps(events[-1:]),
            "group": run.properties.get("groupName"),
            "jobType": run.properties.get("jobType"),
            "tags": run.properties.get("tags") or [],
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }

    def _on_CreateRunFiles(self, variables: Json) -> Json:  # noqa: N802
        files = [
            {"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]
        ]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def _on_ArtifactType(self, _: Json) -> Json:  # noqa: N802
        return {"project": {"artifact": None}}

    def _on_CreateArtifact(self, variables: Json) -> Json:  # noqa: N802
        self.artifacts.append(variables["input"]["artifactCollectionName"])
        # Known already, so that its content need not be taken: the run's own files hold it too.
        known = {
            "id": "a",
            "state": "COMMITTED",
            "artifactSequence": {"latestArtifact": {"id": "a"}},
        }
        return {"createArtifact": {"artifact": known}}


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._connections: list[socket.socket] = []
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, *_: object) -> None:  # clients that hang up are part of the tests
        pass

    def break_connections(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _project(variables: Json) -> Json:
    entity, name = variables.get("entity") or "team", variables.get("project") or "uncategorized"
    return {"id": "project", "name": name, "entity": {"id": "team", "name": entity}}


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            known = self.path == "/graphql" or self.path.startswith("/files/")
            self._reply(server.answer(self.path, json.loads(body)) if known else {})

        def do_PUT(self) -> None:
            server.uploads[self.path.removeprefix("/upload/")] = self._body()
            self._reply({})

        def do_GET(self) -> None:
            self._reply({})

        def log_message(self, *_: object) -> None:  # the tests' output is no web server's log
            pass

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _reply(self, answer: Json) -> None:
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    return Handler
