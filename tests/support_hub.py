"""A Hugging Face hub on loopback, as much of one as models and data sets need to be downloaded."""

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

Json = Any
PATHS = re.compile(
    r"^/(?P<api>api/)?(?P<kind>models/|datasets/)?(?P<name>[^/]+/[^/]+)"
    r"(?:/(?P<what>revision|tree|paths-info|resolve)/(?P<revision>[^/]+)(?:/(?P<path>.*))?)?$"
)


@dataclass
class Repository:
    """A model or a data set: what was pushed, by commit, the latest last."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def push(self, files: Mapping[str, bytes]) -> str:
        """Another state of all files; the commit."""
        content = json.dumps({name: _id(data) for name, data in files.items()})
        commit = _id(f"{len(self.commits)} {content}".encode())
        self.commits[commit] = dict(files)
        return commit

    def commit(self, revision: str) -> str | None:
        """The commit of a branch or commit."""
        if revision == "main":
            return list(self.commits)[-1]
        return revision if revision in self.commits else None


class Hub:
    """Serves until it is left; use it as a context manager, and ``HF_ENDPOINT`` for its clients."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        """Every request, as METHOD PATH."""
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"

    def push(self, name: str, files: Mapping[str, bytes] | Path) -> str:
        """Push a folder, or files by name, to a repository; data sets are datasets/OWNER/NAME."""
        if isinstance(files, Path):
            files = {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()}
        return self.repositories.setdefault(name, Repository()).push(files)

    def latest(self, name: str) -> str | None:
        """The commit that a repository is at."""
        return self.repositories[name].commit("main")

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def _id(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()  # noqa: S324 - as git names things


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"hub": hub})


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer({})

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(json.loads(body))

    def _answer(self, given: Json) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        parts = PATHS.match(path)
        kind = "datasets/" if parts and parts["kind"] == "datasets/" else ""
        repository = self.hub.repositories.get(f"{kind}{parts['name']}") if parts else None
        if parts is None or repository is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            return
        commit = repository.commit(parts["revision"] or "main")
        if commit is None:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        files = repository.commits[commit]
        match parts["what"]:
            case "resolve":
                self._file(commit, files.get(parts["path"]))
            case "tree":
                self._json([_entry(name, content) for name, content in files.items()])
            case "paths-info":
                self._json([_entry(name, files[name]) for name in given["paths"] if name in files])
            case _:
                siblings = [{"rfilename": name} for name in files]
                self._json({"id": parts["name"], "sha": commit, "siblings": siblings})

    def _file(self, commit: str, content: bytes | None) -> None:
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        else:
            self._send(200, content, {"ETag": f'"{_id(content)}"', "X-Repo-Commit": commit})

    def _json(self, value: Json) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _entry(name: str, content: bytes) -> Json:
    return {"type": "file", "path": name, "size": len(content), "oid": _id(content)}
