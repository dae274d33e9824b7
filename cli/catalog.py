"""`catalog`: the catalog itself, and whether it and the data fit together."""

import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import ConflictError, HeadwaterError, UsageError
from headwater.catalog.instance import catalog_address, catalog_folder
from headwater.cli import output
from headwater.cli.app import App, json_option, pass_app
from headwater.cli.serving import serve

if TYPE_CHECKING:
    from headwater.catalog.definitions.definitions import Definitions
    from headwater.catalog.instance import Instance
    from headwater.catalog.storage.duckdb.apart import Contents
    from headwater.catalog.storage.duckdb.examining import Examination
    from headwater.catalog.storage.duckdb.restoring import Restoration
    from headwater.materialize.doctor import DataDiagnosis

#: Findings of one sort that a person is shown; `--json` has all.
_FEW = 20


def _span(context: click.Context, parameter: click.Parameter, value: str) -> timedelta:
    """A length of time: `24h`, `30m`, `7d`, `0`."""
    found = re.fullmatch(r"(\d{1,6})([smhd]?)", value)
    if found is None or (not found[2] and int(found[1])):
        raise click.BadParameter(f"'{value}' is no length of time: write 24h, 30m or 7d.", context, parameter)
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[found[2] or "s"]
    return timedelta(**{unit: int(found[1])})


@click.group()
def catalog() -> None:
    """Back the catalog up, restore it, examine it, bring it up to date, serve it to other hosts."""


catalog.add_command(serve)


