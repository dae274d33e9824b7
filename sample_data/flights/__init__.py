"""The flights that left New York City in 2013, from raw files to delays by carrier, route and hour."""

import os

from flights import cleaned, delays, raw
from headwater import Definitions, FileIOManager

definitions = Definitions(
    assets=[raw, cleaned, delays],
    # FLIGHTS_ROOT=s3://bucket/prefix keeps the data in an object store instead of the home; see README.md.
    resources={"io_manager": FileIOManager(root=os.environ.get("FLIGHTS_ROOT"))},
)
