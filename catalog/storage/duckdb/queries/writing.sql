-- name: writer_state
-- What a writer keeps in memory: the last event, the next run, how many cells and partition keys there are, the
-- next backfill, how often anything was claimed.
select
    (select coalesce(max(seq), 0) from event),
    (select coalesce(max(run_no) + 1, 0) from run),
    (select count(*) from cell),
    (select count(*) from partition_key),
    (select coalesce(max(backfill_no) + 1, 0) from backfill),
    (select coalesce(sum(claims), 0) from run)::bigint + (select count(*) from slot)

-- name: assets_with_cells
-- The assets that have a cell.
select distinct asset_id from cell

-- name: last_event
-- The number of the last event that is committed; how many events the tables hold, and the number of their last.
select greatest(tables.seq, journal.seq), tables.count, tables.seq
from (select coalesce(max(seq), 0) as seq, count(*) as count from event) as tables,
    (select coalesce(max(last), 0) as seq from journal) as journal

-- name: identity
-- Which catalog it is, and when the last event in its tables happened.
select value, (select max(time) from event) from meta where name = 'catalog_id'

-- name: journal
-- The events that are not in the tables yet, and the requests that asked for them.
select appends from journal order by last

-- name: applied_request
-- The last event of what a request asked for.
select seq from applied_request where request = $request

-- name: forget_requests
-- Nobody asks again for what was long ago.
delete from applied_request where seq < $before

-- name: empty_journal
-- Its events are in the tables.
delete from journal

-- name: run_steps
-- The steps of a run and whether each has ended.
with ended as (
    select distinct step_no
    from event
    where run_no = $run and not late and step_no is not null
        and kind not in ('STEP_START', 'STEP_RETRY', 'ASSET_MATERIALIZATION', 'LOG_MESSAGE', 'SLOT_CLAIMED')
)
select step_key, step.step_no, ended.step_no is not null
from step left join ended on ended.step_no = step.step_no
where step.run_no = $run
order by step.step_no

-- name: add_partition_keys
-- Number new partition keys, from `first` on.
insert into partition_key
select $first + place - 1, key, md5_number_lower(key)
from (
    select unnest(keys) as key, generate_subscripts(keys, 1) as place
    from (select from_json_strict($keys, '["VARCHAR"]') as keys)
)

-- name: delete_cell
-- Make room for the new version of one cell.
delete from cell where asset_id = $asset and partition_id is not distinct from $partition

-- name: delete_cells
-- Make room for the new versions of many cells.
delete from cell using (
    select unnest(lists.asset_id) as asset_id, unnest(lists.partition_id) as partition_id
    from (select from_json_strict($cells, '{"asset_id": ["INTEGER"], "partition_id": ["INTEGER"]}') as lists)
) as renewed
where cell.asset_id = renewed.asset_id and cell.partition_id is not distinct from renewed.partition_id

-- name: delete_dynamic_keys
-- Delete keys of dynamic partitions.
delete from dynamic_partition as kept using (
    select unnest(lists.name) as name, unnest(lists.key) as key
    from (select from_json_strict($deleted, '{"name": ["VARCHAR"], "key": ["VARCHAR"]}') as lists)
) as gone
where kept.name = gone.name and kept.key = gone.key

-- name: close_dynamic_gaps
-- Number the keys of dynamic partitions again after some were deleted.
update dynamic_partition set position = counted.position
from (
    select rowid as id, row_number() over (partition by name order by position) - 1 as position
    from dynamic_partition
    where name in (select unnest(from_json_strict($names, '["VARCHAR"]')))
) as counted
where dynamic_partition.rowid = counted.id and dynamic_partition.position <> counted.position

-- name: add_dynamic_keys
-- Add those keys of dynamic partitions that are not there yet, in their order.
insert into dynamic_partition
with added as (
    select
        unnest(lists.name) as name, unnest(lists.key) as key, generate_subscripts(lists.key, 1) as place
    from (select from_json_strict($added, '{"name": ["VARCHAR"], "key": ["VARCHAR"]}') as lists)
), fresh as (
    from added anti join dynamic_partition using (name, key)
), counted as (
    select name, count(*) as keys from dynamic_partition group by name
)
select name, coalesce(keys, 0) + row_number() over (partition by name order by place) - 1, key, md5_number_lower(key)
from fresh left join counted using (name)
order by place

