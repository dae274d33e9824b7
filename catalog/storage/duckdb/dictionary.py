"""Values that rows name by number: asset keys, fingerprints. Kept in memory, so that an append need not read."""

import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

Value = TypeVar("Value", bound=Hashable)


class Dictionary(Generic[Value]):
    """Numbers, from 0 without gaps, for the values of a table that only grows. One thread may write, all may read."""

    def __init__(self, load: Callable[[], Iterable[Value]]) -> None:
        #: Reads the table in the order of its numbers; called once, when first needed.
        self._load = load
        self._loading = threading.Lock()
        self._values: list[Value] | None = None
        self._numbers: dict[Value, int] = {}
        self._kept = 0

    @property
    def values(self) -> list[Value]:
        """The values by number; not to be changed."""
        if self._values is None:
            with self._loading:
                if self._values is None:
                    values = list(self._load())
                    self._numbers = {value: number for number, value in enumerate(values)}
                    self._kept = len(values)
                    self._values = values
        return self._values

    @property
    def lookup(self) -> Callable[[int], Value]:
        """Gives the value of a number. Whoever has rows to translate takes it after the rows: then it knows theirs."""
        return self.values.__getitem__

    def number(self, value: Value) -> int:
        """The number of `value`, a new one if it has none yet."""
        values = self.values
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(values)
            values.append(value)
        return number

    def find(self, value: Value) -> int | None:
        """The number of `value`, if it has one."""
        return self._numbers.get(value) if self.values else None

    def added(self) -> list[tuple[int, Value]]:
        """What `number` added since the last `commit`."""
        return list(enumerate(self.values[self._kept :], self._kept))

    def commit(self) -> None:
        """What was added is in the table now."""
        self._kept = len(self.values)
