"""Task suites of lm-eval, run by lm-eval itself on a model of the kit.

Prompts, answers and scores are lm-eval's (Gao et al., https://zenodo.org/records/12608602), so they
are comparable with published ones. The chat template is applied, as the models here are chat
models.
"""

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from typing import Any

from ftlab_kit.chats import ChatModel
from ftlab_kit.configs import EvaluationConfig
from ftlab_kit.errors import InputError, Unavailable, nearest


def check_tasks(tasks: Sequence[str], folder: str | None) -> None:
    """Refuse tasks that can't be run, before a model is loaded.

    Raises:
        Unavailable: lm-eval is not installed.
        InputError: There is no such task.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise Unavailable(
            "lm-eval is not installed; task suites need it. Install it with: "
            'pip install "ftlab-kit[suites]".'
        )
    names = _task_manager(folder).all_tasks
    for name in tasks:
        if name not in names:
            raise InputError(
                f"lm-eval has no task {name!r}.{nearest(name, names)} List its tasks with: lm_eval "
                "ls tasks. For tasks of your own, pass their folder as folder=."
            )


def run_tasks(
    model: ChatModel, tasks: Sequence[str], folder: str | None, config: EvaluationConfig
) -> dict[str, Any]:
    """Return the columns of an evaluation by lm-eval.

    Raises:
        InputError: The model is hosted elsewhere.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    if model.model is None:
        raise InputError(
            f"{model.label} is a hosted model; expected one whose weights are on this machine. For "
            "hosted models run lm-eval's own command with its API models."
        )
    results = simple_evaluate(
        model=HFLM(pretrained=model.model, tokenizer=model.tokenizer, batch_size=8),
        tasks=[*tasks],
        task_manager=_task_manager(folder),
        limit=config.max_rows,
        apply_chat_template=True,
        random_seed=config.seed,
        bootstrap_iters=0,
        gen_kwargs={"max_gen_toks": config.max_new_tokens},
        log_samples=False,
    )
    return _columns(results, config)


def _columns(results: Any, config: EvaluationConfig) -> dict[str, Any]:
    scores: dict[str, float | None] = {}
    details: dict[str, Any] = {}
    for task, numbers in results["results"].items():
        for key, value in numbers.items():
            # lm-eval's keys are "metric,filter"; what has no filter is no score
            metric, _, answer_filter = key.partition(",")
            if isinstance(value, float | int) and answer_filter and not metric.endswith("_stderr"):
                name = f"{task}/{metric}" + (f"/{answer_filter}" if answer_filter != "none" else "")
                scores[name] = float(value)
                is_greater = results["higher_is_better"].get(task, {}).get(metric)
                details[name] = {"greater_is_better": is_greater, "primary": True, "needs": []}
    n_rows = sum(item["effective"] for item in results["n-samples"].values())
    details |= {"metrics": [], "config": config.model_dump(), "versions": dict(results["versions"])}
    details["lm_eval"] = results.get("lm_eval_version") or importlib.metadata.version("lm-eval")
    return {"n_rows": n_rows, "scores": scores, "details": details, "counts": {}, "samples": []}


def _task_manager(folder: str | None) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folder)
