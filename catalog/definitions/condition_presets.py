"""Conditions that are often wanted, each made once: made of the same operands that anybody can use."""

from functools import lru_cache

from headwater.catalog.definitions.condition import AutomationCondition as On


@lru_cache
def eager(request: bool) -> On:
    """See `AutomationCondition.eager`."""
    trigger = On.newly_missing() | On.any_deps_updated()
    if request:
        trigger |= (On.stale() & On.initial_evaluation()).with_label("stale_at_first")
    return (
        On.in_latest_time_window()
        & trigger.since_last_handled("request" if request else "skip")
        & ~On.any_deps_missing()
        & ~On.any_deps_in_progress()
        & ~On.in_progress()
    ).with_label("eager")


@lru_cache
def on_cron(cron: str, zone: str) -> On:
    """See `AutomationCondition.on_cron`."""
    passed = On.cron_tick_passed(cron, zone)
    return (
        On.in_latest_time_window() & passed.since_last_handled() & On.all_deps_updated_since_cron(cron, zone)
    ).with_label(f"on_cron({', '.join(passed.arguments)})")


@lru_cache
def on_missing(request: bool) -> On:
    """See `AutomationCondition.on_missing`."""
    missing = On.missing().newly_true().since_last_handled("request" if request else "skip")
    return (
        On.in_latest_time_window() & missing.with_label("missing_since_last_handled") & ~On.any_deps_missing()
    ).with_label("on_missing")


@lru_cache
def on_stale() -> On:
    """See `AutomationCondition.on_stale`."""
    with_them = On.stale(transitive=True) & On.any_deps_match(On.will_be_requested())
    changed = (
        On.any_deps_updated()
        | On.code_version_changed()
        | On.newly_updated()
        | On.missing().newly_true()
        | On.stale().newly_true()
    )
    return (
        On.in_latest_time_window()
        & (On.missing() | On.stale() | with_them)
        & ~On.newly_requested().since(changed).with_label("tried_already")
        & ~On.any_deps_missing()
        & ~On.any_deps_in_progress()
        & ~On.in_progress()
    ).with_label("on_stale")
