"""`python -m lora_lab.cli`, for launchers that start a module."""

from lora_lab.cli import main

main()
