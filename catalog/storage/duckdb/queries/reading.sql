-- name: assets
-- Asset keys in the order of their numbers.
select key from asset order by asset_id

-- name: fingerprints
-- Fingerprints in the order of their numbers.
select code, definition, config, resources, io, partitions from fingerprint order by fingerprint_id

-- name: cells
-- The current version of each cell without a partition; its inputs are in `cell_inputs`, by the same seq.
select seq, asset_id, version_id::varchar, fingerprint_id, data_version, column_versions, stored
from cell
where partition_id is null
    and asset_id in (select unnest(from_json_strict($assets, '["INTEGER"]'))) --if assets

-- name: cell_inputs
-- The inputs of the cells above, each cell's in their order.
select seq, input.asset_id, input.partition, input.version_id::varchar, input.data_version, input.columns
from (
    select seq, unnest(inputs) as input
    from cell
    where partition_id is null
        and asset_id in (select unnest(from_json_strict($assets, '["INTEGER"]'))) --if assets
)

-- name: partition_cells
-- The current versions of cells with a partition, as arrays.
select asset_id, partition_id, seq, fingerprint_id, version_hash, inputs_hash
from cell
where partition_id is not null
    and asset_id in (select unnest(from_json_strict($assets, '["INTEGER"]'))) --if assets

-- name: partition_keys
-- The partition keys that have cells, of all assets or of some.
select partition_id, key
from partition_key
where partition_id in ( --if assets
    select partition_id from cell where asset_id in (select unnest(from_json_strict($assets, '["INTEGER"]'))) --if assets
) --if assets

-- name: input_hashes
-- By the asset that was read: the versions `wanted` that depend on it, and the sums of its hashes.
select input.asset_id, position, (sum(input.hash) % 18446744073709551616)::ubigint as hash
from (
    select wanted.position, unnest(inputs) as input
    from materialization join wanted using (seq)
    where asset_id = $asset
)
group by all

-- name: partition_numbers
-- The numbers of some partition keys, those that have one, and perhaps of keys that share their hashes.
select key, partition_id
from partition_key
where rowid in ( -- By hash alone, so that no other keys are read.
        select rowid from partition_key
        where key_hash in (select md5_number_lower(unnest(from_json_strict($keys, '["VARCHAR"]'))))
    )

-- name: dynamic_names
-- The names of dynamic partitions that have keys.
select distinct name from dynamic_partition order by name

-- name: dynamic_count
-- How many keys there are of a name.
select count(*) from dynamic_partition where name = $name

-- name: dynamic_indexes
-- The positions of some keys of a name, those that exist, as `partition_numbers` finds keys.
select key, position
from dynamic_partition
where name = $name
    and rowid in (
        select rowid from dynamic_partition
        where key_hash in (select md5_number_lower(unnest(from_json_strict($keys, '["VARCHAR"]'))))
    )

-- name: dynamic_slice
-- The keys of a name at some positions.
select key from dynamic_partition where name = $name and position >= $start and position < $stop order by position

-- name: failures
-- Of each cell that failed and has no newer version, the number of the last event that says so.
with said as (
    select
        seq,
        unnest(from_json(data -> '$.cells', '[{"asset": "VARCHAR", "partition": "VARCHAR", "status": "VARCHAR"}]'))
            as cell
    from event
    where kind = 'STEP_FAILURE' and not late
), newest as (
    select asset_id, cell.partition, max(seq) as seq
    from said join asset on asset.key = cell.asset
    where cell.status = 'FAILURE'
    group by all
)
select newest.asset_id, newest.partition, newest.seq
from newest
left join partition_key on partition_key.key = newest.partition
-- No cell has the number -1: a key without a number is not the lack of a partition.
left join cell on cell.asset_id = newest.asset_id and cell.partition_id is not distinct from
    coalesce(partition_key.partition_id, case when newest.partition is not null then -1 end)
where cell.seq is null or cell.seq < newest.seq

-- name: failed_steps
-- The steps that some events say failed, and why.
select seq, run_id::varchar, step_key, time, (data -> '$.error')::varchar
from event
join run on run.run_no = event.run_no
join step on step.run_no = event.run_no and step.step_no = event.step_no
where seq in (select unnest(from_json_strict($seqs, '["BIGINT"]')))

