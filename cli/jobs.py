"""`jobs`: what can be built by name."""

from typing import Any

import click

from headwater.catalog.definitions.job import JobDefinition
from headwater.cli import output
from headwater.cli.app import App, json_option, pass_app


@click.command()
@json_option
@pass_app
def jobs(app: App, as_json: bool) -> None:
    """List jobs. `headwater materialize --job NAME` runs one.

    \b
    Examples:
      headwater jobs
      headwater materialize --job nightly --detach
    """
    found = [app.definitions.jobs[name] for name in sorted(app.definitions.jobs)]
    if as_json:
        output.say_json({"jobs": [_describe(app, job) for job in found]})
        return
    if not found:
        output.note("No jobs; define_asset_job makes one, and Definitions(jobs=[…]) takes it.")
        return
    rows = [(job.name, str(job.selection), _partitions(app, job) or "", job.description) for job in found]
    output.table(["JOB", "SELECTION", "PARTITIONS", "DESCRIPTION"], rows)


def _describe(app: App, job: JobDefinition) -> dict[str, Any]:
    return {
        "name": job.name,
        "selection": str(job.selection),
        "description": job.description,
        "partitions": _partitions(app, job),
        "tags": job.tags,
        "executor": job.executor,
        "hooks": sorted(hook.name for hook in job.hooks),
        "source": str(job.source),
    }


def _partitions(app: App, job: JobDefinition) -> str | None:
    found = job.partitions(app.definitions.graph)
    return None if found is None else found.describe()
