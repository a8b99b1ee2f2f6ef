"""Task suites of lm-eval, run by lm-eval itself on a model of the kit.

Prompts, answers and scores are lm-eval's (Gao et al., https://zenodo.org/records/12608602), so they
are those that others publish. The chat template is applied, as the models here are chat models.
"""

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from typing import Any

from ftlab_kit.chats import ChatModel
from ftlab_kit.configs import EvaluationConfig
from ftlab_kit.errors import InputError, Unavailable, nearest


def check(tasks: Sequence[str], folder: str | None) -> None:
    """Refuse tasks that can't be run, before a model is loaded.

    Raises:
        Unavailable: lm-eval is not installed.
        InputError: There is no such task.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise Unavailable(
            "lm-eval is not installed, and task suites are run by it alone. Install it with: "
            'pip install "ftlab-kit[suites]".'
        )
    known = _tasks(folder).all_tasks
    for name in tasks:
        if name not in known:
            raise InputError(
                f"lm-eval has no task {name!r}.{nearest(name, known)} See them with: lm_eval ls "
                "tasks; give the folder of your own ones as folder=."
            )


def scored(
    speaker: ChatModel, tasks: Sequence[str], folder: str | None, config: EvaluationConfig
) -> dict[str, Any]:
    """Return the columns of an evaluation that lm-eval has made.

    Raises:
        InputError: The model is elsewhere.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    if speaker.model is None:
        raise InputError(
            f"{speaker.label} is elsewhere; expected a model whose weights are here. Run lm-eval's "
            "own command with its API models."
        )
    model = HFLM(pretrained=speaker.model, tokenizer=speaker.tokenizer, batch_size=8)
    found = simple_evaluate(
        model=model,
        tasks=[*tasks],
        task_manager=_tasks(folder),
        limit=config.max_rows,
        apply_chat_template=True,
        random_seed=config.seed,
        bootstrap_iters=0,
        gen_kwargs={"max_gen_toks": config.max_new_tokens},
        log_samples=False,
    )
    return _columns(found, config)


def _columns(found: Any, config: EvaluationConfig) -> dict[str, Any]:
    scores: dict[str, float | None] = {}
    details: dict[str, Any] = {}
    for task, results in found["results"].items():
        for key, value in results.items():
            metric, _, how = key.partition(",")
            if isinstance(value, float | int) and how and not metric.endswith("_stderr"):
                name = f"{task}/{metric}" + (f"/{how}" if how != "none" else "")
                scores[name] = float(value)
                greater = found["higher_is_better"].get(task, {}).get(metric)
                details[name] = {"greater_is_better": greater, "primary": True, "needs": []}
    rows = sum(item["effective"] for item in found["n-samples"].values())
    details |= {"metrics": [], "config": config.model_dump(), "versions": dict(found["versions"])}
    details["lm_eval"] = found.get("lm_eval_version") or importlib.metadata.version("lm-eval")
    return {"n_rows": rows, "scores": scores, "details": details, "counts": {}, "samples": []}


def _tasks(folder: str | None) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folder)