-- name: materializations
-- Versions, newest first: of an asset, a partition, a cell now, each asset's latest, by identifier, before another.
with picked as (
    select *
    from materialization
    where true
        and asset_id = $asset --if asset
        and partition = $partition --if partition
        and version_id = $version::uuid --if version
        and seq < (select seq from materialization where version_id = $before::uuid) --if before
        and seq in ( --if cell_asset
            select seq from cell where asset_id = $cell_asset --if cell_asset
                and partition_id is null --if whole
                and partition_id in (select unnest(from_json_strict($partitions, '["INTEGER"]'))) --if partitions
        ) --if cell_asset
        and seq in (select max(seq) from cell group by asset_id) --if latest
        and asset_id in (select unnest(from_json_strict($assets, '["INTEGER"]'))) --if assets
    order by seq desc
    limit $limit --if limit
)
select
    version_id::varchar, asset_id, partition, run_id::varchar, step_key, created, seconds, fingerprint_id,
    data_version, uri, format, representation, rows, bytes, checksum, columns, column_versions,
    to_json(inputs)::varchar, metadata, picked.tags
from picked
join run on run.run_no = picked.run_no
join step on step.run_no = picked.run_no and step.step_no = picked.step_no
order by seq desc

-- name: runs
-- Runs, newest first.
select
    run_no, run_id::varchar, status, started, ended, job, selection, tags, user_name, host, pid, start_ticks, error,
    (select backfill_id::varchar from backfill where backfill.backfill_no = run.backfill_no),
    queued, moved, parent_run_id::varchar, root_run_id::varchar, pools,
    if(status = 'QUEUED', behind::varchar, null), request, steps
from run
where true
    and backfill_no = (select backfill_no from backfill where backfill_id = $backfill::uuid) --if backfill
    and status in (select unnest(from_json_strict($statuses, '["VARCHAR"]'))) --if statuses
    and job = $job --if job
    and (run_id = $root::uuid or root_run_id = $root::uuid) --if root
    and run_no in (select run_no from planned_cell where asset_id = $asset) --if asset
    and run_no < (select run_no from run where run_id = $before::uuid) --if before
    and run_id between $least::uuid and $greatest::uuid --if least
order by run_no desc
limit $limit

-- name: backfills
-- Backfills, newest first, with their runs.
with picked as (
    select *
    from backfill
    where true
        and status in (select unnest(from_json_strict($statuses, '["VARCHAR"]'))) --if statuses
        and backfill_no < (select backfill_no from backfill where backfill_id = $before::uuid) --if before
        and backfill_id between $least::uuid and $greatest::uuid --if least
    order by backfill_no desc
    limit $limit
), part as (
    select backfill_no, list(run_id::varchar order by run_no) as runs
    from run
    where backfill_no in (select backfill_no from picked)
    group by backfill_no
)
select
    backfill_id::varchar, status, started, ended, title, selection, options, tags, user_name, host, pid,
    targets, total, error, coalesce(runs, [])
from picked left join part using (backfill_no)
order by backfill_no desc

-- name: backfill_number
-- The number and status of a backfill.
select backfill_no, status from backfill where backfill_id = $backfill::uuid

-- name: backfill_counts
-- How many cells the backfills in a range of identifiers are done with, and how many failed.
select backfill_id::varchar, count(*) filter (status = 'DONE'), count(*) filter (status = 'FAILED')
from backfill_cells
where backfill_id between $least::uuid and $greatest::uuid
group by backfill_id

-- name: backfill_cells
-- By asset: the partitions that a backfill is done with, and those that failed.
select
    asset,
    list(partition order by partition nulls first) filter (status = 'DONE'),
    list(partition order by partition nulls first) filter (status = 'FAILED')
from backfill_cells
where backfill_id = $backfill::uuid
group by asset

-- name: step_counts
-- How many steps of some runs started and, by kind of their last event, ended.
select run_no, ended, count(*)
from (
    select run_no, step_no, any_value(kind) filter (kind not in ('STEP_START', 'STEP_RETRY')) as ended
    from event
    where run_no in (select unnest(from_json_strict($runs, '["INTEGER"]')))
        and run_no >= $least
        and step_no is not null and not late
        and kind not in ('ASSET_MATERIALIZATION', 'LOG_MESSAGE', 'SLOT_CLAIMED')
    group by run_no, step_no
)
group by run_no, ended

-- name: steps
-- The steps of a run in the order of its plan: what was planned, when it started, how it ended.
with progress as (
    select
        step_no,
        min(time) filter (kind = 'STEP_START') as started,
        max(attempt) as attempts,
        any_value(kind) filter (kind not in ('STEP_START', 'STEP_RETRY')) as ended_as,
        any_value(time) filter (kind not in ('STEP_START', 'STEP_RETRY')) as ended,
        any_value(data) filter (kind not in ('STEP_START', 'STEP_RETRY')) as data
    from event
    where run_no = $run and step_no is not null and not late
        and kind not in ('ASSET_MATERIALIZATION', 'LOG_MESSAGE', 'SLOT_CLAIMED')
    group by step_no
)
select step.step_no, step_key, reason, started, coalesce(attempts, 0), ended_as, ended, data, progress.step_no is null
from step left join progress on progress.step_no = step.step_no
where step.run_no = $run
order by step.step_no

