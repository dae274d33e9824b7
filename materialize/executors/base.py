"""What an executor is: it takes steps and hands back their results, in whatever order they finish."""

from typing import Protocol, Self

from headwater.materialize.execution.step import StepResult, StepSpec


class Executor(Protocol):
    """Computes steps. Used by one thread, the run's coordinator; entered for the length of a run."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def submit(self, spec: StepSpec, delay: float = 0.0) -> None:
        """Have a step attempted, not before `delay` seconds have passed."""
        ...

    def next(self) -> StepResult:
        """The next result; waits for it. Only called while something is submitted."""
        ...

    def abandon(self) -> list[StepSpec]:
        """Give up what has not started yet, and return it."""
        ...
