"""What a run would do: steps in order, each with its reasons. Pure.

`headwater plan` prints the plan that `headwater materialize` executes. What is to be built is decided for sets of
cells, an asset at a time; single steps are made of it when somebody asks for them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from headwater.catalog.errors import UsageError
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode, Dependency
from headwater.catalog.printable import printable_line
from headwater.catalog.records import Cell
from headwater.materialize.causes import Cause, CauseKind, CellStatus, Status
from headwater.materialize.edges import Edges, holds_any, without
from headwater.materialize.staleness import Cells, Staleness

if TYPE_CHECKING:
    from headwater.catalog.partitions.subset import PartitionSubset


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCell:
    """A cell to build, and why."""

    cell: Cell
    status: Status
    causes: tuple[Cause, ...]
    #: The number of its partition; 0 for an unpartitioned asset.
    ordinal: int = 0

    @property
    def certain(self) -> bool:
        """Whether it is to be built whatever its upstream turns out to hold."""
        return self.status is Status.MISSING or any(not cause.transitive for cause in self.causes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """A step to run: what it builds, why, and which of the plan's steps come before."""

    #: Unique in the plan: the name and, where there are some, the partitions.
    key: str
    #: What is computed: the name that the definition gives its step.
    name: str
    cells: tuple[PlanCell, ...]
    after: frozenset[str]
    #: Names: all steps called so come before.
    after_all: frozenset[str] = frozenset()

    @property
    def partitions(self) -> tuple[str, ...]:
        """The partitions that it builds, in their order; none for unpartitioned assets."""
        return tuple(dict.fromkeys(c.cell.partition for c in self.cells if c.cell.partition is not None))

    @property
    def certain(self) -> bool:
        """Whether it runs whatever its upstream turns out to hold; otherwise it may be left alone."""
        return any(cell.certain for cell in self.cells)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The reasons of all its cells, each once, those that decide first."""
        causes = dict.fromkeys(cause for cell in self.cells for cause in cell.causes)
        return tuple(sorted(causes, key=lambda cause: cause.transitive))

    @property
    def reason(self) -> str:
        """Why it is to run, in words."""
        return reason_of(self.causes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanGroup:
    """All steps of one name: what they build together, and why."""

    name: str
    assets: tuple[AssetKey, ...]
    #: None for unpartitioned assets.
    partitions: "PartitionSubset | None"
    #: The same for each of the assets: fewer, where they can be built apart.
    subsets: "tuple[PartitionSubset | None, ...]"
    #: Partitions that one step builds; None for all.
    batch: int | None
    #: The reasons, those that decide first, each with the number of partitions that have it.
    causes: tuple[tuple[Cause, int], ...]
    #: Whether it runs whatever its upstream turns out to hold.
    certain: bool

    @property
    def steps(self) -> int:
        """How many steps there are."""
        if self.partitions is None:
            return 1
        return -(-len(self.partitions) // self.batch) if self.batch else 1

    @property
    def reason(self) -> str:
        """Why they are to run, in words."""
        total = 1 if self.partitions is None else len(self.partitions)
        return reason_of(
            [cause for cause, _ in self.causes], [count if count < total else 0 for _, count in self.causes]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Impossible:
    """Cells that cannot be built: they need upstream partitions that do not exist, or cannot be built either."""

    asset: AssetKey
    #: None for an unpartitioned asset.
    partitions: "PartitionSubset | None"
    upstream: AssetKey
    #: Some of the keys that do not exist; none where the upstream cells exist, and cannot be built.
    examples: tuple[str, ...] = ()
    #: Whether there are others than the examples.
    more: bool = False

    def __str__(self) -> str:
        asset = _described(self.asset, self.partitions)
        if not self.examples:
            return f"{asset} needs what cannot be built of `{self.upstream}`"
        keys = ", ".join(printable_line(key, 60) for key in self.examples)
        return (
            f"{asset} needs partitions of `{self.upstream}` that do not exist: {keys}{' and more' if self.more else ''}"
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Steps in an order in which they can run."""

    groups: tuple[PlanGroup, ...]
    #: How many assets were selected.
    selected: int
    #: Selected assets that are only stale further up, where nothing is planned: rebuilding them changes nothing.
    waiting: tuple[AssetKey, ...] = ()
    #: Selected assets that cannot be built: optional outputs that their step did not make, and what depends on those.
    absent: tuple[AssetKey, ...] = ()
    #: Cells that are left out because what they need does not exist, and those that need these.
    impossible: tuple[Impossible, ...] = ()
    _expand: Callable[[], tuple[PlanStep, ...]] = field(default=tuple, compare=False, repr=False)

    def __bool__(self) -> bool:
        return bool(self.groups)

    @cached_property
    def steps(self) -> tuple[PlanStep, ...]:
        """Every single step. Made when first asked for: some 10 µs a partition."""
        return self._expand()

    @property
    def step_count(self) -> int:
        """How many steps there are."""
        return sum(group.steps for group in self.groups)


