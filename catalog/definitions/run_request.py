"""What functions that decide whether something is to run may answer."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from headwater.catalog.errors import UserCodeError
from headwater.catalog.printable import with_article

#: Runs that one tick may request.
MAX_REQUESTS = 1000


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run that a schedule or a sensor wants.

    Of requests with the same `run_key`, by one of them, there is one run, whatever becomes of it.
    """

    run_key: str | None = None
    run_config: Mapping[str, Any] | None = None
    tags: Mapping[str, str] | None = None
    partition_key: str | None = None
    #: Of the job's assets only these.
    asset_selection: Any = None
    #: Another job than the usual one.
    job_name: str | None = None


@dataclass(frozen=True, slots=True)
class SkipReason:
    """Why no run is wanted this time."""

    skip_message: str = ""


Requests = list[RunRequest] | SkipReason


def requests_of(value: object, who: str, most: int = MAX_REQUESTS) -> Requests:
    """What the function of `who` gave, `most` requests at the utmost. Raises `UserCodeError`."""
    match value:
        case RunRequest():
            return [value]
        case SkipReason():
            return value
        case None:
            return SkipReason("its function returned nothing")
        case Mapping():
            return [RunRequest(run_config=dict(cast(Mapping[str, Any], value)))]
        case str() | bytes():
            pass
        case Iterable():
            found = list(islice(cast(Iterable[Any], value), most + 1))
            if len(found) > most:
                raise UserCodeError(f"The {who} requests more than {most:,} runs at once.", remedy=f"{most:,} at most.")
            if len(found) == 1 or not found:
                return requests_of(found[0] if found else None, who)
            if all(isinstance(one, RunRequest) for one in found):
                return cast(list[RunRequest], found)
            if any(isinstance(one, RunRequest) for one in found) and any(isinstance(one, SkipReason) for one in found):
                raise UserCodeError(
                    f"The {who} both requests runs and gives a reason to skip.", remedy="Give one of them."
                )
        case _:
            pass
    raise UserCodeError(
        f"The {who} gave {with_article(type(cast(object, value)).__name__)}.",
        remedy="It returns or yields RunRequests, or a SkipReason, or a run's configuration.",
    )


def call(function: Callable[..., object], context: object) -> object:
    """Call a function that takes a context, or nothing."""
    try:
        takes_one = bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        takes_one = True
    return function(context) if takes_one else function()
