"""Answers of a job that does not run, from its newest checkpoint, in the process that asks."""

from ftlab_kit import device, models
from ftlab_kit.checkpoints import integrity
from ftlab_kit.configs import Config
from ftlab_kit.errors import NotFound
from ftlab_kit.lm import adapters, generation, loading
from ftlab_kit.records import Job
from ftlab_kit.workspace import Workspace


def answers(ws: Workspace, job: Job, prompts: list[str], max_new_tokens: int) -> list[str]:
    """Return the greedy answers of a job's newest checkpoint that verifies.

    Raises:
        NotFound: There is none.
    """
    found, _ = integrity.newest_valid(ws, job.id)
    if found is None:
        raise NotFound(
            f"Job {job.id} has no checkpoint to answer from. Resume it, or ask while it runs."
        )
    folder = models.pull(ws, job.model).path
    assert folder is not None
    dtype = adapters.weight_dtype(Config(**job.config).training_precision(), adapter="lora")
    model = loading.load_trained(folder, found.path, dtype=dtype).to(device.kind())
    tokenizer = loading.tokenizer(folder)
    return generation.greedy_answers(model, tokenizer, prompts, max_new_tokens=max_new_tokens)
