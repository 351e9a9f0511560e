"""Where the command `reveille` is."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path


def find() -> str:
    """Returns the path of the command: `REVEILLE_BINARY`, or that of this package's wheel, or that of `PATH`.

    Raises `FileNotFoundError` if there is none.
    """
    if named := os.environ.get("REVEILLE_BINARY"):
        if found := shutil.which(named):
            return found
        raise FileNotFoundError(f"REVEILLE_BINARY names {named!r}, which is no program")
    for folder in _folders():
        if found := shutil.which("reveille", path=str(folder)):
            return found
    if found := shutil.which("reveille"):
        return found
    raise FileNotFoundError(
        "there is no command `reveille`: install the wheel of `reveille-queue`, which has it inside, or name another "
        "one by REVEILLE_BINARY"
    )


def _folders() -> Iterator[Path]:
    """Yields the folders in which installers put commands of packages."""
    yield Path(sysconfig.get_path("scripts"))
    yield Path(sys.executable).parent
    # `pip install --target FOLDER` makes FOLDER/bin.
    yield Path(__file__).parent.parent / "bin"
    yield Path(sysconfig.get_path("scripts", scheme=sysconfig.get_preferred_scheme("user")))
