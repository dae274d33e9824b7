"""Tokens: what a client on another host shows to come in. They lie in private files, and never in an argument."""

import os
import re
import secrets
import stat
from pathlib import Path

from headwater.catalog.errors import InsecurePermissionsError, UsageError

#: The variable that holds a token where there is no file.
VARIABLE = "HEADWATER_CATALOG_TOKEN"

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
#: Long enough that nobody guesses it, short enough for a server to read; what is sent as it is.
_TOKEN = re.compile(r"[!-~]{32,256}")


def read_token(file: Path) -> str:
    """The token in a file. Raises `InsecurePermissionsError` where others may read it, and `UsageError`."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        with open(descriptor, encoding="utf-8", errors="replace") as opened:
            mode = os.fstat(descriptor).st_mode
            text = opened.read(4096)
    except OSError as error:
        raise UsageError(
            f"The token in {file} cannot be read: {error.strerror}.", remedy="Name a file of yours that holds it."
        ) from error
    if mode & _OTHERS:
        raise InsecurePermissionsError(
            f"Others than its owner may read the token in {file} (mode {stat.S_IMODE(mode):o}).",
            remedy=f"chmod 600 {file}, and make a new token if somebody may have read this one.",
        )
    return check_token(text, str(file))


def make_token(file: Path) -> None:
    """Put a new token into a new private file; one that is there stays. Raises `UsageError`."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(file, flags, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise UsageError(
            f"No token can be put into {file}: {error.strerror}.", remedy="Name a file in a folder of yours."
        ) from error
    with open(descriptor, "w", encoding="ascii") as opened:
        opened.write(f"{secrets.token_hex(32)}\n")


def check_token(text: str, source: str) -> str:
    """A token without what surrounds it. Raises `UsageError` for what is none, without showing it."""
    token = text.strip()
    if _TOKEN.fullmatch(token) is None:
        raise UsageError(
            f"What {source} holds is no token: that has 32 to 256 characters, and no spaces.",
            remedy="`headwater catalog serve` makes one in the home that it serves.",
        )
    return token
