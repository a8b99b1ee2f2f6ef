"""A hub on loopback: serves the tiny model under SmolLM2's name, and pulls it with the kit.

    python tests/hub_server.py WORKSPACE

A program of its own, because huggingface_hub reads its endpoint once, when it is imported.
"""

import hashlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
COMMIT = "0" * 39 + "1"


def handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path.startswith(f"/api/models/{REPO}"):
                files = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
                about = {"id": REPO, "sha": COMMIT, "siblings": files, "private": False}
                about |= {"gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
                if "/tree/" in self.path:
                    about = [
                        {
                            "type": "file",
                            "path": path.name,
                            "size": path.stat().st_size,
                            "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
                        }
                        for path in sorted(folder.iterdir())
                    ]
                body = json.dumps(about).encode()
                self.answer(body, {"Content-Type": "application/json"})
                return
            path = folder / self.path.rpartition("/")[2]
            if not path.is_file():
                self.answer(b"", {"X-Error-Code": "EntryNotFound"}, 404)
                return
            body = path.read_bytes()
            etag = hashlib.sha1(body).hexdigest()
            self.answer(body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    return Hub


def main(root: Path) -> None:
    folder = root.parent / "repository"
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_address[1]}"

    from ftlab_kit import Workspace, models
    from ftlab_kit.models import tiny
    from ftlab_kit.models.catalogue import CATALOGUE

    folder.mkdir(parents=True)
    tiny.fetch(CATALOGUE["tiny"], folder)
    made = models.pull(Workspace(root), "smollm2-135m-instruct")
    print(json.dumps({"source": made.source, "is_here": made.is_here}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
