"""What stands between visitors and Gradio: the few routes that the page needs, and no path to other files.

Gradio also serves what this page does not use: it would fetch files from the internet for a visitor, and, mounted in
another program, read any file of this machine that a request names.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from moclip.inference.untrusted_clip import megabytes
from pipeline.app.uploads import Uploads

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Program = Callable[[Message, Receive, Send], Awaitable[None]]

API = "/gradio_api"
UPLOAD = f"{API}/upload"
FILE = f"{API}/file="
READ = (
    "/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json",
    f"{API}/info", f"{API}/queue/data", f"{API}/queue/status", f"{API}/upload_progress", f"{API}/startup-events",
    f"{API}/app_id", f"{API}/login_check", f"{API}/user",
)  # fmt: skip
READ_BELOW = ("/assets/", "/static/", "/svelte/", f"{API}/heartbeat/", f"{API}/call/")
WRITTEN = (UPLOAD, f"{API}/queue/join", f"{API}/cancel", f"{API}/reset")
WRITTEN_BELOW = (f"{API}/call/",)
MOST_JSON = 2**20
"""Bytes of a request that is no file."""
AROUND_FILE = 2**16
"""Bytes of a request with a file that are not the file."""

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""Lets a browser load nothing from other hosts."""
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Guard:
    """A program (ASGI) around Gradio's that refuses what the page does not need.

    uploads : learns of each file that arrives.
    most : bytes of a file.
    hosts : names by which the server may be called; None: any. A page of another host that leads its name to this
        machine cannot ask then.
    """

    def __init__(self, program: Program, uploads: Uploads, most: int, hosts: frozenset[str] | None) -> None:
        self.program, self.uploads, self.most, self.hosts = program, uploads, most, hosts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.program(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, _with_headers(send))
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1003})

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        path, headers = scope["path"].rstrip("/") or "/", dict(scope["headers"])
        if self.hosts is not None and _host_name(headers.get(b"host", b"")) not in self.hosts:
            await _refuse(send, 421, "this page is not for other hosts")
        elif scope["method"] in ("GET", "HEAD") and self._may_read(scope["path"], path):
            await self.program(scope, receive, send)
        elif scope["method"] != "POST" or not (path in WRITTEN or path.startswith(WRITTEN_BELOW)):
            await _refuse(send, 404, "not found")
        elif path == UPLOAD:
            await self._upload(scope, headers, receive, send)
        else:
            await self._pass_json(scope, receive, send)

    def _may_read(self, whole: str, path: str) -> bool:
        if whole.startswith(FILE):
            return self.uploads.holds(whole.removeprefix(FILE))
        return path in READ or path.startswith(READ_BELOW)

    async def _upload(self, scope: Message, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        """Pass a file on if it is not too large, and note the paths that Gradio's answer names."""
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            await _refuse(send, 411, "say how long the file is")
            return
        if int(length) > self.most + AROUND_FILE:
            await _refuse(send, 413, f"this file is larger than {megabytes(self.most)}")
            return
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        answer: list[bytes] = []

        async def note(message: Message) -> None:
            answer.append(message.get("body", b""))
            await send(message)

        with self.uploads.arriving() as paths:
            await self.program({**scope, "headers": plain}, receive, note)
            paths += _listed_paths(b"".join(answer))

    async def _pass_json(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on if each file that it names was sent by a visitor. Gradio refuses it in a full queue."""
        content, more = b"", True
        while more:
            message = await receive()
            content += message.get("body", b"")
            more = message.get("more_body", False)
            if len(content) > MOST_JSON:
                await _refuse(send, 413, "this request is too large")
                return
        try:
            named = list(_named_paths(json.loads(content or b"null")))
        except (ValueError, RecursionError):
            await _refuse(send, 400, "this is no JSON")
            return
        if not all(isinstance(path, str) and self.uploads.holds(path) for path in named):
            await _refuse(send, 403, "the file is not here (any more); send it again")
            return
        self.uploads.expect(named)
        waiting: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        async def note(message: Message) -> None:
            if message.get("status", 200) >= 400:
                self.uploads.give_up(named)
            await send(message)

        await self.program(scope, replay, note)


def _named_paths(value: Any) -> Iterator[Any]:
    """Yield what stands under "path" anywhere in JSON."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        if key == "path":
            yield item
        else:
            yield from _named_paths(item)


def _listed_paths(content: bytes) -> list[str]:
    """Return the paths that Gradio's answer to an upload lists; none where it refuses the file."""
    try:
        found = json.loads(content)
    except ValueError:
        return []
    return [path for path in found if isinstance(path, str)] if isinstance(found, list) else []


def _host_name(host: bytes) -> str:
    """Return the name in "name:port" or "[::1]:port"."""
    text = host.decode("latin-1").lower()
    return text.partition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await send(message)

    return send_with_headers


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason, "error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
