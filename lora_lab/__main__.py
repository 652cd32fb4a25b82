"""`python -m lora_lab` is the command `lora-lab`."""

from lora_lab.cli import main

main()