-- name: end_runs
-- Note that runs ended.
update run set ended = over.ended, status = over.status, error = over.error
from (
    select
        unnest(lists.run_no) as run_no, unnest(lists.ended) as ended,
        unnest(lists.status) as status, unnest(lists.error) as error
    from (
        select from_json_strict(
            $runs, '{"run_no": ["INTEGER"], "ended": ["TIMESTAMP"], "status": ["VARCHAR"], "error": ["VARCHAR"]}'
        ) as lists
    )
) as over
where run.run_no = over.run_no

-- name: move_runs
-- Note that runs that wait, or have waited, go on.
update run set
    status = gone.status, moved = coalesce(gone.moved, run.moved), started = coalesce(gone.started, run.started),
    host = coalesce(gone.host, run.host), pid = coalesce(gone.pid, run.pid),
    start_ticks = if(gone.pid is null, run.start_ticks, gone.start_ticks), steps = coalesce(gone.steps, run.steps),
    behind = gone.behind, claims = run.claims + gone.claims
from (
    select
        unnest(lists.run_no) as run_no, unnest(lists.status) as status, unnest(lists.moved) as moved,
        unnest(lists.started) as started, unnest(lists.host) as host, unnest(lists.pid) as pid,
        unnest(lists.start_ticks) as start_ticks, unnest(lists.steps) as steps, unnest(lists.behind) as behind, unnest(lists.claims) as claims
    from (
        select from_json_strict(
            $runs,
            '{"run_no": ["INTEGER"], "status": ["VARCHAR"], "moved": ["TIMESTAMP"], "started": ["TIMESTAMP"],
              "host": ["VARCHAR"], "pid": ["BIGINT"], "start_ticks": ["BIGINT"], "steps": ["INTEGER"],
              "behind": ["UUID"], "claims": ["INTEGER"]}'
        ) as lists
    )
) as gone
where run.run_no = gone.run_no

-- name: move_backfills
-- Note that backfills ended or go on.
update backfill set
    status = moved.status, ended = moved.ended, error = moved.error,
    user_name = coalesce(moved.user_name, backfill.user_name), host = coalesce(moved.host, backfill.host),
    pid = coalesce(moved.pid, backfill.pid)
from (
    select
        unnest(lists.backfill_no) as backfill_no, unnest(lists.status) as status, unnest(lists.ended) as ended,
        unnest(lists.error) as error, unnest(lists.user_name) as user_name, unnest(lists.host) as host,
        unnest(lists.pid) as pid
    from (
        select from_json_strict(
            $backfills,
            '{"backfill_no": ["INTEGER"], "status": ["VARCHAR"], "ended": ["TIMESTAMP"], "error": ["VARCHAR"],
              "user_name": ["VARCHAR"], "host": ["VARCHAR"], "pid": ["BIGINT"]}'
        ) as lists
    )
) as moved
where backfill.backfill_no = moved.backfill_no

-- name: delete_definitions
-- Make room for new definitions, or none.
delete from definition where asset_id in (select unnest(from_json_strict($assets, '["INTEGER"]')))

-- name: purge_ticks
-- Delete the oldest of the ticks that ended in some way, evaluated before a time and recorded before an event.
delete from tick
where seq in (
    select seq from tick
    where seq < $seq and status = $status and evaluated < $before::timestamp
        and name in (select unnest(from_json_strict($names, '["VARCHAR"]')))
    order by seq
    limit $limit
)

-- name: delete_daemon
-- Make room for the daemon as it is from now on.
delete from daemon

-- name: delete_condition_states
-- Make room for what an evaluation of conditions leaves; NULL stands for what is about all.
delete from condition_state
where coalesce(asset_id, -1) in (
    select coalesce(asset, -1) from (select unnest(from_json_strict($assets, '["INTEGER"]')) as asset)
)

-- name: delete_automations
-- Make room for what schedules are from now on.
delete from automation where name in (select unnest(from_json_strict($names, '["VARCHAR"]')))

-- name: delete_facts
-- Make room for what was found out since.
delete from fact using (
    select unnest(lists.topic) as topic, unnest(lists.name) as name
    from (select from_json_strict($facts, '{"topic": ["VARCHAR"], "name": ["VARCHAR"]}') as lists)
) as changed
where fact.topic = changed.topic and fact.name = changed.name
