"""Conditions under which an asset is built by itself: plain values, made of operands and combinators.

A condition says for every partition of an asset whether it is true; `headwater.materialize.automation.conditions`
finds out. docs/reference/conditions.md tells what each one means.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, cast

from headwater.catalog.errors import DefinitionError, HeadwaterError
from headwater.catalog.keys import AssetKey, CoercibleToAssetKey

if TYPE_CHECKING:
    from headwater.catalog.definitions.selection import AssetSelection

#: The first evaluation of a condition asks for nothing, or for what is missing or stale by then.
INITIAL = ("skip", "request")
_DEPS = ("any_deps_match", "all_deps_match")
_INFIX = {"and": " & ", "or": " | "}


@dataclass(frozen=True, eq=False)
class AutomationCondition:
    """A condition: what it is called, what it is made of, and what else it was given.

    The static methods make operands, `&`, `|`, `~` and the other methods combine them. Equal when they are written the
    same, whatever their labels.
    """

    name: str
    operands: "tuple[AutomationCondition, ...]" = ()
    #: What it was given beside operands; plain values.
    arguments: tuple[Any, ...] = ()
    label: str | None = None

    @cached_property
    def text(self) -> str:
        """How it is written, without labels: two that are written the same are the same."""
        parts = [one.text for one in self.operands]
        match self.name:
            case "and" | "or":
                return f"({_INFIX[self.name].join(parts)})"
            case "not":
                return f"~{parts[0]}"
            case "since":
                return f"{parts[0]}.since({parts[1]})"
            case "newly_true":
                return f"{parts[0]}.newly_true()"
            case "any_deps_match" | "all_deps_match":
                allow, ignore = self.arguments
                more = "" if allow is None else f".allow({str(allow)!r})"
                return f"{self.name}({parts[0]}){more}" + ("" if ignore is None else f".ignore({str(ignore)!r})")
            case _:
                return f"{self.name}({', '.join([*map(_argument, self.arguments), *parts])})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AutomationCondition) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.label or self.text

    def __repr__(self) -> str:
        return f"<AutomationCondition {self}>"

    def nodes(self) -> "Iterator[AutomationCondition]":
        """It and everything that it is made of."""
        yield self
        for one in self.operands:
            yield from one.nodes()

    def __and__(self, other: "AutomationCondition") -> "AutomationCondition":
        return _joined("and", self, other)

    def __or__(self, other: "AutomationCondition") -> "AutomationCondition":
        return _joined("or", self, other)

    def __invert__(self) -> "AutomationCondition":
        return AutomationCondition("not", (self,))

    def since(self, reset: "AutomationCondition") -> "AutomationCondition":
        """True from when this condition is true until `reset` is.

        Where both are at one evaluation, it is true if this one is known to have become so later than `reset`.
        """
        return AutomationCondition("since", (self, one_condition(reset)))

    def newly_true(self) -> "AutomationCondition":
        """True when this condition is and was not at the evaluation before."""
        return AutomationCondition("newly_true", (self,))

    def since_last_handled(self, initial: str = "skip") -> "AutomationCondition":
        """Since the partition was last requested or updated.

        With `initial="skip"` also since the condition was evaluated for the first time: what is true by then counts as
        handled. With "request" it does not. Raises `DefinitionError` for anything else.
        """
        handled = AutomationCondition.newly_requested() | AutomationCondition.newly_updated()
        if not _requests(initial):
            handled |= AutomationCondition.initial_evaluation()
        return self.since(handled.with_label("handled"))

    def replace(self, old: "AutomationCondition | str", new: "AutomationCondition") -> "AutomationCondition":
        """A copy in which `new` stands for every condition that is `old`, or has that label or name."""
        if (isinstance(old, str) and old in (self.label, self.name, self.text)) or self == old:
            return one_condition(new)
        return self._with_operands(lambda one: one.replace(old, new))

    def with_label(self, label: str | None) -> "AutomationCondition":
        """A copy that is shown under a name."""
        return replace(self, label=label)

    def allow(self, selection: Any) -> "AutomationCondition":
        """A copy that looks only at dependencies in a selection, wherever it looks at dependencies."""
        return self._narrowed(0, selection)

    def ignore(self, selection: Any) -> "AutomationCondition":
        """A copy that does not look at dependencies in a selection, wherever it looks at dependencies."""
        return self._narrowed(1, selection)

    def _narrowed(self, place: int, selection: Any) -> "AutomationCondition":
        from headwater.catalog.definitions.selection import coerce_selection

        try:
            chosen = coerce_selection(selection)
        except HeadwaterError as error:
            raise DefinitionError(f"A condition's selection: {error.message}", remedy=error.remedy) from None
        if all(one.name not in _DEPS for one in self.nodes()):
            raise DefinitionError(
                f"The condition {self} does not look at dependencies.",
                remedy="allow() and ignore() are for any_deps_match(…), all_deps_match(…) and what is made of them.",
            )
        return self._narrow(place, chosen)

    def _narrow(self, place: int, chosen: "AssetSelection") -> "AutomationCondition":
        if self.name not in _DEPS:
            return self._with_operands(lambda one: one._narrow(place, chosen))
        arguments = list(self.arguments)
        arguments[place] = chosen if arguments[place] is None else arguments[place] | chosen
        return replace(self, arguments=tuple(arguments))

    def _with_operands(self, change: "Callable[[AutomationCondition], AutomationCondition]") -> "AutomationCondition":
        operands = tuple(map(change, self.operands))
        same = all(new is old for new, old in zip(operands, self.operands, strict=True))
        return self if same else replace(self, operands=operands)

    # Operands.

    @staticmethod
    def missing() -> "AutomationCondition":
        """It has never been built; of what something else computes, nothing is missing."""
        return _operand("missing")

    @staticmethod
    def stale(transitive: bool = False) -> "AutomationCondition":
        """It is stale on its own account; with `transitive`, also because something further up is stale or missing."""
        return AutomationCondition("stale", arguments=(True,)) if transitive else _operand("stale")

    @staticmethod
    def run_in_progress() -> "AutomationCondition":
        """A run that is not over, be it in the queue, is to build it."""
        return _operand("run_in_progress")

    @staticmethod
    def backfill_in_progress() -> "AutomationCondition":
        """A backfill that is not over is to build it."""
        return _operand("backfill_in_progress")

    @staticmethod
    def in_progress() -> "AutomationCondition":
        """A run or a backfill is to build it."""
        either = AutomationCondition.run_in_progress() | AutomationCondition.backfill_in_progress()
        return either.with_label("in_progress")

    @staticmethod
    def execution_failed() -> "AutomationCondition":
        """The last attempt to build it failed."""
        return _operand("execution_failed")

    @staticmethod
    def initial_evaluation() -> "AutomationCondition":
        """This is the first evaluation of the asset's condition as it is written now."""
        return _operand("initial_evaluation")

    @staticmethod
    def in_latest_time_window(lookback_delta: timedelta | None = None) -> "AutomationCondition":
        """It is the last time window; with `lookback_delta`, any that reaches into so much time before that one's end.

        True of everything that is not divided by time. Raises `DefinitionError` for what is no length of time.
        """
        if lookback_delta is None:
            return _operand("in_latest_time_window")
        if not isinstance(cast(object, lookback_delta), timedelta) or lookback_delta <= timedelta():
            raise DefinitionError(
                f"lookback_delta is {lookback_delta!r}.", remedy="Write a timedelta, such as timedelta(days=2)."
            )
        return AutomationCondition("in_latest_time_window", arguments=(lookback_delta.total_seconds(),))

    @staticmethod
    def will_be_requested() -> "AutomationCondition":
        """It is requested at this evaluation."""
        return _operand("will_be_requested")

    @staticmethod
    def newly_requested() -> "AutomationCondition":
        """It was requested at the evaluation before."""
        return _operand("newly_requested")

    @staticmethod
    def newly_updated() -> "AutomationCondition":
        """A version of it was recorded since the evaluation before."""
        return _operand("newly_updated")

    @staticmethod
    def data_version_changed() -> "AutomationCondition":
        """Its data is not what it was at the evaluation before."""
        return _operand("data_version_changed")

    @staticmethod
    def code_version_changed() -> "AutomationCondition":
        """The asset's code is not what it was at the evaluation before."""
        return _operand("code_version_changed")

    @staticmethod
    def executed_with_root_target() -> "AutomationCondition":
        """The run that made its current version was to build, too, what reads it of the asset whose condition it is."""
        return _operand("executed_with_root_target")

    @staticmethod
    def executed_with_tags(
        tag_keys: set[str] | None = None, tag_values: Mapping[str, str] | None = None
    ) -> "AutomationCondition":
        """The run that made its current version has all of these tags, and these with those values."""
        if not tag_keys and not tag_values:
            raise DefinitionError("executed_with_tags() names no tag.", remedy='Write tag_values={"team": "core"}.')
        pairs = {**dict.fromkeys(tag_keys or ()), **(tag_values or {})}
        return AutomationCondition("executed_with_tags", arguments=tuple(sorted(pairs.items())))

    @staticmethod
    def cron_tick_passed(cron_schedule: str, cron_timezone: str = "UTC") -> "AutomationCondition":
        """The schedule was due since the evaluation before. Raises `DefinitionError`."""
        return AutomationCondition("cron_tick_passed", arguments=_cron(cron_schedule, cron_timezone))

    @staticmethod
    def freshness_passed() -> "AutomationCondition":
        """The state of the asset's freshness policy is PASS."""
        return AutomationCondition("freshness", arguments=("PASS",))

    @staticmethod
    def freshness_warned() -> "AutomationCondition":
        """The state of the asset's freshness policy is WARN."""
        return AutomationCondition("freshness", arguments=("WARN",))

    @staticmethod
    def freshness_failed() -> "AutomationCondition":
        """The state of the asset's freshness policy is FAIL."""
        return AutomationCondition("freshness", arguments=("FAIL",))

    @staticmethod
    def check_passed() -> "AutomationCondition":
        """Raises `DefinitionError`: there are no checks yet."""
        raise _no_checks("check_passed")

    @staticmethod
    def check_failed() -> "AutomationCondition":
        """Raises `DefinitionError`: there are no checks yet."""
        raise _no_checks("check_failed")

    # Other assets.

    @staticmethod
    def any_deps_match(condition: "AutomationCondition") -> "AutomationCondition":
        """It reads a partition, of any of the assets that it depends on, of which the condition is true."""
        return AutomationCondition("any_deps_match", (one_condition(condition),), (None, None))

    @staticmethod
    def all_deps_match(condition: "AutomationCondition") -> "AutomationCondition":
        """Of each of the assets that it depends on, it reads a partition of which the condition is true."""
        return AutomationCondition("all_deps_match", (one_condition(condition),), (None, None))

    @staticmethod
    def asset_matches(key: CoercibleToAssetKey, condition: "AutomationCondition") -> "AutomationCondition":
        """The condition is true of what it reads of an asset, or of what reads it where that one depends on it."""
        return AutomationCondition("asset_matches", (one_condition(condition),), (AssetKey(key),))

    @staticmethod
    def any_downstream_conditions() -> "AutomationCondition":
        """The condition of any asset downstream, were it this one's, is true."""
        return _operand("any_downstream_conditions")

    @staticmethod
    def any_checks_match(condition: "AutomationCondition", blocking_only: bool = False) -> "AutomationCondition":
        """Raises `DefinitionError`: there are no checks yet."""
        raise _no_checks("any_checks_match")

    @staticmethod
    def all_checks_match(condition: "AutomationCondition", blocking_only: bool = False) -> "AutomationCondition":
        """Raises `DefinitionError`: there are no checks yet."""
        raise _no_checks("all_checks_match")

    # What is often wanted.

    @staticmethod
    def newly_missing() -> "AutomationCondition":
        """It became missing: such as a partition that there was not before."""
        return AutomationCondition.missing().newly_true().with_label("newly_missing")

    @staticmethod
    def any_deps_updated() -> "AutomationCondition":
        """Something that it reads was updated, by a run that was not to build it too, or is requested now."""
        updated = AutomationCondition.newly_updated() & ~AutomationCondition.executed_with_root_target()
        either = updated | AutomationCondition.will_be_requested()
        return AutomationCondition.any_deps_match(either).with_label("any_deps_updated")

    @staticmethod
    def any_deps_missing() -> "AutomationCondition":
        """Something that it reads is missing, and not requested now."""
        absent = AutomationCondition.missing() & ~AutomationCondition.will_be_requested()
        return AutomationCondition.any_deps_match(absent).with_label("any_deps_missing")

    @staticmethod
    def any_deps_in_progress() -> "AutomationCondition":
        """Something that it reads is being built."""
        return AutomationCondition.any_deps_match(AutomationCondition.in_progress()).with_label("any_deps_in_progress")

    @staticmethod
    def all_deps_updated_since_cron(cron_schedule: str, cron_timezone: str = "UTC") -> "AutomationCondition":
        """Something that it reads of each dependency was updated since the schedule was last due.

        Or was requested since then and found to be up to date; or is requested now.
        """
        passed = AutomationCondition.cron_tick_passed(cron_schedule, cron_timezone)
        updated = AutomationCondition.newly_updated().since(passed)
        seen_to = (
            AutomationCondition.newly_requested().since(passed)
            & ~AutomationCondition.in_progress()
            & ~AutomationCondition.missing()
            & ~AutomationCondition.stale()
        )
        either = updated | seen_to.with_label("found_up_to_date") | AutomationCondition.will_be_requested()
        name = ", ".join(passed.arguments)
        return AutomationCondition.all_deps_match(either).with_label(f"all_deps_updated_since_cron({name})")

    @staticmethod
    def eager(initial: str = "skip") -> "AutomationCondition":
        """Whenever something that it reads is updated, or it becomes missing.

        Only its last time window, and not while anything that it reads is missing or being built, or it is itself. With
        `initial="request"`, what is missing or stale when this is first evaluated is requested then. Raises
        `DefinitionError` for another `initial`.
        """
        from headwater.catalog.definitions.condition_presets import eager

        return eager(_requests(initial))

    @staticmethod
    def on_cron(cron_schedule: str, cron_timezone: str = "UTC") -> "AutomationCondition":
        """When the schedule was due and everything that it reads was updated since. Raises `DefinitionError`."""
        from headwater.catalog.definitions.condition_presets import on_cron

        return on_cron(cron_schedule, cron_timezone)

    @staticmethod
    def on_missing(initial: str = "skip") -> "AutomationCondition":
        """When it becomes missing, such as a new partition, as soon as nothing that it reads is. See `eager`."""
        from headwater.catalog.definitions.condition_presets import on_missing

        return on_missing(_requests(initial))

    @staticmethod
    def on_stale() -> "AutomationCondition":
        """Whenever it is missing or stale, whatever the reason, and building it would make it fresh.

        What was requested and did not become fresh is not requested again before something about it changes.
        """
        from headwater.catalog.definitions.condition_presets import on_stale

        return on_stale()


