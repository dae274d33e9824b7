-- min_reader: 1
-- min_writer: 1
--
-- What users query: docs/catalog-views.md says what each view and column is. Names and meanings stay; a later
-- migration may add columns at the end.

create view materializations as
select
    asset.key as asset,
    made.partition,
    made.version_id,
    run.run_id,
    step.step_key,
    made.created,
    made.seconds,
    made.data_version,
    fingerprint.code as code_version,
    made.uri,
    made.format,
    made.representation,
    made.rows,
    made.bytes,
    made.checksum,
    made.metadata::json as metadata,
    made.tags::json as tags,
    cell.seq is not null as is_current,
    made.seq
from materialization as made
join asset on asset.asset_id = made.asset_id
join run on run.run_no = made.run_no
join step on step.run_no = made.run_no and step.step_no = made.step_no
join fingerprint on fingerprint.fingerprint_id = made.fingerprint_id
left join cell on cell.seq = made.seq;

create view partitions as
select asset, partition, version_id, data_version, code_version, created, rows, bytes, uri
from materializations
where is_current;

create view assets as
with built as (
    select
        asset_id,
        arg_max(made.version_id, made.seq) as version_id,
        arg_max(made.created, made.seq) as last_materialized,
        count(*) as cells,
        sum(made.rows)::bigint as rows,
        sum(made.bytes)::bigint as bytes
    from cell join materialization as made using (seq, asset_id)
    group by asset_id
)
select
    asset.key,
    definition.data ->> '$.group' as group_name,
    from_json(definition.data -> '$.kinds', '["VARCHAR"]') as kinds,
    from_json(definition.data -> '$.owners', '["VARCHAR"]') as owners,
    definition.data -> '$.tags' as tags,
    definition.data ->> '$.description' as description,
    definition.data ->> '$.code_version' as code_version,
    definition.asset_id is not null as is_defined,
    coalesce((definition.data ->> '$.external')::boolean, false) as is_external,
    built.version_id,
    built.last_materialized,
    coalesce(built.cells, 0) as cells,
    built.rows,
    built.bytes,
    definition.metadata::json as metadata
from asset
left join (select asset_id, data::json as data, metadata from definition) as definition
    on definition.asset_id = asset.asset_id
left join built on built.asset_id = asset.asset_id;

create view lineage as
select distinct dep ->> '$.key' as upstream, asset.key as downstream
from (select asset_id, unnest((data::json -> '$.deps')::json[]) as dep from definition) as definition
join asset on asset.asset_id = definition.asset_id;

create view columns as
with made as (
    select kept.asset_id, kept.partition, kept.version_id, seq, kept.columns, kept.column_versions
    from cell join materialization as kept using (seq)
    where kept.columns is not null
),
part as (
    select
        asset_id, partition, version_id, seq,
        generate_subscripts(columns::json[], 1) as position, unnest(columns::json[]) as entry
    from made
),
-- Not by a JSON path made of the name: paths have wildcards, and each would read all versions again.
version as (
    select seq, pair.key as name, pair.value as version
    from (select seq, unnest(map_entries(column_versions::json::map(varchar, varchar))) as pair from made)
)
select
    asset.key as asset,
    part.partition,
    part.version_id,
    part.position,
    part.entry ->> '$.name' as name,
    part.entry ->> '$.type' as type,
    version.version,
    (part.entry ->> '$.nulls')::bigint as nulls,
    part.entry -> '$.min' as min,
    part.entry -> '$.max' as max
from part
join asset on asset.asset_id = part.asset_id
left join version on version.seq = part.seq and version.name = part.entry ->> '$.name';

create view inputs as
select
    asset.key as asset,
    made.partition,
    made.version_id,
    source.key as input_asset,
    input.partition as input_partition,
    input.version_id as input_version_id,
    input.data_version as input_data_version,
    input.columns::json as input_columns
from (select asset_id, partition, version_id, unnest(inputs) as input from materialization) as made
join asset on asset.asset_id = made.asset_id
join asset as source on source.asset_id = made.input.asset_id;

create view runs as
select
    run_id, status, started, ended, date_diff('microsecond', started, ended) / 1e6 as seconds, job, selection,
    tags::json as tags, user_name, host, pid, steps, error::json ->> '$.kind' as error,
    error::json ->> '$.message' as error_message,
    (select backfill_id from backfill where backfill.backfill_no = run.backfill_no) as backfill_id,
    queued, parent_run_id, root_run_id
from run;

