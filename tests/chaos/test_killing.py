"""No kill changes a bit: 460 workers are killed at random moments, and every step is compared.

`pytest tests/chaos -m slow -s` runs all and prints the counts; a short form is in every run.
"""

from dataclasses import dataclass

import pytest

from ftlab_kit import Workspace, datasets, trainers
from ftlab_kit.configs import Config
from tests.chaos.killing import Seen, differences, run
from tests.conftest import TINY, add_pairs

STEPS = TINY.but(adapter_dropout=0.1, micro_batch=2, max_steps=40, save_every_steps=2)


@dataclass(frozen=True)
class Case:
    config: Config
    kills: int


CASES = {
    "sft": Case(STEPS, 200),
    "every weight": Case(STEPS.but(adapter="none"), 20),
    "packed": Case(STEPS.but(packing=True, max_length=128, max_steps=24), 50),
    "streamed": Case(STEPS.but(streaming=True), 20),
    "noise": Case(STEPS.but(neftune_alpha=5.0), 20),
    "two processes": Case(STEPS.but(processes=2), 50),
    "dpo": Case(STEPS.but(method="dpo", max_steps=10, effective_batch=2), 50),
    "grpo": Case(STEPS.but(method="grpo", max_new_tokens=8, max_steps=12), 50),
}


@pytest.mark.parametrize("name", ["sft", "packed", "two processes", "dpo", "grpo"])
def test_a_few_kills_change_no_bit(lab: Workspace, name: str):
    assert hunt(lab, name, 3 if name == "sft" else 1) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_no_kill_changes_a_bit(lab: Workspace, name: str):
    """Kill the workers of one job after another, until there were enough kills."""
    kills, jobs = 0, 0
    while kills < CASES[name].kills:
        kills += hunt(lab, name, CASES[name].kills - kills, seed=jobs)
        jobs += 1
    print(f"\n{name}: {kills} kills in {jobs} jobs; 0 jobs lost, 0 steps with another bit")


QUIET: dict[tuple[str, str], Seen] = {}


def hunt(ws: Workspace, name: str, kills: int, seed: int = 0) -> int:
    """Run a job to its end under kills, compare it with an undisturbed one, return its kills."""
    case = CASES[name]
    rows = add_pairs(ws) if case.config.method == "dpo" else datasets.get(ws, "hues")
    held_out = rows if name == "sft" else None
    key = (str(ws.root), name)
    if key not in QUIET:
        QUIET[key] = run(ws, trainers._enqueue(ws, case.config, rows, held_out=held_out))
    job = trainers._enqueue(ws, case.config, rows, held_out=held_out)
    # a kill falls into the first half of what an undisturbed job takes, however fast the machine is
    measured = trainers.metrics(ws, QUIET[key].job)
    took_s = (measured[-1].at - measured[0].at).total_seconds()
    killed = run(ws, job, kills=kills, after_s=(0.0, took_s / 2), seed=seed)
    assert [seen.job.state for seen in (QUIET[key], killed)] == ["completed"] * 2
    assert [*killed.metrics] == [*range(1, (case.config.max_steps or 0) + 1)]
    assert differences(QUIET[key], killed) == (0, 0)
    return killed.kills
