"""Puts the top-level folders that the default page needs into the wheel, below `lora_lab/bundled`."""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIANTS = {"r16", "r64", "joint_r16", "full", "head_only"}
"""Variants of adapters in the wheel. The page shows records only beside all adapters of r16 and r64 that they are of.

The others are in the repository: all together would be too large for a package index.
"""
FULL_WEIGHTS = {"config.json", "model.safetensors"}
"""All weights of a fine-tuned backbone, which a training machine may hold."""
ASSETS = ("benchmarks", "domains.safetensors", "examples", "languages", "paper", "records", "style.css")


def bundled_paths(root: Path) -> list[Path]:
    """Folders and files of the repository that a wheel carries."""
    files = (root / "pretrained_adapters").glob("*/*/*/*")
    adapters = [path for path in files if path.parent.name in VARIANTS and path.name not in FULL_WEIGHTS]
    return [*adapters, root / "pretrained_merges", *(root / "assets" / name for name in ASSETS)]


class BundleHook(BuildHookInterface):
    """Maps the bundled folders into the package; an editable install reads them where they are."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Adds the mapping to a wheel that is built to be installed elsewhere."""
        if version == "editable":
            return
        root = Path(self.root)
        for path in bundled_paths(root):
            build_data["force_include"][str(path)] = str(Path("lora_lab", "bundled", path.relative_to(root)))
