"""What an executor is: it takes steps and hands over their results, in whatever order they finish."""

from typing import Protocol, Self

from headwater.materialize.execution.step import StepSpec


class Executor(Protocol):
    """Attempts steps; entered for the length of a run.

    Each result is handed to the run's coordinator as soon as there is one, from whatever thread has it, also while
    another step computes. What a step made must not wait for the end of one that has nothing to do with it.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def submit(self, spec: StepSpec, delay: float = 0.0) -> None:
        """Have a step attempted, not before `delay` seconds have passed. Called from any thread."""
        ...

    def advance(self) -> None:
        """Compute or wait until a result was handed over, or `wake` was called.

        Only called by the run's own thread, while something is submitted. Raises what handing over a result raised.
        """
        ...

    def wake(self) -> None:
        """End the waiting in `advance`. Takes no lock: it is called by signal handlers."""
        ...

    def abandon(self) -> list[StepSpec]:
        """Give up what has not started yet, and return it. Called from any thread."""
        ...
