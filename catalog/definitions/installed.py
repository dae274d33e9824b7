"""What is installed, and so neither the project's nor of interest when the project changes."""

import functools
import os
import site
import sysconfig
from pathlib import Path

_INSTALLED = tuple(
    str(Path(folder).resolve()) + os.sep
    for folder in (
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        site.getusersitepackages(),
    )
)


@functools.lru_cache(maxsize=1 << 14)
def is_installed(file: str) -> bool:
    """Whether a file is part of Python or of an installed package, and so not of the user's project."""
    if f"{os.sep}site-packages{os.sep}" in file or f"{os.sep}dist-packages{os.sep}" in file:
        return True
    return file.startswith(_INSTALLED) or str(Path(file).resolve()).startswith(_INSTALLED)
