"""The flights that left New York City in 2013, from raw files to delays by carrier, route and hour."""

import os

from flights import cleaned, delays, raw
from flights.days import DAYS
from flights.watch import changed_files
from headwater import Definitions, FileIOManager, build_schedule_from_partitioned_job, define_asset_job

#: What there is of each day, in the night after it: at half past two by the clocks of New York, 365 times a year.
daily = define_asset_job("daily", "raw_flights or raw_weather or flights or weather", partitions_def=DAYS)

definitions = Definitions(
    assets=[raw, cleaned, delays],
    jobs=[daily],
    # `headwater schedules start daily_schedule` starts it.
    schedules=[build_schedule_from_partitioned_job(daily, hour_of_day=2, minute_of_hour=30)],
    # `headwater sensors start changed_files` starts it.
    sensors=[changed_files],
    # FLIGHTS_ROOT=s3://bucket/prefix keeps the data in an object store instead of the home; see README.md.
    resources={"io_manager": FileIOManager(root=os.environ.get("FLIGHTS_ROOT"))},
)
