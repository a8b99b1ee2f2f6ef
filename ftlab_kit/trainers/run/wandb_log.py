"""The same metrics at Weights & Biases, for those who use it; the store stays authoritative."""

from pathlib import Path
from typing import Any

from ftlab_kit.configs import Config


class Tracker:
    """A run at Weights & Biases; does nothing where the config's `wandb` is 'off'."""

    def __init__(self, config: Config, job_id: int, folder: Path) -> None:
        """Start the run; offline runs are stored in the job's folder."""
        self._run: Any = None
        if config.wandb == "off":
            return
        import wandb

        self._run = wandb.init(
            project=config.wandb_project,
            name=f"job-{job_id}",
            mode=config.wandb,
            dir=folder,
            config=config.model_dump(),
            settings=wandb.Settings(silent=True),
        )

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Send the values of a step, without those that are None."""
        if self._run is not None:
            measured = {name: value for name, value in values.items() if value is not None}
            self._run.log(measured, step=step)

    def close(self) -> None:
        """Flush and end the run."""
        if self._run is not None:
            self._run.finish()