def reason_of(causes: Sequence[Cause], counts: Sequence[int] = ()) -> str:
    """Causes in words, with how many partitions have them where that is not all."""
    if not causes:
        return "computed together with a stale asset"
    numbers = dict(zip(causes, counts, strict=False))
    shown = [cause for cause in causes if not cause.transitive] or list(causes)
    texts = [f"{cause} ({numbers[cause]:,})" if numbers.get(cause) else str(cause) for cause in shown[:3]]
    return "; ".join([*texts, f"and {len(shown) - 3} more"] if len(shown) > 3 else texts)


def build_plan(
    edges: Edges,
    staleness: Staleness,
    targets: Mapping[AssetKey, Cells],
    *,
    force: bool | Collection[AssetKey] = False,
    upstream: bool = True,
    only_missing: bool = False,
    strict: bool = False,
) -> Plan:
    """The steps that make the cells `targets` fresh.

    With `upstream`, whatever they depend on that is stale or missing is built too. With `force`, the targets are built
    although fresh, or those of the assets that it names. With `only_missing`, nothing that exists is rebuilt. Raises
    `UsageError` where a cell would have to load one that was never materialized and is not to be. What depends on an
    optional output that its step does not make is left out; so is a partition that needs an upstream partition that
    does not exist, with `strict` an error.
    """
    return _Planner(edges, staleness, targets, force, upstream, only_missing, strict).plan()


@dataclass(slots=True)
class _Work:
    """What is to be built of one asset."""

    cells: Cells
    #: Reasons that only the plan gives: forced, or above rebuilt.
    reasons: list[tuple[Cause, Cells]]


