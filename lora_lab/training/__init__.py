"""Train adapters: what a run does, the run itself, and the adapters that it ends with."""

from lora_lab.training.config import TrainConfig, default_config, joint_config
from lora_lab.training.finish import finish
from lora_lab.training.run import Run, TrainStep, training_copy

__all__ = ["Run", "TrainConfig", "TrainStep", "default_config", "finish", "joint_config", "training_copy"]
