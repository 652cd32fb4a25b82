"""Plans of many merges, and measuring them."""

from lora_lab.sweeps.plan import PLANS, WEIGHTINGS, Scope, parse_sets, random_recipes, worst_pairs
from lora_lab.sweeps.run import PRECISIONS, Cell, Step, Sweep

__all__ = ["PLANS", "PRECISIONS", "WEIGHTINGS", "Cell", "Scope", "Step", "Sweep", "parse_sets", "random_recipes", "worst_pairs"]
