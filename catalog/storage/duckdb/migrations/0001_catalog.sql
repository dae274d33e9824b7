-- min_reader: 1
-- min_writer: 1
--
-- The catalog: what happened (event, materialization, run, step, planned_cell, backfill, tick,
-- definition_change), what is the
-- case now (cell, definition, dynamic_partition, automation, condition_state, daemon, fact), and names by number (asset,
-- partition_key, fingerprint).
--
-- No keys and no indexes: the one writer checks, zone maps find (rows come in the order of time, so seq, run_no
-- and version_id are nearly sorted), and neither costs anything per commit or in the write-ahead log.
-- Times are UTC. Nested parts that are only read whole are JSON text; versions that are compared are columns.

-- Which catalog this is and who may use it: format, catalog_id, created, min_reader, min_writer.
create table meta (
    name varchar not null,
    value varchar not null
);

create table migration (
    number integer not null,
    name varchar not null,
    checksum varchar not null,
    applied timestamp not null,
    program varchar not null
);

-- Events that are committed and not yet in the tables below: what small appends write, one row for a commit, which
-- costs the same for eight that wait for each other as for one. The writer moves them on before anybody asks a
-- question, so that they are left behind only by a process that was killed.
create table journal (
    last bigint not null,
    appends varchar not null
);

-- What other processes asked the one that owns this file to append, and the last event that it became: whoever lost
-- the connection before the answer came learns here whether it was done.
create table applied_request (
    request varchar not null,
    seq bigint not null
);

create table asset (
    asset_id integer not null,
    key varchar not null
);

-- Every partition key that has a cell, of any asset. key_hash is md5_number_lower(key): finding keys by it among a
-- million takes 5 ms, by themselves 40 ms.
create table partition_key (
    partition_id integer not null,
    key varchar not null,
    key_hash ubigint not null
);

-- The keys of dynamic partitions by name; positions count from 0 without holes.
create table dynamic_partition (
    name varchar not null,
    position bigint not null,
    key varchar not null,
    key_hash ubigint not null
);

create table fingerprint (
    fingerprint_id integer not null,
    code varchar not null,
    definition varchar not null,
    config varchar not null,
    resources varchar not null,
    io varchar not null,
    partitions varchar not null
);

create table event (
    seq bigint not null,
    time timestamp not null,
    kind varchar not null,
    run_no integer,
    step_no integer,
    asset_id integer,
    partition varchar,
    attempt integer,
    late boolean not null,
    message varchar not null,
    data varchar not null
);

-- A run is QUEUED and maybe STARTING before it is STARTED, or STARTED at once. claims: how often it claimed something
-- that others wanted too. request: what was asked for. behind: the run that it waits for in the queue.
create table run (
    run_no integer not null,
    run_id uuid not null,
    started timestamp,
    ended timestamp,
    status varchar not null,
    job varchar,
    selection varchar,
    tags varchar not null,
    user_name varchar not null,
    host varchar not null,
    pid bigint not null,
    start_ticks bigint,
    steps integer not null,
    backfill_no integer,
    error varchar,
    queued timestamp,
    moved timestamp,
    parent_run_id uuid,
    root_run_id uuid,
    pools varchar not null,
    behind uuid,
    request varchar not null,
    claims integer not null
);

-- Places in pools that attempts at steps were given. They are held until the attempt ends, which is in the events.
create table slot (
    run_no integer not null,
    step_no integer not null,
    attempt integer not null,
    pool varchar not null
);

-- targets: [{"asset", "cells", "partitions"}]. How far it got is in the events and versions of its runs.
create table backfill (
    backfill_no integer not null,
    backfill_id uuid not null,
    started timestamp not null,
    ended timestamp,
    status varchar not null,
    title varchar not null,
    selection varchar,
    options varchar not null,
    tags varchar not null,
    user_name varchar not null,
    host varchar not null,
    pid bigint not null,
    targets varchar not null,
    total bigint not null,
    error varchar
);

-- Schedules and sensors that were started, stopped or seen. until: up to when everything is decided.
create table automation (
    name varchar not null,
    status varchar,
    until timestamp not null,
    ticked timestamp,
    cursor varchar,
    last_run_key varchar,
    failures bigint not null
);

-- The last daemon: one row, or none.
create table daemon (
    epoch bigint not null,
    started timestamp not null,
    ended timestamp,
    user_name varchar not null,
    host varchar not null,
    pid bigint not null,
    start_ticks bigint
);

-- What was found out by looking, by topic and name; value: plain JSON data. seq is that of the event that says so.
create table fact (
    seq bigint not null,
    topic varchar not null,
    name varchar not null,
    changed timestamp not null,
    value varchar not null
);

-- seq is that of the tick's event; run_ids: ["…"]; run_keys: {key: run_id}.
create table tick (
    seq bigint not null,
    name varchar not null,
    due timestamp not null,
    evaluated timestamp not null,
    status varchar not null,
    reason varchar not null,
    error varchar,
    run_ids varchar not null,
    run_keys varchar not null,
    instants bigint not null
);

-- The run keys that ticks requested, of ticks that are not kept any more too.
create table run_key (
    name varchar not null,
    key varchar not null,
    run_id uuid not null
);

-- What the last evaluation of conditions left for the next one: of an asset, or of all.
create table condition_state (
    asset_id integer,
    data varchar not null
);

create table step (
    run_no integer not null,
    step_no integer not null,
    step_key varchar not null,
    reason varchar not null
);

create table planned_cell (
    run_no integer not null,
    step_no integer not null,
    asset_id integer not null,
    partition varchar,
    version_id uuid not null,
    folder varchar
);

-- seq is that of the version's event.
create table materialization (
    seq bigint not null,
    version_id uuid not null,
    asset_id integer not null,
    partition varchar,
    run_no integer not null,
    step_no integer not null,
    created timestamp not null,
    seconds double not null,
    fingerprint_id integer not null,
    data_version varchar not null,
    uri varchar,
    format varchar,
    representation varchar,
    rows bigint,
    bytes bigint,
    checksum varchar,
    columns varchar,
    column_versions varchar,
    -- hash: cell_hash.input_hash.
    inputs struct(
        asset_id integer, partition varchar, version_id uuid, data_version varchar, columns varchar, hash ubigint
    )[] not null,
    metadata varchar not null,
    tags varchar not null
);

-- What staleness needs of the current version of each asset partition, so that asking for the state of everything
-- reads nothing of the history: numbers that are read a million at a time (the hashes are those of `cell_hash`), and
-- for cells without a partition copies of their materialization's columns, NULL for the others.
create table cell (
    asset_id integer not null,
    partition_id integer,
    seq bigint not null,
    fingerprint_id integer not null,
    version_hash ubigint not null,
    inputs_hash ubigint not null,
    version_id uuid,
    data_version varchar,
    column_versions varchar,
    inputs struct(
        asset_id integer, partition varchar, version_id uuid, data_version varchar, columns varchar, hash ubigint
    )[],
    stored boolean
);

create table definition (
    asset_id integer not null,
    recorded timestamp not null,
    data varchar not null,
    metadata varchar not null
);

create table definition_change (
    seq bigint not null,
    asset_id integer not null,
    changed timestamp not null,
    change varchar not null,
    parts varchar not null,
    data varchar
);
