"""A judge that is not ours: ckpt-chaos kills a job at file boundaries and judges what comes back.

Some 30 of its points, evenly spread; each takes two starts of a worker.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.one_job import template

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_no_file_boundary_is_a_place_to_die(tmp_path: Path):
    template(tmp_path / "template")
    command = [
        *(sys.executable, "-m", "ckpt_chaos", "run", "--max-points", "30", "--timeout", "300"),
        *("--checkpoint-glob", "{out}/jobs/1/checkpoints/step-*", "--work", str(tmp_path)),
        *("--step-regex", r"resumed from step (\d+)", "--result-file", "{out}/final.safetensors"),
        *("--fail-on", "HARD_FAIL,SILENT_DIVERGENCE", "--"),
        *(sys.executable, "-m", "tests.chaos.one_job", "{out}", str(tmp_path / "template")),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
