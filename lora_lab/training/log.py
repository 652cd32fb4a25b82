"""The course of a run for TensorBoard: loss, learning rate and speed by images seen, and each check on val."""

from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from lora_lab.training.run import Run, TrainStep


class Log:
    """Event files in a folder. A run that goes on takes back what was written after its checkpoint."""

    def __init__(self, folder: Path, run: Run):
        self._run = run
        self._writer = SummaryWriter(str(folder), purge_step=run.step * run.config.batch + 1)
        if not run.step:
            self._writer.add_text("config", f"```\n{run.config.model_dump_json(indent=1)}\n```", 0)

    def write(self, step: TrainStep) -> None:
        """Add where the run stands."""
        for name, value in (
            ("loss", step.loss),
            ("learning_rate", step.learning_rate),
            ("images_per_second", step.images_per_second),
        ):
            self._writer.add_scalar(f"train/{name}", value, step.images)
        if step.check is not None:
            self._writer.add_scalar(f"val/{self._run.checked_by}", step.check, step.images)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._writer.close()
