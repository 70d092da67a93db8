"""A server without a model: answers after a while, and may end.

python -m stand_in_server REQUEST PORT     # {"ready_s": s, "end_s": s or null, "code": n}
It ends `end_s` after it began, or after its first answer where it is ready before that.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from btrm.train.rank import die_with_parent

ASKED = threading.Event()


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health/" else 404)
        self.end_headers()
        ASKED.set()

    def log_message(self, *_: Any) -> None:
        pass


def main(request: Path, port: int) -> None:
    told = json.loads(request.read_text())
    if told.get("end_s") is None:
        time.sleep(told["ready_s"])
        HTTPServer(("127.0.0.1", port), Health).serve_forever()
    if told["ready_s"] < told["end_s"]:
        time.sleep(told["ready_s"])
        threading.Thread(target=HTTPServer(("127.0.0.1", port), Health).serve_forever, daemon=True).start()
        ASKED.wait()
    time.sleep(told["end_s"])
    print("ValueError: No available memory for the cache blocks")
    sys.exit(told["code"])


if __name__ == "__main__":
    die_with_parent()
    main(Path(sys.argv[1]), int(sys.argv[2]))