class _Planner:
    def __init__(
        self,
        edges: Edges,
        staleness: Staleness,
        targets: Mapping[AssetKey, Cells],
        force: bool | Collection[AssetKey],
        upstream: bool,
        only_missing: bool,
        strict: bool,
    ) -> None:
        self.edges = edges
        self.graph: AssetGraph = edges.graph
        self.staleness = staleness
        self.targets = {key: cells for key, cells in targets.items() if not self.graph[key].external}
        self.upstream, self.only_missing, self.strict = upstream, only_missing, strict
        self.forced = set(targets if force is True else force or ())
        self.selected = len(targets)
        self.work: dict[AssetKey, _Work] = {}
        self.absent: dict[AssetKey, Cells] = {}
        self.waiting: dict[AssetKey, Cells] = {}
        #: Missing cells that cannot be built because a partition that they need does not exist.
        self.lost: dict[AssetKey, Cells] = {}
        self.impossible: dict[tuple[AssetKey, AssetKey], Impossible] = {}

    def plan(self) -> Plan:
        wanted = self._wanted() if self.upstream else self.targets
        groups: list[PlanGroup] = []
        for step, members in self.graph.steps.items():
            chosen = [key for key in members if key in wanted]
            if not chosen:
                continue
            built: dict[AssetKey, Cells] = {}
            for key in chosen:
                together = (key,) if self.graph[key].can_subset else members
                cells = self._decide(key, wanted[key], together)
                if holds_any(cells):
                    built[key] = cells
            if built and not self.graph[members[0]].can_subset:
                built = self._together(members, built)
            if built:
                groups.append(self._group(step, built))
        self._check_inputs()
        return Plan(
            groups=tuple(groups),
            selected=self.selected,
            waiting=tuple(key for key in self.waiting if key not in self.work),
            absent=tuple(key for key, cells in self.absent.items() if key in self.targets and holds_any(cells)),
            impossible=tuple(self.impossible.values()),
            _expand=lambda: _Expansion(self, groups).steps(),
        )

    def _wanted(self) -> dict[AssetKey, Cells]:
        """The targets and every cell that they depend on."""
        wanted = dict(self.targets)
        above = self.graph.upstream(wanted) | wanted.keys()
        for key in reversed(self.graph.sorted(above)):
            node = self.graph[key]
            if node.external or key not in wanted:
                continue
            itself = _self_dependency(node)
            if itself is not None:
                wanted[key] = self.edges.reads_on(node, itself, wanted[key])
            for dep in node.deps:
                if dep is itself or self.graph[dep.key].external:
                    continue
                cells = self.edges.reads(node, dep, wanted[key])
                wanted[dep.key] = wanted[dep.key] | cells if dep.key in wanted else cells
        return wanted

    def _decide(self, key: AssetKey, wanted: Cells, together: Sequence[AssetKey]) -> Cells:
        """The cells of one asset that are to be built; notes why, and what becomes of the others.

        `together` are the assets that cannot be built without each other, this one among them.
        """
        node, staleness, edges = self.graph[key], self.staleness, self.edges
        none = edges.none(key)
        forced = self.targets.get(key, none) if key in self.forced else none
        left_out = without(wanted & staleness.not_made(key), forced)
        if holds_any(left_out):
            self.absent[key] = left_out
        rebuilt, blocked = none, none
        for dep in node.deps:
            if dep.key in self.work and dep.key != key:
                rebuilt = rebuilt | edges.readers(node, dep, self.work[dep.key].cells)
            if dep.key != key:
                gone = self.absent.get(dep.key)
                if gone is None and dep.key not in self.work:
                    gone = staleness.not_made(dep.key)
                if gone is not None and holds_any(gone):
                    blocked = blocked | edges.readers(node, dep, gone)
        missing = staleness.missing(key)
        reason = forced | missing
        if not self.only_missing:
            reason = reason | staleness.direct(key) | rebuilt
            itself = _self_dependency(node)
            if itself is not None:
                reason = edges.readers_on(node, itself, wanted & reason, wanted)
        possible = without(wanted, left_out)
        if holds_any(blocked):
            stuck = possible & blocked & (reason | (none if self.only_missing else staleness.stale(key)))
            if holds_any(stuck):
                self.absent[key] = self.absent.get(key, none) | stuck
            possible = without(possible, blocked)
        cells = self._buildable(together, possible & reason)
        if not self.only_missing:
            waiting = without(possible & staleness.stale(key), reason)
            if holds_any(waiting):
                self.waiting[key] = waiting
        if holds_any(cells):
            self.work[key] = _Work(cells, self._reasons(node, cells, forced))
        return cells

    def _reasons(self, node: AssetNode, cells: Cells, forced: Cells) -> list[tuple[Cause, Cells]]:
        """Why cells are built that may be fresh: they are forced, or what they read is rebuilt although fresh."""
        reasons: list[tuple[Cause, Cells]] = []
        if holds_any(forced):
            reasons.append((Cause(kind=CauseKind.FORCED), forced))
        plain = without(without(cells, forced | self.staleness.missing(node.key)), self.staleness.direct(node.key))
        if not holds_any(plain):
            return reasons
        for dep in node.deps:
            if dep.key not in self.work or dep.key == node.key:
                continue
            above = without(self.work[dep.key].cells, self.staleness.missing(dep.key) | self.staleness.stale(dep.key))
            mask = plain & self.edges.readers(node, dep, above)
            if holds_any(mask):
                reasons.append((Cause(kind=CauseKind.UPSTREAM_REBUILT, upstream=dep.key), mask))
                plain = without(plain, mask)
        return reasons

    def _buildable(self, together: Sequence[AssetKey], cells: Cells) -> Cells:
        """Of the cells to build of assets that are built together, those for which everything exists."""
        if self.edges.table is None:
            return cells
        while holds_any(cells):
            barred = self.edges.none(together[0])
            for key in together:
                barred = barred | self._barred(self.graph[key], cells)
            if not holds_any(barred):
                break
            cells = without(cells, barred)
            for key in together:
                gone = barred & self.staleness.missing(key)
                if holds_any(gone):
                    self.lost[key] = self.lost.get(key, self.edges.none(key)) | gone
        return cells

    def _barred(self, node: AssetNode, cells: Cells) -> Cells:
        """Those of some cells that need upstream partitions which do not exist, or are lost."""
        table = self.edges.table
        assert table is not None  # its caller looked
        barred = self.edges.none(node.key)
        for dep in node.deps:
            if dep.key in self.lost:
                stuck = cells & self.edges.readers(node, dep, self.lost[dep.key])
                if holds_any(stuck):
                    self._note(
                        Impossible(asset=node.key, partitions=self.edges.subset(node.key, stuck), upstream=dep.key)
                    )
                    barred = barred | stuck
            if self.graph[dep.key].partitions is None:
                continue
            links = table.links(node, dep)
            found = links.upstream(self.edges.subset(node.key, cells) or links.downstream_partitions.all())
            if not found.incomplete:
                continue
            partitions = None if node.partitions is None else found.incomplete
            impossible = Impossible(
                asset=node.key,
                partitions=partitions,
                upstream=dep.key,
                examples=found.examples,
                more=found.nonexistent > len(found.examples),
            )
            if self.strict:
                raise UsageError(f"{impossible}.", remedy=_other_partitions(dep))
            self._note(impossible)
            barred = True if partitions is None else barred | partitions.mask()
        return barred

    def _note(self, impossible: Impossible) -> None:
        """Keep what is impossible, once for each edge."""
        edge = impossible.asset, impossible.upstream
        known = self.impossible.get(edge)
        if known is not None and known.partitions is not None and impossible.partitions is not None:
            partitions = known.partitions | impossible.partitions
            impossible = replace(
                impossible,
                partitions=partitions,
                examples=known.examples or impossible.examples,
                # Those of the later one are not kept.
                more=known.more or impossible.more or bool(known.examples and impossible.examples),
            )
        self.impossible[edge] = impossible

    def _together(self, members: Sequence[AssetKey], built: Mapping[AssetKey, Cells]) -> dict[AssetKey, Cells]:
        """What cannot be computed apart is built for the same partitions, of all members."""
        # What the first of them would build may be lost to a later one.
        union = self._buildable(members, self._union(built))
        for key in members:
            own = self.work.pop(key, None)
            if not holds_any(union):
                continue
            self.work[key] = _Work(union, own.reasons if own else [])
            if key in self.absent:
                self.absent[key] = without(self.absent[key], union)
        return dict.fromkeys(members, union) if holds_any(union) else {}

    def _union(self, built: Mapping[AssetKey, Cells]) -> Cells:
        """The cells of assets that are divided alike."""
        union = self.edges.none(next(iter(built)))
        for cells in built.values():
            union = union | cells
        return union

    def _group(self, step: str, built: Mapping[AssetKey, Cells]) -> PlanGroup:
        """The steps of one name."""
        members = tuple(built)
        union = self._union(built)
        node = self.graph[members[0]]
        causes: dict[Cause, int] = {}
        certain = False
        for key in members:
            for cause, count in self._causes(key):
                causes[cause] = max(count, causes.get(cause, 0))
            sure = self.work[key].cells & (self.staleness.missing(key) | self.staleness.direct(key))
            certain = certain or holds_any(sure) or any(c.kind is CauseKind.FORCED for c, _ in self.work[key].reasons)
        return PlanGroup(
            name=step,
            assets=members,
            partitions=self.edges.subset(members[0], union),
            subsets=tuple(self.edges.subset(key, cells) for key, cells in built.items()),
            batch=node.batch,
            causes=tuple(sorted(causes.items(), key=lambda item: item[0].transitive)),
            certain=certain,
        )

    def _causes(self, key: AssetKey) -> list[tuple[Cause, int]]:
        work = self.work[key]
        many = self.staleness.partitioned.get(key)
        if many is None:
            return [(cause, 1) for cause in (*self.staleness.of(key).causes, *(cause for cause, _ in work.reasons))]
        counted = many.cause_counts(work.cells)
        return counted + [(cause, int((mask & work.cells).sum())) for cause, mask in work.reasons]

    def _check_inputs(self) -> None:
        """Whatever a step loads is there or is built before."""
        for key, work in self.work.items():
            node = self.graph[key]
            for dep in node.deps:
                if dep.parameter is None or self.graph[dep.key].external or dep.key == key:
                    continue
                missing = self.staleness.missing(dep.key)
                if not holds_any(missing):
                    continue
                lacking = self.edges.reads(node, dep, work.cells) & missing
                if dep.key in self.work:
                    lacking = without(lacking, self.work[dep.key].cells)
                if holds_any(lacking):
                    chosen, lost = self.edges.subset(key, work.cells), self.edges.subset(dep.key, lacking)
                    raise UsageError(
                        f"{_described(key, chosen)} reads {_described(dep.key, lost)}, which was never materialized "
                        "and is not part of this plan.",
                        remedy=f"Build it too: select `+{key}` without --no-upstream.",
                    )


