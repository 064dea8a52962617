"""A small model hub on this machine: enough of the hub's protocol to download and upload models, and its refusals."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

COMMITS = {"main": "a" * 40, "v1": "b" * 40}
WRITER, READER = "hf_writer", "hf_reader"
"""Tokens: one may write to the repositories of `OWNER`, the other to none. The hub accepts no others."""
OWNER = "me"
LARGE = 10_000
"""Bytes from which a file is uploaded by itself, before the commit that names it."""


class Hub(ThreadingHTTPServer):
    """Serves the folders in `models`, by id and revision. Ids in `gated` need consent.

    What is pushed goes below `storage`. With `cut` the next weights break off in the middle; `requests` are the paths
    that were asked for.
    """

    def __init__(
        self,
        models: dict[str, dict[str, Path]],
        gated: frozenset[str] = frozenset(),
        storage: Path | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.gated, self.storage = gated, storage
        self.branches = {name: {branch: COMMITS[branch] for branch in each} for name, each in models.items()}
        self.folders = {
            (name, COMMITS[branch]): folder for name, each in models.items() for branch, folder in each.items()
        }
        self.private: set[str] = set()
        self.uploads: dict[str, bytes] = {}  # large files, by their digest
        self.cut = False
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def find(self, name: str, revision: str) -> tuple[str, Path] | None:
        """Return the commit of a branch or commit, and the folder of its files."""
        commit = self.branches[name].get(revision, revision)
        folder = self.folders.get((name, commit))
        return (commit, folder) if folder else None

    def create(self, name: str, private: bool) -> None:
        """Create a repository that has no files but one that the hub writes."""
        assert self.storage
        folder = self.storage / name / "new"
        folder.mkdir(parents=True)
        (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
        self.branches[name] = {"main": "0" * 40}
        self.folders[name, "0" * 40] = folder
        if private:
            self.private.add(name)

    def commit(self, name: str, branch: str, lines: list[dict[str, Any]]) -> str:
        """Do what a commit says, all of it at once. Return the new commit's hash."""
        assert self.storage
        found = self.find(name, branch)
        assert found
        commit = hashlib.sha1(json.dumps([found[0], lines]).encode()).hexdigest()
        folder = self.storage / name / commit
        shutil.copytree(found[1], folder)
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                assert value["parentCommit"] == found[0], "what was there when the client looked"
            elif line["key"] == "deletedFile":
                (folder / value["path"]).unlink()
            else:
                content = self.uploads[value["oid"]] if "oid" in value else base64.b64decode(value["content"])
                (folder / value["path"]).parent.mkdir(parents=True, exist_ok=True)
                (folder / value["path"]).write_bytes(content)
        self.folders[name, commit] = folder
        self.branches[name][branch] = commit
        return commit


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


@contextmanager
def nobody_there(hub: Hub) -> Iterator[None]:
    """Meanwhile connections to the hub's address are refused."""
    hub.shutdown()
    hub.server_close()
    hub.socket = socket.socket()
    hub.server_bind()  # which keeps the port, and accepts nothing yet
    try:
        yield
    finally:
        hub.server_activate()
        threading.Thread(target=hub.serve_forever, daemon=True).start()


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Be quiet."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_PUT(self) -> None:
        """Receive a large file."""
        content = self._body()
        self.server.uploads[hashlib.sha256(content).hexdigest()] = content
        self._send_json({})

    def do_POST(self) -> None:
        body, parts = self._body(), self._parts()
        if parts == ["api", "validate-yaml"]:
            yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            return self._send_json({"errors": [], "warnings": []})
        token = self._token()
        if token not in (WRITER, READER):
            return self._refuse_token()
        name = self._name(parts)
        if parts == ["api", "repos", "create"]:
            name = "{organization}/{name}".format_map(json.loads(body))
        if token == READER or not name.startswith(f"{OWNER}/"):
            return self._refuse(403, message="You don't have the rights to do this")
        return self._change(name, parts, body)

    def _change(self, name: str, parts: list[str], body: bytes) -> None:
        """Answer a request to create or change a repository."""
        hub = self.server
        if parts[-1] == "create":
            known = name in hub.branches
            if not known:
                hub.create(name, json.loads(body).get("visibility") == "private")
            return self._send_json({"url": f"{hub.url}/{name}"}, 409 if known else 200)
        if parts[-2] == "branch":
            if parts[-1] in hub.branches[name]:
                return self._send_json({}, 409)
            hub.branches[name][parts[-1]] = hub.branches[name]["main"]
            return self._send_json({})
        if parts[-2] == "preupload":
            return self._send_json({"files": [_upload_mode(file) for file in json.loads(body)["files"]]})
        if parts[-1] == "batch":
            objects = [_upload_place(hub.url, file) for file in json.loads(body)["objects"]]
            return self._send_json({"transfer": "basic", "objects": objects})
        commit = hub.commit(name, parts[-1], [json.loads(line) for line in body.splitlines()])
        return self._send_json({"commitOid": commit, "commitUrl": f"{hub.url}/{name}/commit/{commit}"})

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _refuse_token(self) -> None:
        self._refuse(401, message="Invalid credentials in Authorization header")

    def _parts(self) -> list[str]:
        return [unquote(part) for part in self.path.partition("?")[0].strip("/").split("/")]

    def _name(self, parts: list[str]) -> str:
        of_api = parts[:2] == ["api", "models"]
        return "/".join(parts[2:4] if of_api else parts[:2]).removesuffix(".git")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, with_body: bool) -> None:
        hub, parts = self.server, self._parts()
        hub.requests.append(f"{self.command} {self.path}")
        name, token = self._name(parts), self._token()
        if parts == ["api", "whoami-v2"]:
            return self._send_json({"name": OWNER}) if token in (WRITER, READER) else self._refuse_token()
        if name not in hub.branches or (name in hub.private and token != WRITER):
            return self._refuse(404, "RepoNotFound")
        if name in hub.gated:
            return self._refuse(403, "GatedRepo")
        kind = next((kind for kind in ("resolve", "tree", "revision") if kind in parts), None)
        if kind is None and parts[0] != "api":
            return self._refuse(404, "EntryNotFound")
        found = hub.find(name, parts[parts.index(kind) + 1] if kind else "main")
        if found is None:
            return self._refuse(404, "RevisionNotFound")
        commit, folder = found
        if kind == "tree":
            return self._send_json([_tree_entry(folder, path) for path in files_below(folder)])
        if kind != "resolve":
            siblings = [{"rfilename": path} for path in files_below(folder)]
            about = {"id": name, "sha": commit, "private": name in hub.private, "siblings": siblings}
            return self._send_json(about)
        file = folder / "/".join(parts[parts.index("resolve") + 2 :])
        if not file.is_file():
            return self._refuse(404, "EntryNotFound")
        return self._send(file.read_bytes(), commit, with_body)

    def _send(self, content: bytes, commit: str, with_body: bool) -> None:
        start = 0
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes="):
            start = int(asked.removeprefix("bytes=").split("-")[0] or 0)
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not with_body:
            return
        if self.server.cut and len(content) > LARGE:
            self.wfile.write(content[start : len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def _send_json(self, answer: Any, status: int = 200) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: int, code: str = "", message: str = "") -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _upload_mode(file: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if file["size"] > LARGE else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}


def _upload_place(url: str, file: dict[str, Any]) -> dict[str, Any]:
    return {**file, "actions": {"upload": {"href": f"{url}/uploads/{file['oid']}"}}}


def _tree_entry(folder: Path, path: str) -> dict[str, Any]:
    content = (folder / path).read_bytes()
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha256(content).hexdigest()}
