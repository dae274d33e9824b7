"""What the assets are divided into: the days, the months and the airports of 2013."""

from headwater import (
    DailyPartitionsDefinition,
    MonthlyPartitionsDefinition,
    MultiPartitionsDefinition,
    StaticPartitionsDefinition,
)

#: All three airports are in New York City, and the files say `day` and `hour` as the clocks there did. With UTC, whatever
#: left after 19:00 or 20:00 would be of the next day, and March 10 would have 24 hours instead of 23.
TIMEZONE = "America/New_York"

START, END = "2013-01-01", "2014-01-01"

DAYS = DailyPartitionsDefinition(start_date=START, end_date=END, timezone=TIMEZONE)
MONTHS = MonthlyPartitionsDefinition(start_date=START, end_date=END, timezone=TIMEZONE)
#: Keys such as `2013-02-01|JFK`.
AIRPORT_MONTHS = MultiPartitionsDefinition(
    {"month": MONTHS, "origin": StaticPartitionsDefinition(["EWR", "JFK", "LGA"])}
)
