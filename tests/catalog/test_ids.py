import uuid
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.ids import new_id

NOW = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))


def test_it_is_a_uuid_of_version_7() -> None:
    made = uuid.UUID(new_id(NOW))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert str(made) == str(made).lower()
    assert made.int >> 80 == int(NOW.timestamp() * 1000)


@given(times)
def test_the_millisecond_can_be_read_back(now: datetime) -> None:
    millis = uuid.UUID(new_id(now)).int >> 80
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis) == now.replace(
        microsecond=now.microsecond // 1000 * 1000
    )


@given(times, st.integers(1, 10**9))
def test_ids_sort_by_time_to_the_microsecond(now: datetime, later: int) -> None:
    try:
        after = now + timedelta(microseconds=later)
    except OverflowError:
        return
    assert new_id(now) < new_id(after)


def test_the_time_zone_does_not_matter() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    assert new_id(east)[:18] == new_id(NOW)[:18]


def test_ids_of_one_moment_differ() -> None:
    assert len({new_id(NOW) for _ in range(1000)}) == 1000
