"""A clock that only moves when it is told to."""

from datetime import UTC, datetime, timedelta

NOON = datetime(2024, 3, 9, 12, tzinfo=UTC)


class Hands:
    """Implements `Clock`; at first it is noon."""

    def __init__(self, moment: datetime = NOON) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
