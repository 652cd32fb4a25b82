"""Where the files that come with LoRA Lab are: adapters, saved merges, records, examples."""

from pathlib import Path

_INSTALLED = Path(__file__).parent / "bundled"
_CHECKOUT = Path(__file__).parent.parent


def bundled(*parts: str) -> Path:
    """The path of a bundled file or folder, named from the top of the repository: `bundled("assets", "examples")`.

    An installed wheel carries these folders inside the package (see `hatch_build.py`); a checkout has them beside it.
    """
    return (_INSTALLED if _INSTALLED.is_dir() else _CHECKOUT).joinpath(*parts)


def checkout() -> Path | None:
    """The folder of the git checkout this code runs from. None if it is installed, even inside another repository."""
    return _CHECKOUT if not _INSTALLED.is_dir() and (_CHECKOUT / ".git").exists() else None
