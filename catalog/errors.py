"""What can go wrong, and what the user does next.

    HeadwaterError
    ├── UsageError                exit 2   a question that cannot be asked
    │   ├── SelectionError                 points at the character
    │   ├── UnknownAssetError              names the nearest
    │   ├── UnknownPartitionError          names the nearest
    │   ├── UnknownTableError              in SQL; names the nearest
    │   ├── UnknownBackfillError
    │   └── ConfigError                    names the path
    ├── DefinitionError           exit 3   the project's definitions
    │   ├── InvalidKeyError
    │   ├── DuplicateAssetError            names both places
    │   ├── CycleError                     prints the shortest cycle
    │   ├── UnknownDependencyError
    │   ├── CronError, TimeZoneError       a time that never comes, a zone nobody knows
    │   ├── PartitionMappingError          names both definitions
    │   └── MissingResourceError
    ├── UserCodeError             exit 4   raised by, or about, what user code did
    │   ├── ResourceError                  could not be set up or torn down
    │   ├── WorkerDiedError                the process that computed a step ended
    │   ├── MemoryLimitError               a step took more than it was allowed
    │   └── UnstorableValueError           a value no IO manager here can keep
    │       └── DuplicateColumnError, NoColumnsError, MixedTimeZonesError, SchemaDriftError
    ├── StorageError              exit 5   where data lies
    │   ├── DiskFullError, ReadOnlyStorageError, CredentialsError
    │   └── MissingDataError, ChecksumError
    ├── CatalogError              exit 6   the catalog file
    │   ├── CatalogCorruptError, LostCommitsError, ForeignCatalogError
    │   ├── CatalogTooNewError, ReadOnlyCatalogError, ForkedCatalogError
    │   ├── UnreachableCatalogError, AccessDeniedError   of a catalog on another host
    │   └── InsecurePermissionsError       others than the owner may write it
    ├── BusyError                 exit 7   somebody else holds it
    ├── ConflictError             exit 7   what was done before does not allow it
    │   ├── CellTakenError                 another run builds it; names the run
    │   └── RunOverError                   somebody else ended the run meanwhile
    └── TimedOutError             exit 8

Every error says what happened, why, and what to do: `message` and `remedy`. `code` is stable.
"""

import difflib
import unicodedata
from collections.abc import Iterable
from typing import ClassVar

from headwater.catalog.printable import printable, printable_line


class HeadwaterError(Exception):
    """The base of every error that Headwater raises on purpose."""

    code: ClassVar[str] = "E-HEADWATER"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.message}\n{self.remedy}" if self.remedy else self.message
        return printable(text)


class UsageError(HeadwaterError):
    """The call itself makes no sense: an option, a selection, a name."""

    code = "E-USAGE"
    exit_code = 2


class SelectionError(UsageError):
    """A selection string that does not parse; `position` is the offending character's index."""

    code = "E-SELECTION"

    def __init__(self, message: str, *, text: str, position: int, remedy: str = "") -> None:
        super().__init__(_pointing(message, text, position), remedy=remedy)
        self.text = text
        self.position = position


class UnknownAssetError(UsageError):
    """A name that no asset has; where it stands in a selection among others, pointed at."""

    code = "E-UNKNOWN-ASSET"

    def __init__(self, name: str, known: Iterable[str], *, text: str | None = None, position: int = 0) -> None:
        message = f"No asset `{name}`."
        super().__init__(
            message if text is None else _pointing(message, text, position),
            remedy=nearest(name, known, "`headwater ls` lists the assets."),
        )
        self.name = name


class UnknownPartitionError(UsageError):
    """A key that no partition has, or not yet."""

    code = "E-UNKNOWN-PARTITION"


class UnknownBackfillError(UsageError):
    """An identifier that no backfill has."""

    code = "E-UNKNOWN-BACKFILL"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        remedy = nearest(name, known, "`headwater backfills` lists them.")
        super().__init__(f"There is no backfill '{printable_line(name, 60)}'.", remedy=remedy)


class UnknownTableError(UsageError):
    """A name in SQL that neither a view nor an asset's data has."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        remedy = nearest(name, self.known, "SHOW TABLES lists what there is.")
        super().__init__(f"There is no table or view '{name}'.", remedy=remedy)


class ConfigError(UsageError):
    """Configuration that does not fit its class; the message names the path."""

    code = "E-CONFIG"


class DefinitionError(HeadwaterError):
    """The project's definitions do not hold together."""

    code = "E-DEFINITION"
    exit_code = 3


class InvalidKeyError(DefinitionError):
    """An asset key or partition key that cannot be one."""

    code = "E-KEY"


class DuplicateAssetError(DefinitionError):
    """Two definitions of one key."""

    code = "E-DUPLICATE"


class CycleError(DefinitionError):
    """Assets that depend on themselves."""

    code = "E-CYCLE"


class UnknownDependencyError(DefinitionError):
    """A parameter that names no asset."""

    code = "E-UNKNOWN-DEPENDENCY"


class CronError(DefinitionError):
    """A cron expression that does not parse, or names no time."""

    code = "E-CRON"


class TimeZoneError(DefinitionError):
    """A time zone that is not in the database of zones."""

    code = "E-TZ"


