"""What an asset is divided into: definitions, the partitions there are at a moment, sets of them, and mappings.

`definition`, `static`, `dynamic`, `time_window`, `multi` and `mapping` are plain values and import nothing heavy;
`space`, `subset` and `links` compute with numpy and are imported when the first space is made.
docs/decisions/0013-partitions.md tells how they fit together.
"""
