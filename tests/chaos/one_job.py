"""A job as a plain script, for a tool that kills it at every file boundary and runs it again.

    python -m tests.chaos.one_job OUT TEMPLATE

OUT becomes a workspace, copied from TEMPLATE by another program, so that the copy is not part of
what is examined. The job trains in this process; what it ends with lies in OUT/final.safetensors.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from ftlab_kit import Workspace, datasets, models, trainers
from ftlab_kit.jobs import processes, states, worker
from tests.conftest import TINY, chats_file

CONFIG = TINY.but(max_steps=9, save_every_steps=3, adapter_dropout=0.1, keep_checkpoints=20)


def template(root: Path) -> None:
    """Make the workspace that OUT is copied from: a model, rows, and a job that waits."""
    ws = Workspace(root)
    models.pull(ws, "tiny")
    trainers._enqueue(ws, CONFIG, datasets.add(ws, chats_file(root / "hues.jsonl")))
    ws.close()


def main(out: Path, source: Path) -> int:
    """Train the job from where it is, and say from where that was."""
    if not (out / "ftlab.db").exists():
        subprocess.run(["cp", "-a", f"{source}/.", str(out)], check=True)
    ws = Workspace(out)
    # the rows' path stands in the store; here it is that of the template, which stays
    job = states.read(ws, 1)
    if job.state == "running":  # its process was killed
        states.move(ws, 1, "failed")
    if states.read(ws, 1).state in ("failed", "paused"):
        processes.requeue(ws, 1)
    code = worker.main(str(out), 1)
    resumed = [event.result for event in states.events(ws, 1, command="resume") if event.result]
    print(f"resumed from step {resumed[-1]['from_step'] if resumed else 0}")
    done = trainers.checkpoints(ws, 1)[-1].path / "adapter_model.safetensors"
    shutil.copyfile(done, out / "final.safetensors")
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
