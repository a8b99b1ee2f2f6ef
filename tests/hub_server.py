"""A hub on loopback: the kit pulls the tiny model from it under SmolLM2's name, or rows.

    python tests/hub_server.py WORKSPACE [rows]

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
ROWS = "owner/rows"
COMMIT = "0" * 39 + "1"


def handler(folder: Path, repo: str) -> type[BaseHTTPRequestHandler]:
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
            if self.path.startswith((f"/api/models/{repo}", f"/api/datasets/{repo}")):
                files = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
                about = {"id": repo, "sha": COMMIT, "siblings": files, "private": False}
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
                what = "EntryNotFound" if repo in self.path else "RepoNotFound"
                self.answer(b"", {"X-Error-Code": what}, 404)
                return
            body = path.read_bytes()
            etag = hashlib.sha1(body).hexdigest()
            self.answer(body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    return Hub


def serve(folder: Path, repo: str) -> None:
    """Serve a folder as a repository, and have the hub's client ask here."""
    folder.mkdir(parents=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(folder, repo))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_address[1]}"


def model(root: Path) -> None:
    """Pull a model."""
    folder = root.parent / "repository"
    serve(folder, REPO)

    from ftlab_kit import Workspace, models
    from ftlab_kit.models.catalogue import CATALOGUE
    from ftlab_kit.models.sources import tiny

    tiny.fetch(CATALOGUE["tiny"], folder)
    model = models.pull(Workspace(root), "smollm2-135m-instruct")
    print(json.dumps({"source": model.source, "is_here": model.is_here}))


def rows(root: Path) -> None:
    """Add rows by three names, and say what came of each."""
    folder = root.parent / "repository"
    serve(folder, ROWS)
    for name, count in (("train", 5), ("test", 2)):
        lines = [json.dumps({"question": f"q{n}", "answer": name}) for n in range(count)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))

    from ftlab_kit import Workspace, datasets
    from ftlab_kit.errors import KitError

    ws, columns = Workspace(root), {"prompt": "question", "completion": "answer"}
    for name in (ROWS, f"{ROWS}:test", f"{ROWS}:other", "owner/none"):
        try:
            version = datasets.add(ws, name, columns=columns)
            print(json.dumps([version.dataset, version.n_rows, version.derivation["source"]]))
        except KitError as error:
            print(json.dumps([type(error).__name__, str(error)]))


if __name__ == "__main__":
    (rows if "rows" in sys.argv else model)(Path(sys.argv[1]))
