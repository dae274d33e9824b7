"""Times as users write them."""

from datetime import UTC, datetime, timedelta

from headwater.catalog.errors import UsageError
from headwater.catalog.printable import printable_line


def parse_time(text: str, option: str) -> datetime:
    """A time as users write it; in UTC where it does not say. Raises `UsageError`."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        _ = moment - timedelta(days=400), moment + timedelta(days=400)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option} {printable_line(text, 60)} is no time.", remedy="Write it like 2024-03-10T07:00:00Z."
        ) from None
    return moment