class PartitionMappingError(DefinitionError):
    """Two partitions definitions that a mapping cannot connect."""

    code = "E-PARTITION-MAPPING"


class MissingResourceError(DefinitionError):
    """A resource that somebody needs and nobody provides."""

    code = "E-MISSING-RESOURCE"


class UserCodeError(HeadwaterError):
    """User code raised, or broke a rule that only shows at run time."""

    code = "E-USER-CODE"
    exit_code = 4


class ResourceError(UserCodeError):
    """A resource that could not be set up or torn down; what it raised is the cause."""

    code = "E-RESOURCE"


class WorkerDiedError(UserCodeError):
    """The process that computed a step ended before the step did."""

    code = "E-WORKER"


class MemoryLimitError(UserCodeError):
    """A step took more memory than it was allowed."""

    code = "E-MEMORY"


class UnstorableValueError(UserCodeError):
    """A returned value that its IO manager cannot keep exactly; nothing of it became visible."""

    code = "E-TYPE"


class DuplicateColumnError(UnstorableValueError):
    """A frame with two columns of one name."""

    code = "E-DUP-COLUMN"


class NoColumnsError(UnstorableValueError):
    """A frame without columns."""

    code = "E-NO-COLUMNS"


class MixedTimeZonesError(UnstorableValueError):
    """A column of times in several zones; a stored column has one."""

    code = "E-MIXED-TZ"


class SchemaDriftError(UnstorableValueError):
    """A frame whose columns are not those of the version before, though the code that makes it is the same."""

    code = "E-SCHEMA-DRIFT"


class StorageError(HeadwaterError):
    """Data could not be written, read or found."""

    code = "E-STORAGE"
    exit_code = 5


class DiskFullError(StorageError):
    """No space where data or the catalog lies."""

    code = "E-DISKFULL"


class ReadOnlyStorageError(StorageError):
    """Data would have to be written where nothing may be written."""

    code = "E-STORAGE-RO"


class CredentialsError(StorageError):
    """The object store does not accept who we are."""

    code = "E-CREDENTIALS"


class MissingDataError(StorageError):
    """A version that the catalog knows, and whose data is not there."""

    code = "E-MISSING-DATA"


class ChecksumError(StorageError):
    """A file that is not the one that was written."""

    code = "E-CHECKSUM"


class CatalogError(HeadwaterError):
    """The catalog file could not be opened, read or written."""

    code = "E-CATALOG"
    exit_code = 6


class CatalogCorruptError(CatalogError):
    """The catalog file or its write-ahead log is damaged; it was not touched."""

    code = "E-CATALOG-CORRUPT"


class LostCommitsError(CatalogCorruptError):
    """The catalog holds less than what was committed."""

    code = "E-CATALOG-LOST-COMMITS"


class ForeignCatalogError(CatalogError):
    """A file that is no catalog of ours."""

    code = "E-CATALOG-FOREIGN"


class CatalogTooNewError(CatalogError):
    """A catalog written by a newer Headwater; it was not touched."""

    code = "E-CATALOG-NEWER"


class ReadOnlyCatalogError(CatalogError):
    """The catalog may be read only."""

    code = "E-CATALOG-RO"


class ForkedCatalogError(CatalogError):
    """A catalog connection used after a fork."""

    code = "E-FORK"


class UnreachableCatalogError(CatalogError):
    """A server of a catalog that does not answer, or is not who it should be."""

    code = "E-UNREACHABLE"


class AccessDeniedError(CatalogError):
    """A server of a catalog that does not do this for whoever has this token."""

    code = "E-ACCESS"


class InsecurePermissionsError(CatalogError):
    """A catalog file or folder that others than its owner may change."""

    code = "E-PERM"


class BusyError(HeadwaterError):
    """Another process holds the catalog."""

    code = "E-BUSY"
    exit_code = 7


class ConflictError(HeadwaterError):
    """Something that what was done before does not allow."""

    code = "E-CONFLICT"
    exit_code = 7


class RunOverError(ConflictError):
    """What a run or backfill says that somebody else ended meanwhile: it was taken for gone, or canceled."""

    code = "E-RUN-OVER"


class CellTakenError(ConflictError):
    """A run would build what another one builds already; `run_id` is that one's."""

    def __init__(self, message: str, *, run_id: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.run_id = run_id


class QueuedError(ConflictError):
    """A run cannot begin now, as limits say; with `is_final`, waiting does not help."""

    code = "E-QUEUED"

    def __init__(self, message: str, *, remedy: str = "", is_final: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.is_final = is_final


class RunStoppedError(ConflictError):
    """A run that was in the queue was canceled before it began."""


class TimedOutError(HeadwaterError):
    """Something took longer than it was allowed to."""

    code = "E-TIMEOUT"
    exit_code = 8


def _pointing(message: str, text: str, position: int) -> str:
    """A message with the text below it that it is about, and an arrow at the character."""
    before = printable_line(text[:position])
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in before)
    return f"{message}\n  {printable_line(text)}\n  {' ' * (len(before) + wide)}^"


def nearest(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """A remedy that offers the known names most like `name`, or `otherwise`."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    if not close:
        return otherwise
    return f"Did you mean {' or '.join(f'`{match}`' for match in close)}?"
