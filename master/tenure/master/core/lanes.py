"""All lanes of a partition: how many jobs there are of what, and what is ready for whom.

A ready job goes into a lane from below; a worker's credit comes from above, and finds it:
```
 Member ── Skill ── … TenantShare ── … QueueShare ── Board ── Fronts ──┐   (``core.skill``)
   └─────── bound: a Board for each queue ────────────────── Fronts ───┤   its sticky keys
                                                              places   ▼
 JobRecord ──► Queue: counts ──────────────────────────────────────► Lane  (``core.ready``)
                 └─ what holds it up: Tenant, Queue, JobType, LimitKey     (``core.gate``)
```
*Who is there*: sessions that can run the same share a skill. *What there is*: a lane, made when a
job needs it, hangs in the places where those find it who may run its jobs: each skill that serves
it, or the worker to whom its sticky key is bound. *What changes*: the jobs of one event, those that
are alike at once; counts first, then tokens and gates, then lanes, so that none takes a place that
its gate is about to take away. *What goes*: some lanes without ready jobs are kept, for most are
needed again; a queue goes with its last job, unless its settings keep it (``lasting``).

All of it is derived from records, settings and sessions: ``core.rebuild`` makes it after a replay.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import groupby, islice
from operator import attrgetter
from typing import Final

from tenure.master.core.alike import Kind, kin_of
from tenure.master.core.gate import JobType, LimitKey, Queue, Tenant, judge
from tenure.master.core.ready import Board, Fronts, Lane, LaneName
from tenure.master.core.record import JobRecord, Policy
from tenure.master.core.refill import Refills
from tenure.master.core.settings import JobTypeSettings, QueueSettings, Settings, SettingsKind
from tenure.master.core.skill import Member, Skill
from tenure.master.core.slack import Slack
from tenure.master.core.sticky import Bindings, StickyKey
from tenure.protocol.vocabulary import FairBy, JobState

_KIND: Final = attrgetter("policy", "state")
_COMPLETED: Final = JobState.COMPLETED
_PENDING: Final = JobState.PENDING
_RETRYING: Final = JobState.RETRYING
_RUNNING: Final = JobState.RUNNING
#: So many empty lanes are kept: one that is used again is not made anew each time.
_EMPTY_MAX: Final = 1_024
#: Sticky keys that stay bound though no job of theirs may be known; each takes some 300 bytes.
_BOUND_MAX: Final = 100_000


class Lanes:
    """The lanes of one partition, with their queues, gates and takers."""

    __slots__ = (
        "_empty",
        "_empty_ms",
        "_job_types",
        "_known_labels",
        "_members",
        "_settings",
        "_skills",
        "_slack",
        "_tenants",
        "bindings",
        "counts",
        "crowded",
        "now_ms",
        "queues",
        "refills",
        "reserving",
        "timed",
    )

    #: (tenant, queue) → queue. It lives while a job of it is known, or it has a reserve.
    queues: dict[tuple[str, str], Queue]
    #: All jobs, by state.
    counts: list[int]
    #: Keys that may run more than they should, or have more that waits: see ``core.limit``.
    crowded: dict[LimitKey, None]
    #: The time of the newest event.
    now_ms: int
    #: Gates that wait for a token, or for the time at which their breaker lets probes through.
    refills: Refills
    #: Queues that have a reserve.
    reserving: dict[Queue, None]
    #: Queues that are counted in time, and since when, at the earliest since the term began.
    timed: dict[Queue, int]

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tenants: dict[str, Tenant] = {}
        self._job_types: dict[tuple[str, str], JobType] = {}
        self._slack = Slack(self)
        self._skills: dict[tuple[object, ...], Skill] = {}
        #: The newest session of each incarnation.
        self._members: dict[str, Member] = {}
        #: Labels that some job has asked for: those only tell skills apart.
        self._known_labels: dict[str, None] = {}
        self.bindings = Bindings(_BOUND_MAX)
        #: Lanes without a ready job; first those that were not looked at for the longest time.
        self._empty: OrderedDict[Lane, None] = OrderedDict()
        #: When the term began: then all buckets were empty.
        self._empty_ms = 0
        self.now_ms = 0
        self.queues = {}
        self.counts = [0] * (max(JobState) + 1)
        self.crowded = {}
        self.refills = Refills(lambda: len(self._empty) + len(self._job_types))
        self.reserving = {}
        self.timed = {}

    # Who is there.

    def enlist(self, member: Member) -> None:
        """Gives a new session its skill; ``dismiss`` it at its end."""
        self._join(member)
        self._members[member.incarnation] = member
        self._hang_bound(member.incarnation)

    def _join(self, member: Member) -> Skill:
        labels = {k: v for k, v in member.labels.items() if k in self._known_labels}
        name = (member.job_names, member.queues, tuple(sorted(labels.items())))
        skill = self._skills.get(name)
        if skill is None:
            skill = self._skills[name] = Skill(member.job_names, member.queues, labels)
            self._forget_places()
            for lane in self.lanes():
                if skill.serves_lane(lane) and not lane.waits_for_one(self._members):
                    fronts = skill.share_of(lane.queue).board.fronts(lane.job_type)
                    lane.hang([*lane.places, fronts])
        skill.members[member.session_id] = member
        member.skill = skill
        return skill

    def dismiss(self, member: Member) -> None:
        """A session has ended."""
        self._part(member)
        if self._members.get(member.incarnation) is member:
            del self._members[member.incarnation]
            self._hang_bound(member.incarnation)
        for board in member.bound.values():
            board.end()

    def _part(self, member: Member) -> None:
        skill = member.skill
        del skill.members[member.session_id]
        if not skill.members:
            self._skills = {name: s for name, s in self._skills.items() if s is not skill}
            self._forget_places()
            skill.end()
            for lane in self.lanes():
                lane.places = [
                    place
                    for place in lane.places
                    if place.board.share is None or place.board.share.tenant.skill is not skill
                ]

    def _learn_labels(self, policy: Policy) -> None:
        """Tells sessions apart by labels that nobody had asked for before."""
        asked = [s.key for s in (*policy.requires, *policy.prefers)]
        fresh = dict.fromkeys(key for key in asked if key not in self._known_labels)
        if not fresh:
            return
        self._known_labels.update(fresh)
        for skill in list(self._skills.values()):
            for member in list(skill.members.values()):
                if any(key in member.labels for key in fresh):
                    is_new = len(self._skills)
                    own = self._join(member)
                    if len(self._skills) != is_new:
                        own.inherit(skill)
                    for queue in member.bound:
                        own.share_of(queue)
                    self._part_from(member, skill)

    def _part_from(self, member: Member, skill: Skill) -> None:
        own, member.skill = member.skill, skill
        self._part(member)
        member.skill = own

    def free(self, incarnation: str) -> None:
        """Nothing waits for a worker any more: it drains, or is forgotten."""
        for sticky in self.bindings.of(incarnation):
            self.bindings.unbind(sticky)
            self._hang_all(sticky)

    def skills(self) -> list[Skill]:
        """Those of all sessions."""
        return list(self._skills.values())

    def has_work(self) -> bool:
        """Whether some ready job waits for nothing but a taker's credit."""
        return any(skill.level.heap for skill in self._skills.values()) or any(
            board.giving and queue.is_open and queue.tenant.is_open
            for member in self._members.values()
            for queue, board in member.bound.items()
        )

    # What there is.

    def queue(self, tenant: str, name: str, empty_ms: int | None = None) -> Queue:
        """A queue, from its first job on; its buckets were empty then, or as the term began."""
        queue = self.queues.get((tenant, name))
        if queue is None:
            owner = self._tenants.get(tenant)
            if owner is None:
                owner = self._tenants[tenant] = Tenant(tenant, self._settings.tenant(tenant))
            settings = self._settings.queue(tenant, name)
            began_ms = self._empty_ms if empty_ms is None else empty_ms
            queue = self.queues[tenant, name] = Queue(owner, name, settings, began_ms, self)
            owner.queues[name] = queue
            self.refills.await_tokens(queue, self.now_ms)
            queue.refresh()
            self._note_kind(queue)
        return queue

    def _note_kind(self, queue: Queue) -> None:
        self.reserving.pop(queue, None)
        if queue.settings.reserved:
            self.reserving[queue] = None
        if queue.settings.fair_by is FairBy.TIME:
            self.timed.setdefault(queue, self.now_ms)
        else:
            self.timed.pop(queue, None)

    def job_type(self, tenant: str, name: str) -> JobType:
        """A tenant's jobs of one name."""
        found = self._job_types.get((tenant, name))
        if found is None:
            settings = self._settings.job_type(tenant, name)
            found = self._job_types[tenant, name] = JobType(tenant, name, settings)
        return found

    def known_job_type(self, tenant: str, name: str) -> JobType | None:
        """A tenant's jobs of one name, if there were any in this term."""
        return self._job_types.get((tenant, name))

    def lanes(self) -> Iterator[Lane]:
        """All lanes, empty ones too."""
        for queue in self.queues.values():
            yield from list(queue.lanes.values())

    def of(self, record: JobRecord) -> Lane:
        """The lane of a job."""
        policy = record.policy
        queue = self.queue(policy.tenant, policy.queue)
        return self.lane_of(queue, policy, self._slack.kind_of(record, queue))

    def lane_of(self, queue: Queue, policy: Policy, kind: Kind) -> Lane:
        """The lane of alike jobs; one with a limit key is under it."""
        label: LaneName = (policy.name, *kind)
        if policy.requires or policy.prefers:
            label += (policy.requires, policy.prefers)
        lane = queue.lanes.get(label)
        if lane is None:
            priority, limit_key, sticky_key = kind
            lane = self._new_lane(label, queue, policy, priority)
            if limit_key:
                lane.key = self._slack.key(queue, limit_key)
                lane.key.under[lane] = None
                lane.refresh()
            if sticky_key:
                lane.sticky = self.bindings.get(queue, sticky_key)
                lane.sticky.lanes[lane] = None
            self._hang(lane)
        return lane

    def _new_lane(self, label: LaneName, queue: Queue, policy: Policy, priority: int) -> Lane:
        if policy.requires or policy.prefers:
            self._learn_labels(policy)
        job_type = self.job_type(policy.tenant, policy.name)
        lane = queue.lanes[label] = Lane(label, queue, job_type, priority)
        lane.requires, lane.prefers = policy.requires, policy.prefers
        self._note_empty(lane)
        return lane

    def _hang(self, lane: Lane) -> None:
        """Puts a lane where those find it who can run its jobs now."""
        sticky = lane.sticky
        if sticky is not None and sticky.incarnation:
            member = self._members.get(sticky.incarnation)
            if member is None:
                lane.hang([])
                return
            if member.skill.serves_lane(lane):
                board = member.bound.get(lane.queue)
                if board is None:
                    board = member.bound[lane.queue] = Board(None)
                member.skill.share_of(lane.queue)
                lane.hang([board.fronts(lane.job_type)])
                return
        lane.hang(self._places_of(lane))

    def _hang_all(self, sticky: StickyKey) -> None:
        for lane in sticky.lanes:
            self._hang(lane)

    def _hang_bound(self, incarnation: str) -> None:
        for sticky in self.bindings.of(incarnation):
            self._hang_all(sticky)

    def _places_of(self, lane: Lane) -> list[Fronts]:
        """Where those find a lane that it is not bound to; others that they serve have the same."""
        queue, kind = lane.queue, (lane.name, lane.requires)
        places = queue.places.get(kind)
        if places is None:
            servers = [skill for skill in self._skills.values() if skill.serves_lane(lane)]
            places = [skill.share_of(queue).board.fronts(lane.job_type) for skill in servers]
            queue.places[kind] = places
        return places

    def _forget_places(self) -> None:
        """Skills have come or gone."""
        for queue in self.queues.values():
            queue.places.clear()

    # What changes.

    def count(self, records: list[JobRecord], by: int) -> None:
        """Counts jobs in (by 1) or out (by -1)."""
        for (policy, state), run in groupby(records, key=_KIND):
            self.count_alike(policy, state, by * len(list(run)))

    def count_alike(self, policy: Policy, state: JobState, jobs: int) -> None:
        """Counts so many more jobs of one policy and state; fewer, if below zero."""
        queue = self.queue(policy.tenant, policy.queue)
        for counts in (self.counts, queue.counts, queue.tally(policy.name)):
            counts[state] += jobs

    def resume(self, record: JobRecord) -> None:
        """A job was found running after a replay, and has been counted."""
        queue = self.queue(record.policy.tenant, record.policy.queue)
        if queue.concurrency:
            queue.refresh()
        queue.running_of[record.priority] += 1
        if record.limit_key:
            self._slack.count(self._slack.key(queue, record.limit_key), [record], 1)
        if record.sticky_key:
            self._resume_binding(record)

    def move(
        self,
        records: list[JobRecord],
        before: JobState,
        after: JobState,
        *,
        priority_before: int | None = None,
    ) -> None:
        """Follows jobs that one event has moved between states; PENDING ones are not pushed yet."""
        ended = before is _RUNNING and after is not _RUNNING
        done = after is _COMPLETED
        for policy, alike, runs in kin_of(records):
            queue = self.queue(policy.tenant, policy.queue)
            self._recount(queue, policy.name, len(alike), before, after)
            if ended:
                if after is not _PENDING:
                    queue.pulse.ended(alike)
                self._judge(self.job_type(policy.tenant, policy.name), alike, done=done)
            elif before is _RETRYING and after is _PENDING:
                budget = self.job_type(policy.tenant, policy.name).budget
                if budget is not None:
                    budget.retried(len(alike), self.now_ms)
            for kind, own in runs.items():
                if before is _PENDING:
                    left = kind if priority_before is None else (priority_before, *kind[1:])
                    place = self._slack.leave(queue, left, own)
                    self.left(self.lane_of(queue, policy, place), len(own))
                key = None
                if kind[1]:
                    key = self._slack.moved(queue, kind[1], runs=after is _RUNNING)
                if before is _RUNNING or after is _RUNNING:
                    if ended and key is not None:
                        self._judge(key, own, done=done)
                    by = (after is _RUNNING) - (before is _RUNNING)
                    queue.running_of[kind[0]] += by * len(own)
                    if key is not None:
                        self._slack.count(key, own, by)
                if key is not None:
                    self._slack.forget_if_unused(key)

    def _recount(
        self, queue: Queue, name: str, jobs: int, before: JobState, after: JobState
    ) -> None:
        """So many jobs of a queue and name have moved."""
        for counts in (self.counts, queue.counts, queue.tally(name)):
            counts[before] -= jobs
            counts[after] += jobs
        if queue.concurrency and (before is _RUNNING or after is _RUNNING):
            queue.refresh()

    def left(self, lane: Lane, jobs: int) -> None:
        """So many jobs of a lane are not ready any more; see ``Lane.leave``."""
        lane.leave(jobs)
        if not lane.ready:
            self._note_empty(lane)

    def granted(self, records: list[JobRecord], incarnation: str, now_ms: int) -> list[JobType]:
        """Ready jobs were granted by one event; of which job types retries may come earlier now."""
        eased = []
        for policy, alike, runs in kin_of(records):
            queue = self.queue(policy.tenant, policy.queue)
            # First the gates: a lane that is closed by them needs no new front now.
            self._recount(queue, policy.name, len(alike), _PENDING, _RUNNING)
            self.refills.charge(queue, len(alike), now_ms)
            job_type = self.job_type(policy.tenant, policy.name)
            if job_type.granted(alike, now_ms):
                eased.append(job_type)
            left: dict[Kind, int] = {}
            for kind, own in runs.items():
                queue.running_of[kind[0]] += len(own)
                place = self._slack.leave(queue, kind, own)
                left[place] = left.get(place, 0) + len(own)
                if kind[1]:
                    key = self._slack.key(queue, kind[1])
                    key.count(own, 1)
                    self.refills.charge(key, len(own), now_ms)
                    key.granted(own)
            for place, jobs in left.items():
                lane = self.lane_of(queue, policy, place)
                self.left(lane, jobs)
                if lane.sticky is not None:
                    self.bind(lane.sticky, incarnation)
            queue.pulse.granted(now_ms, len(alike))
        return eased

    def _judge(self, gate: JobType | LimitKey, records: list[JobRecord], *, done: bool) -> None:
        """Attempts of a gate have ended together."""
        if judge(gate, records, self.now_ms, done=done):
            self.refills.arm(gate)

    def push(self, key: int, seq: int, records: list[JobRecord]) -> None:
        """Makes jobs ready that differ by no more than their keys; see ``Lane.push``."""
        policy = records[0].policy
        queue = self.queue(policy.tenant, policy.queue)
        if not any(queue.ready_of):
            queue.ready_seq = seq
        # After a replay events may come in another order.
        queue.ready_seq = min(queue.ready_seq, seq)
        for kin in kin_of(records):
            for kind, own in self._slack.place(queue, kin, key).items():
                self.put(self.lane_of(queue, policy, kind), key, seq, own)

    def put(self, lane: Lane, key: int, seq: int, records: list[JobRecord]) -> None:
        """Puts ready jobs into a lane; see ``Lane.push``."""
        self._empty.pop(lane, None)
        lane.push(key, seq, records)
        if lane.key is not None and lane.key.cancels:
            self.crowded[lane.key] = None

    def relieved(self, keys: int) -> None:
        """So many crowded keys were looked at, the first ones."""
        for key in list(islice(self.crowded, keys)):
            del self.crowded[key]

    def bind(self, sticky: StickyKey, incarnation: str) -> None:
        """A job of a sticky key has gone to a worker."""
        for changed in self.bindings.bind(sticky, incarnation):
            self._hang_all(changed)

    def rebind(self, running: list[JobRecord]) -> None:
        """Binds sticky keys to who runs their jobs and to nobody else, as after a replay."""
        for sticky in self.bindings.bound():
            self.bindings.unbind(sticky)
            self._hang_all(sticky)
        for record in sorted(running, key=attrgetter("ordinal")):
            if record.sticky_key:
                self._resume_binding(record)

    def _resume_binding(self, record: JobRecord) -> None:
        sticky = self.of(record).sticky
        if sticky is not None:
            self.bind(sticky, record.incarnation)

    def begin_term(self, now_ms: int) -> None:
        """All buckets are empty now; reserves are kept from now on, and no rate is known yet."""
        self._empty_ms = self.now_ms = now_ms
        self.timed = dict.fromkeys(self.timed, now_ms)
        for key, entry in self._settings.entries(SettingsKind.QUEUE):
            if isinstance(entry.value, QueueSettings) and entry.value.lasting:
                tenant, name = key
                self.queue(tenant, name)
        for queue in self.queues.values():
            queue.begin_term()
            self._configure_limits(queue, now_ms, anew=True)
        for key, entry in self._settings.entries(SettingsKind.JOB_TYPE):
            if isinstance(entry.value, JobTypeSettings) and entry.value.retry_budget:
                self.job_type(*key)
        for job_type in self._job_types.values():
            job_type.begin_term()

    # Settings.

    def configure_queue(self, tenant: str, name: str, now_ms: int) -> None:
        """A queue has new settings."""
        queue = self.queues.get((tenant, name))
        if queue is None:
            if self._settings.queue(tenant, name).lasting:
                self.queue(tenant, name, now_ms)
            return
        before, queue.settings = queue.settings, self._settings.queue(tenant, name)
        settings = queue.settings
        self._note_kind(queue)
        if before.key_rate != settings.key_rate:
            queue.key_empty_ms = now_ms
        self._configure_limits(queue, now_ms)
        queue.follow()
        self._forget_if_idle(queue)

    def _configure_limits(self, queue: Queue, now_ms: int, *, anew: bool = False) -> None:
        settings = queue.settings
        if anew:
            queue.key_empty_ms = now_ms
        if queue.limit(settings.concurrency, settings.rate, now_ms, anew=anew):
            self.refills.await_tokens(queue, self.now_ms)
        queue.refresh()
        for key in list(queue.limit_keys.values()):
            if key.configure(anew=anew):
                self.refills.await_tokens(key, self.now_ms)
            self._slack.follow(key)
            key.refresh()
            if key.cancels:
                self.crowded[key] = None

    def configure_tenant(self, name: str) -> None:
        """A tenant has new settings."""
        tenant = self._tenants.get(name)
        if tenant is not None:
            tenant.configure(self._settings.tenant(name))
            for queue in tenant.queues.values():
                queue.follow()

    def configure_job_type(self, tenant: str, name: str) -> bool:
        """A job type has new settings; tells whether they let more of it be retries."""
        found = self._job_types.get((tenant, name))
        settings = self._settings.job_type(tenant, name)
        if found is not None:
            return found.configure(settings)
        if settings.retry_budget:
            self.job_type(tenant, name)
        return False

    # What goes.

    def forget_if_empty(self, policy: Policy) -> None:
        """Drops a queue whose last job is gone."""
        queue = self.queues.get((policy.tenant, policy.queue))
        if queue is None:
            return
        tally = queue.tallies.get(policy.name)
        if tally is not None and not any(tally.counts):
            del queue.tallies[policy.name]
        self._forget_if_idle(queue)

    def _forget_if_idle(self, queue: Queue) -> None:
        if any(queue.counts) or queue.settings.lasting:
            return
        for lane in list(queue.lanes.values()):
            self._drop(lane)
        for skill in self._skills.values():
            skill.forget(queue)
        del self.queues[queue.tenant.name, queue.name]
        self.timed.pop(queue, None)
        del queue.tenant.queues[queue.name]
        if not queue.tenant.queues:
            del self._tenants[queue.tenant.name]

    def _note_empty(self, lane: Lane) -> None:
        """A lane has no ready job; of many such the oldest go, up to two whenever one comes."""
        empty = self._empty
        empty[lane] = None
        for _ in range(2):
            if len(empty) <= _EMPTY_MAX:
                break
            oldest = next(iter(empty))
            key = oldest.key
            if key is None or len(key.under) > 1:
                self._drop(oldest)
            elif key in self.crowded or not key.is_idle(self.now_ms):
                # It is looked at again when all others were.
                empty.move_to_end(oldest)
            else:
                self._drop(oldest)

    def _drop(self, lane: Lane) -> None:
        # As nothing of it is ready, it is in no order.
        lane.places = []
        self._empty.pop(lane, None)
        del lane.queue.lanes[lane.label]
        if lane.key is not None:
            lane.key.under.pop(lane, None)
            if not lane.key.under:
                self._slack.drop(lane.key)
        if lane.sticky is not None:
            lane.sticky.lanes.pop(lane, None)
            self.bindings.forget_if_idle(lane.sticky)
