"""Schedules in the machine's world: they tick while all else goes on."""

from hypothesis import strategies as st

from tenure.master.core import command as commands
from tenure.master.core.command import PauseSchedule, PutSchedule, TriggerSchedule
from tenure.master.core.timetable import ScheduleSpec
from tenure.protocol.ids import mint
from tenure.protocol.vocabulary import Misfire, Overlap
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.kin import Kin
from tests.unit.master.core.world import CONFIG, POLICIES, step

SCHEDULES = st.sampled_from(["hourly", "nightly"])


class Almanac(Kin):
    """Rules about schedules; what people ask may be refused: there is none, or no room for it."""

    @step(
        name=SCHEDULES,
        cron=st.sampled_from(["*/2 * * * * *", "*/7 * * * * *"]),
        policy=st.sampled_from(POLICIES),
        misfire=st.sampled_from(Misfire),
        overlap=st.sampled_from(Overlap),
        jitter_ms=st.sampled_from([0, 0, 900]),
    )
    def put_schedule(
        self,
        name: str,
        cron: str,
        policy: object,
        misfire: Misfire,
        overlap: Overlap,
        jitter_ms: int,
    ) -> None:
        """Somebody makes or changes a schedule."""
        spec = ScheduleSpec(
            cron=cron,
            time_zone="UTC",
            policy=policy,  # type: ignore[arg-type]
            misfire=misfire,
            overlap=overlap,
            jitter_ms=jitter_ms,
            catch_up_ms=20_000,
        )
        self.do(PutSchedule(tenant="default", name=name, spec=spec))

    @step(name=SCHEDULES, paused=st.booleans())
    def pause_schedule(self, name: str, paused: bool) -> None:
        """Somebody stops a schedule, or lets it go on: one that there is, if there are any."""
        known = [found for _, found in state_of(self.partition).timetable.records]
        if known and name not in known:
            name = known[0]
        self.do(PauseSchedule(tenant="default", name=name, paused=paused))

    @step(name=SCHEDULES)
    def trigger_schedule(self, name: str) -> None:
        """Somebody wants a schedule's job now."""
        self.minted += 1
        job_id = mint(CONFIG.partition, self.now_ms, self.minted * 0x9E3779B97F4A7C15)
        self.do(TriggerSchedule(tenant="default", name=name, job_id=job_id))

    @step(name=SCHEDULES)
    def delete_schedule(self, name: str) -> None:
        """Somebody deletes a schedule."""
        self.do(commands.DeleteSchedule(tenant="default", name=name))

    def heal_schedules(self) -> None:
        """No more ticks: all jobs are to come to an end."""
        for _, name in list(state_of(self.partition).timetable.records):
            self.do(commands.DeleteSchedule(tenant="default", name=name))