@lru_cache(maxsize=256)
def _operand(name: str) -> AutomationCondition:
    """One object for all, so that how it is written is found out once."""
    return AutomationCondition(name)


def _joined(name: str, one: AutomationCondition, other: object) -> AutomationCondition:
    """Both in one, so that `a & b & c` has three operands."""
    parts: list[AutomationCondition] = []
    for part in (one, one_condition(other)):
        parts += part.operands if part.name == name and part.label is None else (part,)
    return AutomationCondition(name, tuple(parts))


def one_condition(value: object) -> AutomationCondition:
    """A condition that somebody gives. Raises `DefinitionError` for anything else."""
    if isinstance(value, AutomationCondition):
        return value
    raise DefinitionError(
        f"A {type(value).__name__} is no condition.", remedy="Write AutomationCondition.eager() and its like."
    )


def _argument(value: Any) -> str:
    if isinstance(value, tuple):  # a tag, with its value or without
        name, wanted = cast(tuple[str, str | None], value)
        return repr(name) if wanted is None else f"{name!r}: {wanted!r}"
    return f"{value:g} s" if isinstance(value, float) else repr(str(value) if isinstance(value, AssetKey) else value)


def _cron(cron: str, zone: str) -> tuple[str, str]:
    from headwater.catalog.partitions.cron import normalize_cron
    from headwater.catalog.partitions.series import ticks_of
    from headwater.catalog.partitions.zone import canonical_zone

    found = normalize_cron(cron), canonical_zone(zone)
    ticks_of(*found)  # which refuses one that is never due
    return found


def _requests(initial: object) -> bool:
    if initial not in INITIAL:
        raise DefinitionError(f"initial is {initial!r}.", remedy=f"It is one of {', '.join(INITIAL)}.")
    return initial == "request"


def _no_checks(name: str) -> DefinitionError:
    return DefinitionError(
        f"The condition {name}() asks for checks of assets: there are none yet.", remedy="Leave it out."
    )
