"""Bring your own: an adapter in peft's format joins those that come with LoRA Lab, with a head of its own."""

from lora_lab.own_adapters.checking import Candidate, check
from lora_lab.own_adapters.keeping import Offer, add, forget, own_cards
from lora_lab.own_adapters.sources import Source, opened

__all__ = ["Candidate", "Offer", "Source", "add", "check", "forget", "opened", "own_cards"]
