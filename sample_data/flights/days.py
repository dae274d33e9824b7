"""What the assets are divided into: the days, the months and the airports of 2013."""

from headwater import (
    DailyPartitionsDefinition,
    MonthlyPartitionsDefinition,
    MultiPartitionsDefinition,
    StaticPartitionsDefinition,
)

#: All three airports are in or near New York City, and the files tell `day` and `hour` by its clocks. In UTC, whatever
#: left after 19:00 or 20:00 would be of the next day, and no day would have 23 or 25 hours.
TIMEZONE = "America/New_York"

START, END = "2013-01-01", "2014-01-01"

DAYS = DailyPartitionsDefinition(start_date=START, end_date=END, timezone=TIMEZONE)
MONTHS = MonthlyPartitionsDefinition(start_date=START, end_date=END, timezone=TIMEZONE)
#: Keys such as `2013-02-01|JFK`.
AIRPORT_MONTHS = MultiPartitionsDefinition(
    {"month": MONTHS, "origin": StaticPartitionsDefinition(["EWR", "JFK", "LGA"])}
)