class _Expansion:
    """The single steps of a plan."""

    def __init__(self, planner: _Planner, groups: Sequence[PlanGroup]) -> None:
        self.planner = planner
        self.graph = planner.graph
        self.groups = groups
        self.group_of = {key: group for group in groups for key in group.assets}
        #: By group: the keys of its steps, and, where it is partitioned, which of them builds each ordinal.
        self.keys: dict[str, list[str]] = {}
        self.builders: dict[str, Any] = {}

    def steps(self) -> tuple[PlanStep, ...]:
        return tuple(step for group in self.groups for step in self._of(group))

    def _of(self, group: PlanGroup) -> list[PlanStep]:
        if group.partitions is None:
            self.keys[group.name] = [group.name]
            cells = tuple(self._cell(key) for key in group.assets)
            after, after_all = self._before_one(group)
            return [PlanStep(key=group.name, name=group.name, cells=cells, after=after, after_all=after_all)]
        return self._partitioned(group, group.partitions)

    def _partitioned(self, group: PlanGroup, subset: "PartitionSubset") -> list[PlanStep]:
        import numpy as np

        ordinals = subset.ordinals()
        names = subset.partitions.keys_at(ordinals)
        size = group.batch or len(ordinals)
        bounds = [(start, min(start + size, len(ordinals))) for start in range(0, len(ordinals), size)]
        keys = [_step_key(group.name, names[start], names[stop - 1]) for start, stop in bounds]
        self.keys[group.name] = keys
        builders = self.builders[group.name] = np.full(subset.partitions.count, -1, np.int64)
        builders[ordinals] = np.arange(len(ordinals)) // size
        cells = {key: self._cells(key, ordinals, names) for key in group.assets}
        before, after_all = self._before(group, ordinals, size, len(keys))
        return [
            PlanStep(
                key=key,
                name=group.name,
                cells=tuple(c for asset in group.assets for c in cells[asset][start:stop] if c is not None),
                after=frozenset(found),
                after_all=after_all,
            )
            for key, (start, stop), found in zip(keys, bounds, before, strict=True)
        ]

    def _before_one(self, group: PlanGroup) -> tuple[frozenset[str], frozenset[str]]:
        """What comes before the step of unpartitioned assets."""
        after: set[str] = set()
        after_all: set[str] = set()
        for key in group.assets:
            for dep in self.graph[key].deps:
                above = self.group_of.get(dep.key)
                if above is None or above is group:
                    continue
                if above.partitions is None:
                    after.add(above.name)
                    continue
                node, edges = self.graph[key], self.planner.edges
                read = edges.reads(node, dep, True) & self.planner.work[dep.key].cells
                found: set[int] = set(self.builders[above.name][read].tolist())
                if len(found) == len(self.keys[above.name]):
                    after_all.add(above.name)
                else:
                    after.update(self.keys[above.name][at] for at in found)
        return frozenset(after), frozenset(after_all)

    def _before(self, group: PlanGroup, ordinals: Any, size: int, count: int) -> tuple[list[set[str]], frozenset[str]]:
        """What comes before each step of a partitioned group, and the names of what comes before all of them."""
        import numpy as np

        before: list[set[str]] = [set() for _ in range(count)]
        after_all: set[str] = set()
        table = self.planner.edges.table
        assert table is not None  # there is one where something is partitioned
        for key in group.assets:
            node = self.graph[key]
            for dep in node.deps:
                above = self.group_of.get(dep.key)
                if above is None:
                    continue
                if above.partitions is None:
                    after_all.add(above.name)
                    continue
                links = table.links(node, dep)
                if links.constant and above is not group:
                    if holds_any(
                        links.upstream(links.downstream_partitions.all()).subset.mask() & self._built(dep.key)
                    ):
                        after_all.add(above.name)
                    continue
                places, read = links.pairs(ordinals)
                builder = self.builders[above.name][read]
                found = np.stack([places // size, builder])[:, builder >= 0]
                names = self.keys[above.name]
                pairs: list[tuple[int, int]] = np.unique(found, axis=1).T.tolist()
                for step, at in pairs:
                    if above is not group or at != step:
                        before[step].add(names[at])
        return before, frozenset(after_all)

    def _built(self, key: AssetKey) -> Cells:
        return self.planner.work[key].cells

    def _cell(self, key: AssetKey) -> PlanCell:
        status: CellStatus = self.planner.staleness.of(key)
        causes = (*status.causes, *(cause for cause, _ in self.planner.work[key].reasons))
        return PlanCell(cell=Cell(key), status=status.status, causes=causes)

    def _cells(self, key: AssetKey, ordinals: Any, names: Sequence[str]) -> list[PlanCell | None]:
        """The cells of one asset with these ordinals; None for those that are not built."""
        built = self._built(key)[ordinals].tolist()
        status = self.planner.staleness.partitioned[key]
        reasons = self.planner.work[key].reasons
        masks = [mask[ordinals].tolist() for _, mask in (*status.causes, *reasons)]
        causes = [cause for cause, _ in (*status.causes, *reasons)]
        missing = status.missing[ordinals].tolist()
        stale = status.stale[ordinals].tolist()
        signatures = zip(missing, *masks, strict=True)
        known: dict[tuple[bool, ...], tuple[Cause, ...]] = {}
        cells: list[PlanCell | None] = []
        for at, (ordinal, name, signature) in enumerate(zip(ordinals.tolist(), names, signatures, strict=True)):
            if not built[at]:
                cells.append(None)
                continue
            found = known.get(signature)
            if found is None:
                never = (Cause(kind=CauseKind.NEVER_MATERIALIZED),) if signature[0] else ()
                found = (*never, *(cause for cause, has in zip(causes, signature[1:], strict=True) if has))
                known[signature] = found
            state = Status.MISSING if missing[at] else Status.STALE if stale[at] else Status.FRESH
            cells.append(PlanCell(cell=Cell(key, name), status=state, causes=found, ordinal=ordinal))
        return cells


def _self_dependency(node: AssetNode) -> Dependency | None:
    """An asset's dependency on its own earlier partitions."""
    return next((dep for dep in node.deps if dep.key == node.key), None)


def _step_key(name: str, first: str, last: str) -> str:
    return f"{name} [{first}]" if first == last else f"{name} [{first}..{last}]"


def _described(key: AssetKey, partitions: "PartitionSubset | None") -> str:
    return f"`{key}`" if partitions is None else f"`{key} [{partitions.describe(2)}]`"


def _other_partitions(dep: Dependency) -> str:
    """What to do about upstream partitions that do not exist."""
    from headwater.catalog.partitions.mapping import IdentityPartitionMapping, SpecificPartitionsPartitionMapping

    if isinstance(dep.partition_mapping, (IdentityPartitionMapping, SpecificPartitionsPartitionMapping)):
        return f"Choose other partitions, or give `{dep.key}` those."
    return (
        "Choose other partitions, or allow it with "
        "TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)."
    )