create view steps as
with progress as (
    select
        run_no,
        step_no,
        min(time) filter (kind = 'STEP_START') as started,
        max(attempt) as attempts,
        any_value(kind) filter (kind not in ('STEP_START', 'STEP_RETRY')) as ended_as,
        any_value(time) filter (kind not in ('STEP_START', 'STEP_RETRY')) as ended,
        any_value(data) filter (kind not in ('STEP_START', 'STEP_RETRY'))::json as data
    from event
    where step_no is not null and not late
        and kind not in ('ASSET_MATERIALIZATION', 'LOG_MESSAGE', 'SLOT_CLAIMED')
    group by run_no, step_no
)
select
    run.run_id,
    step.step_key,
    step.step_no as position,
    case
        when progress.step_no is null then 'PENDING'
        when ended_as is null then 'STARTED'
        else substr(ended_as, length('STEP_') + 1)
    end as status,
    step.reason,
    progress.started,
    progress.ended,
    date_diff('microsecond', progress.started, progress.ended) / 1e6 as seconds,
    coalesce(progress.attempts, 0) as attempts,
    progress.data ->> '$.error.kind' as error,
    progress.data ->> '$.error.message' as error_message,
    progress.data -> '$.cells' as cells
from step
join run on run.run_no = step.run_no
left join progress on progress.run_no = step.run_no and progress.step_no = step.step_no;

create view events as
select
    event.seq, event.time, event.kind, run.run_id, step.step_key, asset.key as asset, event.partition, event.message,
    event.data::json as data
from event
left join run on run.run_no = event.run_no
left join step on step.run_no = event.run_no and step.step_no = event.step_no
left join asset on asset.asset_id = event.asset_id;

create view definition_history as
select
    change.changed, asset.key as asset, change.change, from_json(change.parts, '["VARCHAR"]') as parts,
    change.data::json as data, change.seq
from definition_change as change
join asset on asset.asset_id = change.asset_id;

-- A cell is in the log only where its step did not make all its cells: of the others, the versions say it.
create view backfill_cells as
with said as (
    select run_no, seq, asset_id, partition, 'SUCCESS' as status, true as done
    from materialization
    union all
    select run_no, seq, asset_id, cell.partition, cell.status, cell.status = 'VERIFIED'
    from (
        select
            run_no, seq,
            unnest(from_json(data -> '$.cells', '[{"asset": "VARCHAR", "partition": "VARCHAR", "status": "VARCHAR"}]'))
                as cell
        from event
        where step_no is not null and not late
            and kind not in ('STEP_START', 'STEP_RETRY', 'ASSET_MATERIALIZATION', 'LOG_MESSAGE', 'SLOT_CLAIMED')
            and (
                kind <> 'STEP_SUCCESS'
                or regexp_matches(data, '"status":"(VERIFIED|FAILURE|SKIPPED|CANCELED|INTERRUPTED)"')
            )
    )
    join asset on asset.key = cell.asset
)
select backfill.backfill_id, asset.key as asset, partition, if(bool_or(done), 'DONE', 'FAILED') as status
from said
join run on run.run_no = said.run_no
join backfill on backfill.backfill_no = run.backfill_no
join asset on asset.asset_id = said.asset_id
group by backfill.backfill_id, asset.key, partition
having bool_or(done) or max_by(said.status, seq) = 'FAILURE';

create view backfills as
select
    backfill.backfill_id,
    status,
    started,
    ended,
    date_diff('microsecond', started, ended) / 1e6 as seconds,
    title,
    selection,
    options::json as options,
    tags::json as tags,
    user_name,
    host,
    pid,
    (select count(*) from run where run.backfill_no = backfill.backfill_no) as runs,
    total as cells,
    coalesce(counted.done, 0) as done,
    coalesce(counted.failed, 0) as failed,
    error::json ->> '$.kind' as error,
    error::json ->> '$.message' as error_message
from backfill
left join (
    select backfill_id, count(*) filter (status = 'DONE') as done, count(*) filter (status = 'FAILED') as failed
    from backfill_cells
    group by backfill_id
) as counted on counted.backfill_id = backfill.backfill_id;

create view dynamic_partitions as
select name, key as partition, position from dynamic_partition;

create view automations as
select name, status, until, ticked, cursor, last_run_key, failures from automation;

create view ticks as
select
    name, due, evaluated, status, reason, error::json ->> '$.kind' as error, error::json ->> '$.message' as error_message,
    from_json(run_ids, '["VARCHAR"]') as run_ids, run_keys::json as run_keys, instants, seq
from tick;

create view freshness as
select
    name as asset, value::json ->> '$.state' as state, (value::json ->> '$.updated')::timestamp as updated,
    (value::json ->> '$.warns_at')::timestamp as warns_at,
    (value::json ->> '$.fails_at')::timestamp as fails_at, changed, seq
from fact
where topic = 'FRESHNESS';

create view alerts as
select
    name as alert, value::json ->> '$.alert.policy' as policy, value::json ->> '$.alert.event' as event,
    value::json ->> '$.alert.subject' as subject, value::json ->> '$.alert.title' as title,
    value::json ->> '$.to' as target, value::json ->> '$.status' as status,
    (value::json ->> '$.attempts')::bigint as attempts, value::json ->> '$.error' as error, changed, seq
from fact
where topic = 'ALERT';