-- name: planned_cells
-- The cells that a run planned, in their order.
select step_no, asset_id, partition, version_id::varchar, folder
from planned_cell
where run_no = $run
    and version_id not in (select version_id from materialization where run_no = $run) --if uncommitted
order by rowid

-- name: run_number
-- The number and status of a run.
select run_no, status from run where run_id = $run_id::uuid

-- name: version_exists
-- Whether there is such a version.
select count(*) > 0 from materialization where version_id = $version::uuid

-- name: events
-- The log in order: after a number, of a run, a step, some kinds, an asset (or one partition) and the steps that build
-- it.
with picked as (
    select *
    from event
    where seq > $after
        and run_no = $run --if run
        and (run_no, step_no) in (select (run_no, step_no) from step where step_key = $step_key) --if step_key
        and kind in (select unnest(from_json_strict($kinds, '["VARCHAR"]'))) --if kinds
        and (asset_id = $asset or (run_no, step_no) in ( --if asset
            select (run_no, step_no) from planned_cell --if asset
            where asset_id = $asset --if asset
                and partition = $partition --if partition
        )) --if asset
        and (asset_id is null or asset_id != $asset or partition = $partition) --if partition
    order by seq
    limit $limit --if limit
)
select seq, time, kind, run_id::varchar, step_key, asset_id, partition, message, data
from picked
left join run on run.run_no = picked.run_no
left join step on step.run_no = picked.run_no and step.step_no = picked.step_no
order by seq

-- name: definitions
-- The definitions as they were last recorded.
select asset_id, data, metadata from definition order by asset_id

-- name: definition_changes
-- How definitions changed, newest first.
select asset_id, changed, change, parts
from definition_change
where true
    and asset_id = $asset --if asset
order by seq desc
limit $limit

-- name: claims
-- How often anything was claimed.
select (select coalesce(sum(claims), 0) from run)::bigint + (select count(*) from slot)

-- name: slots
-- The places in pools that attempts hold: neither they nor their runs have ended.
with held as (
    select slot.rowid as place, run_id, slot.*
    from slot join run on run.run_no = slot.run_no
    where run.status in ('STARTED', 'CANCELING')
), ended as (
    select run_no, step_no, max(if(kind = 'STEP_RETRY', attempt, 2147483647)) as attempt
    from event
    where run_no in (select run_no from held) and run_no >= (select min(run_no) from held)
        and step_no is not null and not late
        and kind not in ('STEP_START', 'ASSET_MATERIALIZATION', 'LOG_MESSAGE', 'SLOT_CLAIMED')
    group by run_no, step_no
)
select pool, run_id::varchar, step_key, held.attempt
from held
join step on step.run_no = held.run_no and step.step_no = held.step_no
left join ended on ended.run_no = held.run_no and ended.step_no = held.step_no
where ended.attempt is null or ended.attempt < held.attempt
order by held.place

-- name: known_runs
-- Which of some runs there are.
select run_id::varchar from run where run_id in (select unnest(from_json_strict($runs, '["VARCHAR"]'))::uuid)

-- name: automations
-- The schedules and sensors that were started, stopped or seen.
select name, status, until, ticked, cursor, last_run_key, failures
from automation
order by name

-- name: daemon
-- The last daemon.
select epoch, started, ended, user_name, host, pid, start_ticks from daemon
-- name: facts
-- What is known of a topic, those that changed last first.
select topic, name, changed, value
from fact
where topic = $topic
    and name in (select unnest(from_json_strict($names, '["VARCHAR"]'))) --if names
order by seq desc
limit $limit --if limit

-- name: condition_states
-- What the last evaluation of conditions left for the next one.
select asset_id, data
from condition_state
where asset_id is null and $common --if common

-- name: ticks
-- Ticks, the last recorded ones first.
select name, due, evaluated, status, reason, error, run_ids, run_keys, instants
from tick
where true
    and name in (select unnest(from_json_strict($names, '["VARCHAR"]'))) --if names
    and status in (select unnest(from_json_strict($statuses, '["VARCHAR"]'))) --if statuses
    and evaluated < $before::timestamp --if before
order by seq desc
limit $limit

-- name: requested
-- Which of some run keys were requested by the ticks of a schedule, with their runs.
select key, run_id::varchar
from run_key
where name = $name and key in (select unnest(from_json_strict($keys, '["VARCHAR"]')))
