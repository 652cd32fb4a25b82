"""What a zip says of itself, checked before anything in it is unpacked."""

import lzma
import stat
import struct
import zipfile
import zlib
from pathlib import PurePosixPath

from lora_lab.errors import DataError

BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(NotImplementedError, RuntimeError, MemoryError, EOFError, OSError, ValueError, KeyError, IndexError, OverflowError),
)
"""What reading a zip raises where it is none, or a damaged one."""
MOST_ENTRIES = 10_000


def safe_places(archive: zipfile.ZipFile) -> dict[zipfile.ZipInfo, PurePosixPath]:
    """The files in a zip and where they lie; hidden ones are left out.

    Raises `DataError` for places outside of the zip, for links, and where a password is needed.
    """
    if len(archive.infolist()) > MOST_ENTRIES:
        raise DataError(f"the zip has {len(archive.infolist())} entries, over {MOST_ENTRIES}: send fewer")
    files = {info: PurePosixPath(info.filename) for info in archive.infolist() if not info.is_dir()}
    unsafe = [p for p in files.values() if p.is_absolute() or ".." in p.parts or "\\" in str(p) or ":" in str(p)]
    if unsafe:
        raise DataError(f"the zip names a place outside of itself, {unsafe[0]}: make it anew from a folder")
    links = [place for info, place in files.items() if stat.S_ISLNK(info.external_attr >> 16)]
    if links:
        raise DataError(f"{links[0]} in the zip is a link: put the file itself there")
    files = {info: place for info, place in files.items() if not any(p.startswith((".", "__MACOSX")) for p in place.parts)}
    if any(info.flag_bits & 1 for info in files):
        raise DataError("the zip is locked with a password: send one without")
    return files
