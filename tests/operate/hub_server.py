"""A hub on this machine: the few addresses that the real client asks for when it downloads a repository."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

# {("models" | "datasets", name): {file: bytes}}
Repositories = dict[tuple[str, str], dict[str, bytes]]
COMMIT = "c0ffee" * 6 + "c0ff"


@contextmanager
def serving(repositories: Repositories) -> Generator[tuple[str, list[str]]]:
    """Yield the address and the list of requests, which grows."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append(f"{self.command} {path}")
            found = _found(path, repositories)
            self.send_response(200 if found is not None else 404)
            if found is None:
                self.send_header("X-Error-Code", "RepoNotFound")
            data = found or b""
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def _found(path: str, repositories: Repositories) -> bytes | None:
    for (kind, name), files in repositories.items():
        if path.startswith(f"/api/{kind}/{name}"):
            if "/tree/" in path:
                return json.dumps(
                    [
                        {"type": "file", "path": f, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                        for f, b in files.items()
                    ]
                ).encode()
            siblings = [{"rfilename": file} for file in files]
            return json.dumps({"id": name, "sha": COMMIT, "siblings": siblings, "private": False}).encode()
        prefix = f"/{name}/resolve/" if kind == "models" else f"/datasets/{name}/resolve/"
        if path.startswith(prefix):
            rest = path.removeprefix(prefix)
            for file, data in files.items():
                if rest.endswith(f"/{file}"):
                    return data
    return None
