"""LoRA Lab: merge vision LoRA adapters live on one Vision Transformer."""

__version__ = "0.1.0"