@catalog.command()
@click.argument("target", required=False, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace TARGET if it is there.")
@json_option
@pass_app
def backup(app: App, target: Path | None, force: bool, as_json: bool) -> None:
    """Write a copy of the catalog to the file TARGET, by default one with the time in its name in HOME/backups.

    The copy is one consistent state, and opens by itself. Never copy the catalog's own files instead: what is
    committed last may be in none of them alone. Data files are not in it.

    \b
    Examples:
      headwater catalog backup
      headwater catalog backup /mnt/backups/
    """
    from headwater.catalog.storage.duckdb.backup import BACKUPS, SupportsBackup, default_name

    app.own_catalog()
    folder = app.project.home / BACKUPS if target is None else target if target.is_dir() else None
    with app.writing() as instance:
        if target is None:
            (app.project.home / BACKUPS).mkdir(mode=0o700, exist_ok=True)
        if folder is not None:
            target = folder / default_name(instance.clock.now())
        assert target is not None
        assert isinstance(instance.catalog, SupportsBackup)
        made = instance.catalog.backup(target, replace=force)
    if as_json:
        output.say_json(
            {
                "path": str(made.path),
                "catalog_id": made.catalog_id,
                "events": made.events,
                "last_event": made.last,
                "bytes": made.bytes,
            }
        )
        return
    output.say(str(made.path))
    output.note(f"{output.counted(made.events, 'event')}, {output.size(made.bytes)}.")


@catalog.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_app
def restore(app: App, file: Path, yes: bool, as_json: bool) -> None:
    """Put the backup FILE in the place of the catalog, which is kept aside.

    FILE is read in full before. What would be lost is said, and nothing is done without a yes.

    \b
    Examples:
      headwater catalog restore .headwater/backups/catalog-20260131T120000Z.duckdb
    """
    from headwater.catalog.storage.duckdb.restoring import restoring
    from headwater.catalog.storage.sharing.keeper import dismiss

    folder = app.own_catalog()
    dismiss(folder)
    with restoring(file, folder, wait=app.wait, clock=SystemClock()) as found:
        if not as_json or not yes:
            _describe(found)
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError("Nothing was restored, as nobody could be asked.", remedy="Add --yes.")
            if not click.confirm("Restore it?", err=True):
                raise ConflictError("Nothing was restored.", remedy="The catalog is as it was.")
        aside = found.carry_out()
    if as_json:
        present = found.present
        output.say_json(
            {
                "restored": str(found.source),
                "events": found.backup.seq,
                "last_event": found.backup.last,
                "lost_events": found.lost,
                "lost_until": present.last if present and found.lost else None,
                "another_catalog": found.is_another,
                "kept": None if aside is None else str(aside),
            }
        )
        return
    output.say(f"Restored {output.counted(found.backup.seq, 'event')}.")
    if aside is not None:
        output.note(f"What was there is in {aside}.")
    if found.lost:
        output.note("Files of versions that it does not know are shown by `headwater catalog doctor`.")


def _describe(found: "Restoration") -> None:
    """Say what a restoration brings and what it takes, on stderr."""
    output.note(f"The backup holds {_extent(found.backup)}.")
    if found.present is not None:
        output.note(f"The catalog in {found.home} holds {_extent(found.present)}.")
    elif found.damage:
        output.note(f"What is there now cannot be read: {found.damage}")
    if found.is_another:
        output.note("The backup is of ANOTHER catalog.")
    if found.lost:
        output.note(
            f"{output.counted(found.lost, 'event')}, from number {found.committed - found.lost + 1} "
            f"to {found.committed}, will only be in the files that are kept aside."
        )
    else:
        output.note("Nothing will be lost.")


def _extent(contents: "Contents") -> str:
    """How many events there are, and until when."""
    until = "" if contents.last is None else f", the last of {output.rfc3339(contents.last)}"
    return output.counted(contents.seq, "event") + until


@catalog.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
@pass_app
def migrate(app: App, dry_run: bool, as_json: bool) -> None:
    """Bring the catalog's schema up to date, as any command that writes does; a backup is made before.

    \b
    Examples:
      headwater catalog migrate --dry-run
    """
    from headwater.catalog.storage.duckdb.opening import migrate as bring_up_to_date
    from headwater.catalog.storage.sharing.keeper import dismiss

    folder = app.own_catalog()
    dismiss(folder)
    found = bring_up_to_date(folder, wait=app.wait, dry_run=dry_run)
    if as_json:
        output.say_json(
            {
                "schema": found.before if found.backup is None else found.known,
                "before": found.before,
                "known": found.known,
                "program": found.program,
                "backup": None if found.backup is None else str(found.backup),
            }
        )
    elif found.before >= found.known:
        output.say(f"The catalog is of schema {found.before}, which is up to date.")
    elif found.backup is None:
        output.say(f"The catalog is of schema {found.before}; it would be brought to {found.known}.")
    else:
        output.say(f"The catalog was brought from schema {found.before} to {found.known}.")
        output.note(f"As it was, it is kept in {found.backup}.")


@catalog.command()
@click.option("--all", "every_version", is_flag=True, help="Look at every version, not only at current ones.")
@click.option("--data", "checksums", is_flag=True, help="Read every byte and compare its checksum.")
@click.option("--fix", is_flag=True, help="Remove files that nobody refers to and that are older than --grace.")
@click.option(
    "--grace", callback=_span, default="24h", show_default=True, metavar="TIME", help="Such as 24h, 30m or 7d."
)
@json_option
@click.pass_context
def doctor(
    context: click.Context, every_version: bool, checksums: bool, fix: bool, grace: timedelta, as_json: bool
) -> None:
    """Examine the catalog and the data that it speaks of. Changes nothing without --fix; exits with 1 if it is wrong.

    \b
    Examples:
      headwater catalog doctor
      headwater catalog doctor --data --all
      headwater catalog doctor --fix --grace 7d
    """
    from headwater.catalog.storage.duckdb.examining import examine
    from headwater.catalog.storage.sharing.keeper import dismiss

    app = context.ensure_object(App)
    clock = SystemClock()
    served = catalog_address(app.project.home, app.catalog)
    folder = catalog_folder(app.project.home)
    examined = None
    if served is None and folder.is_dir():
        dismiss(folder)  # while somebody writes, the database itself is not read
        examined = examine(folder, clock=clock)
    problems = list(examined.problems) if examined else []
    notes = list(examined.notes) if examined else []
    data = None
    if served or (examined is not None and (examined.contents or examined.holder)):
        try:
            definitions = _definitions(app, notes)
            with _opened(app, examined) as instance:
                from headwater.materialize.doctor import diagnose

                data = diagnose(
                    instance, definitions, every_version=every_version, checksums=checksums, fix=fix, grace=grace
                )
            problems += data.problems
            notes += data.notes
        except HeadwaterError as error:
            if error.message not in {problem.message for problem in problems}:
                problems.append(error)
    orphans = [orphan for orphan in data.orphans if orphan.is_ours and orphan.is_old] if data else []
    is_well = not problems and all(orphan.removed for orphan in orphans)
    if as_json:
        output.say_json(_as_json(examined, data, problems, notes, is_well))
    else:
        _print(app, examined, data, problems, notes, is_well)
    context.exit(0 if is_well else 1)


def _definitions(app: App, notes: list[HeadwaterError]) -> "Definitions | None":
    """The project's definitions; None where there are none, or where they do not load."""
    if not app.project.files and not app.project.modules:
        return None
    try:
        return app.definitions
    except Exception as error:  # of user code: data can be examined without it
        reason = error.message if isinstance(error, HeadwaterError) else f"{type(error).__name__}: {error}"
        notes.append(
            HeadwaterError(
                f"The definitions do not load ({reason}), so data are looked for where the catalog says they are.",
                remedy="Correct them to have every IO manager's root examined.",
            )
        )
        return None


def _opened(app: App, examined: "Examination | None") -> "Instance":
    """The instance, for reading; what a killed process left in the journal is left there."""
    from headwater.catalog.instance import Instance

    home = app.project.home
    if examined is not None and examined.contents is not None and examined.contents.in_journal:
        from headwater.catalog.storage.duckdb.opening import open_copy

        clock = SystemClock()
        return Instance(home, open_copy(catalog_folder(home).resolve(), wait=app.wait, clock=clock), clock)
    return app.open(read_only=True)


def _as_json(
    examined: "Examination | None",
    data: "DataDiagnosis | None",
    problems: list[HeadwaterError],
    notes: list[HeadwaterError],
    is_well: bool,
) -> dict[str, Any]:
    contents = examined.contents if examined else None
    return {
        "ok": is_well,
        "catalog": {
            "holder": str(examined.holder) if examined and examined.holder else None,
            "schema": contents.version.schema if contents else None,
            "known_schema": examined.known if examined else None,
            "program": contents.version.program if contents else None,
            "events": contents.seq if contents else None,
            "in_journal": contents.in_journal if contents else None,
            "head": examined.head.seq if examined and examined.head else None,
            "log_bytes": examined.log_bytes if examined else None,
            "file_system": examined.file_system if examined else None,
        },
        "data": None
        if data is None
        else {
            "roots": data.roots,
            "versions": data.versions,
            "bytes": data.bytes,
            "elsewhere": data.elsewhere,
        },
        "problems": [_finding(error) for error in problems],
        "notes": [_finding(error) for error in notes],
        "orphans": [
            {
                "uri": orphan.uri,
                "bytes": orphan.bytes,
                "modified": orphan.modified,
                "ours": orphan.is_ours,
                "old": orphan.is_old,
                "removed": orphan.removed,
            }
            for orphan in (data.orphans if data else ())
        ],
    }


def _finding(error: HeadwaterError) -> dict[str, str]:
    return {"code": error.code, "message": error.message, "remedy": error.remedy}


def _print(
    app: App,
    examined: "Examination | None",
    data: "DataDiagnosis | None",
    problems: list[HeadwaterError],
    notes: list[HeadwaterError],
    is_well: bool,
) -> None:
    contents = examined.contents if examined else None
    facts: list[tuple[str, Any]] = [("home", app.project.home)]
    if examined is not None:
        facts += [("file system", examined.file_system), ("held by", examined.holder)]
    if contents is not None:
        facts += [
            ("schema", f"{contents.version.schema}, by Headwater {contents.version.program}"),
            ("events", _extent(contents)),
        ]
    if data is not None:
        facts += [
            ("data", f"{output.counted(data.versions, 'version')}, {output.size(data.bytes)}"),
            ("not looked at", output.counted(data.elsewhere, "version") if data.elsewhere else None),
            ("roots", "\n".join(data.roots)),
        ]
    output.facts(facts)
    for error in problems[:_FEW]:
        output.say()
        output.say(f"PROBLEM [{error.code}]", colour="red")
        output.say_block(f"{error.message}\n{error.remedy}")
    if len(problems) > _FEW:
        output.say(f"… and {output.counted(len(problems) - _FEW, 'more problem')}; --json lists all.")
    for error in notes[:_FEW]:
        output.say_block(f"\nnote: {error.message}\n{error.remedy}")
    if data is not None and data.orphans:
        _print_orphans(data)
    output.say()
    output.say("Nothing is wrong." if is_well else "Something is wrong.", bold=True)


def _print_orphans(data: "DataDiagnosis") -> None:
    """The files that nobody refers to, and what can be done."""
    output.say()
    output.say(f"{output.counted(len(data.orphans), 'file')} that no version and no running run refers to:")
    fates = {
        (True, True): "`--fix` removes it",
        (True, False): "too young to remove",
        (False, True): "perhaps another's",
    }
    output.table(
        ["SIZE", "CHANGED", "", "FILE"],
        [
            (
                output.size(orphan.bytes),
                f"{orphan.modified:%Y-%m-%d %H:%M}",
                "removed" if orphan.removed else fates.get((orphan.is_ours, orphan.is_old), "perhaps another's"),
                orphan.uri,
            )
            for orphan in data.orphans[:_FEW]
        ],
        right=["SIZE"],
    )
    if len(data.orphans) > _FEW:
        output.say(f"… and {len(data.orphans) - _FEW:,} more; --json lists all.")
