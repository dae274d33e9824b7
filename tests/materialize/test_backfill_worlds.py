"""Backfills of any graph, in many runs, with failures and a resume: what one run would build, each cell once."""

from collections import Counter
from dataclasses import replace

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from headwater.catalog.errors import UsageError
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import BackfillStatus
from headwater.materialize.backfill import BackfillSettings, backfill, resume_backfill
from tests.materialize.brute_force import Node, Refused, World, plan, run
from tests.materialize.test_brute_force import WorldClock, fails_simply, set_tenants, worlds


def made(world: World, instance: Instance) -> Counter[Node]:
    """How often each cell was built."""
    return Counter(
        Node(name, one.partition)
        for name, asset in world.assets.items()
        if not asset.external
        for one in instance.catalog.materializations(AssetKey(name), limit=1000)
    )


@given(worlds(), st.integers(1, 6), st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_many_runs_build_what_one_would(world: World, steps: int, data: st.DataObject) -> None:
    nodes = [node for name, one in world.assets.items() if not one.external for node in world.nodes(name)]
    if nodes:
        drawn = data.draw(st.sets(st.sampled_from(nodes), max_size=3))
        world.bad = {node for node in drawn if fails_simply(world.assets[node.asset])}
        drawn = data.draw(st.sets(st.sampled_from(nodes), max_size=3))
        world.left_out = {node for node in drawn - world.bad if world.assets[node.asset].optional}
    with Instance.ephemeral(clock=WorldClock(world)) as instance:
        set_tenants(world, instance, world.tenants)
        limited = BackfillSettings(steps_per_run=steps)
        try:
            expected = plan(world, nodes, force=True)
        except Refused:
            expected = None
        try:
            found = backfill(world.definitions(), instance=instance, settings=limited)
        except UsageError:
            assert expected is None
            return
        assert expected is not None
        sound = replace(world, bad=set(), built={})
        possible = {node for node, end in run(sound, expected, set(nodes)).items() if end == "SUCCESS"}
        ended = run(world, expected, set(nodes))
        succeeded = {node for node, end in ended.items() if end == "SUCCESS"}
        # In one step, a run builds what reads a cell of that step which it had to skip; a later run would not.
        assume(
            not any(ended.get(one) in ("FAILURE", "SKIPPED") for node in succeeded for one in world.read_nodes(node))
        )
        assert made(world, instance) == Counter(succeeded)
        how = found.progress
        assert (how.done, how.failed) == (len(succeeded), sum(end == "FAILURE" for end in ended.values()))
        assert how.done + how.failed + how.blocked + how.absent == how.total == len(expected.build)
        if found.backfill_id is None or found.status is BackfillStatus.SUCCESS:
            assert succeeded == possible
            return
        world.bad = set()
        found = resume_backfill(world.definitions(), found.backfill_id, instance=instance)
        assert found.status is BackfillStatus.SUCCESS
        assert made(world, instance) == Counter(possible)
