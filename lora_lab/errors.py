"""Messages for the person who uses LoRA Lab.

Every error here carries one clear line: what is wrong, with which value, and what to try. The command line and the page
show that line as it stands; anything else that is raised is a fault of ours and keeps its traceback.
"""


class LoraLabError(Exception):
    """A mistake or a circumstance that the user can mend."""


class NotFoundError(LoraLabError):
    """A name, file or folder that is not there."""


class DataError(LoraLabError):
    """Data or a photo that cannot be read as what it should be."""


class MismatchError(LoraLabError):
    """Two things that do not belong together, such as an adapter and another backbone."""


class BackboneUnavailableError(LoraLabError):
    """Backbone weights that could not be fetched, checked or stored."""
