"""Settings of queues, tenants and job types: what they come to, what is refused, what is kept."""

import math

import pytest

from tenure.master.core.command import UpdateSettings
from tenure.master.core.partition import Partition
from tenure.master.core.settings import (
    AnySettings,
    BreakerSettings,
    JobTypeSettings,
    KeyOverride,
    QueueSettings,
    RateLimit,
    Settings,
    SettingsKey,
    SettingsKind,
    TenantSettings,
    refuse,
)
from tenure.protocol.limits import (
    BREAKER_WINDOW_MS_MAX,
    KEY_OVERRIDES_MAX,
    PROBES_MAX,
    RATE_PER_MS_MAX,
    TIMEOUT_MS_MAX,
    WEIGHT_MAX,
)
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import BreakerOverride, FairBy, LimitStrategy
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import CONFIG, Rig

MAIL = ("acme", "mail")
FULL = QueueSettings(
    weight=2.5,
    fair_by=FairBy.TIME,
    paused=True,
    concurrency=10,
    key_concurrency=2,
    key_strategy=LimitStrategy.CANCEL_NEWEST,
    rate=RateLimit(10, 1_000, 20),
    key_rate=RateLimit(1, 60_000, 1),
    reserved=0.25,
    reserved_priority=3,
    depth_max=500,
    refuse_late=True,
)


@pytest.fixture
def rig() -> Rig:
    """A partition in which nothing is set."""
    return Rig()


def update(rig: Rig, key: SettingsKey, settings: AnySettings, *fields: str) -> AnySettings:
    """Changes settings; gives what they are then."""
    reply = rig.do(UpdateSettings(key=key, settings=settings, fields=fields)).reply
    assert isinstance(reply, AnySettings)
    return reply


def test_unset_is_default(rig: Rig) -> None:
    """What nobody has set is run by the defaults."""
    settings = state_of(rig.partition).settings
    assert settings.queue(*MAIL) == QueueSettings()
    assert settings.tenant("acme") == TenantSettings()
    assert settings.job_type("acme", "send") == JobTypeSettings()
    assert not len(settings)


def test_fields_named_change_and_no_others(rig: Rig) -> None:
    """A command with fields changes those; one without replaces all."""
    assert update(rig, MAIL, FULL) == FULL
    changed = update(rig, MAIL, QueueSettings(weight=7.0), "weight", "rate")
    assert changed == QueueSettings(
        **{f: getattr(FULL, f) for f in FULL.__struct_fields__} | {"weight": 7.0, "rate": None}
    )
    assert update(rig, MAIL, QueueSettings(weight=7.0)) == QueueSettings(weight=7.0)


def test_overrides_are_changed_key_by_key(rig: Rig) -> None:
    """A command that names limit keys changes what is made of their breakers, and no others'."""

    def override(said: dict[str, BreakerOverride], *keys: str, fields: tuple[str, ...] = ()) -> str:
        overrides = tuple(KeyOverride(key, said[key]) for key in sorted(said))
        command = UpdateSettings(
            key=MAIL,
            settings=QueueSettings(weight=3.0, key_breaker_overrides=overrides),
            fields=fields,
            override_keys=keys,
        )
        settings = rig.do(command).reply
        assert isinstance(settings, QueueSettings)
        shown = [f"{row.limit_key}={row.override.name}" for row in settings.key_breaker_overrides]
        return f"{settings.weight:g} {' '.join(shown)}"

    opened, closed = BreakerOverride.OPEN, BreakerOverride.CLOSED
    assert override({"m": opened, "z": opened}, "m") == "1 m=OPEN"
    assert override({"z": closed}, "z", "y", fields=("weight",)) == "3 m=OPEN z=CLOSED"
    assert override({"a": closed, "m": closed}, "m", "a") == "3 a=CLOSED m=CLOSED z=CLOSED"
    assert override({}, "m") == "3 a=CLOSED z=CLOSED"
    # Who names all of them means all.
    assert override({"x": opened}, "a", fields=("key_breaker_overrides",)) == "3 x=OPEN"


def test_there_are_not_too_many_overrides_however_they_come(rig: Rig) -> None:
    """The limit is that of the whole, not of what one command names."""
    rows = tuple(KeyOverride(f"k{n:03}", BreakerOverride.OPEN) for n in range(KEY_OVERRIDES_MAX))
    update(rig, MAIL, QueueSettings(key_breaker_overrides=rows))
    more = QueueSettings(key_breaker_overrides=(KeyOverride("z", BreakerOverride.OPEN),))
    refusal = rig.refused(UpdateSettings(key=MAIL, settings=more, override_keys=("z",)))
    assert refusal.field == "settings.key_breaker_overrides"


def test_each_kind_is_apart(rig: Rig) -> None:
    """A queue and a job type of one name have their own settings, and so has each tenant."""
    update(rig, ("acme", "x"), QueueSettings(weight=2.0))
    update(rig, ("acme", "x"), JobTypeSettings(paused=True))
    update(rig, ("other", "x"), QueueSettings(weight=3.0))
    update(rig, ("acme",), TenantSettings(weight=4.0))
    settings = state_of(rig.partition).settings
    assert settings.queue("acme", "x").weight == 2.0
    assert settings.queue("other", "x").weight == 3.0
    assert settings.job_type("acme", "x").paused
    assert settings.tenant("acme").weight == 4.0
    assert [key for key, _ in settings.entries(SettingsKind.QUEUE)] == [
        ("acme", "x"),
        ("other", "x"),
    ]


def test_same_again_is_not_journaled(rig: Rig) -> None:
    """Setting what is set already writes nothing."""
    update(rig, MAIL, FULL)
    decision = rig.do(UpdateSettings(key=MAIL, settings=FULL))
    assert (decision.events, decision.reply) == ((), FULL)


def test_settings_outlive_failovers(rig: Rig) -> None:
    """A replay, a snapshot, and a replay over a snapshot that has seen the events, give them."""
    update(rig, MAIL, FULL)
    update(rig, ("acme",), TenantSettings(weight=4.0))
    breaker = BreakerSettings(failure_rate=0.1)
    job_type = JobTypeSettings(breaker=breaker, breaker_override=BreakerOverride.OPEN)
    update(rig, ("acme", "send"), job_type)
    update(rig, MAIL, QueueSettings(weight=9.0))
    expected = rig.partition.state_hash()
    assert rig.replayed().state_hash() == expected
    restored = Partition(CONFIG)
    cursor = rig.partition.snapshot()
    while (part := cursor.next_slice(2)) is not None:
        restored.load_slice(part)
    for seq, event in enumerate(rig.events(), 1):
        restored.replay(event, seq)
    restored.finish_replay()
    assert restored.state_hash() == expected
    settings = state_of(restored).settings
    assert settings.queue(*MAIL) == QueueSettings(weight=9.0)
    assert settings.job_type("acme", "send") == job_type


def test_settings_are_in_the_hash(rig: Rig) -> None:
    """Two partitions that differ in settings only have different hashes."""
    other = Rig()
    update(rig, MAIL, QueueSettings(weight=2.0))
    update(other, MAIL, QueueSettings(weight=3.0))
    assert rig.partition.state_hash() != other.partition.state_hash()


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (QueueSettings(weight=0.0), "weight"),
        (QueueSettings(weight=-1.0), "weight"),
        (QueueSettings(weight=math.nan), "weight"),
        (QueueSettings(weight=math.inf), "weight"),
        (QueueSettings(rate=RateLimit(0, 1_000, 1)), "rate.count"),
        (QueueSettings(rate=RateLimit(1, 0, 1)), "rate.per"),
        (QueueSettings(key_rate=RateLimit(1, 1_000, 0)), "key_rate.burst"),
        (QueueSettings(reserved=1.0), "reserved"),
        (QueueSettings(reserved=-0.1), "reserved"),
        (QueueSettings(reserved=math.nan), "reserved"),
        (QueueSettings(rate=RateLimit(1, RATE_PER_MS_MAX + 1, 1)), "rate.per"),
        (QueueSettings(key_rate=RateLimit(1, -1, 1)), "key_rate.per"),
        (QueueSettings(reserved_priority=11), "reserved_priority"),
        (QueueSettings(reserved_priority=-1), "reserved_priority"),
        (QueueSettings(key_breaker=BreakerSettings(probes=-1)), "key_breaker.probes"),
        (TenantSettings(weight=WEIGHT_MAX + 1), "weight"),
        (TenantSettings(weight=0.0), "weight"),
        (JobTypeSettings(retry_budget=1.0), "retry_budget"),
        (JobTypeSettings(breaker=BreakerSettings(failure_rate=0.0)), "breaker.failure_rate"),
        (JobTypeSettings(breaker=BreakerSettings(failure_rate=1.1)), "breaker.failure_rate"),
        (JobTypeSettings(retry_budget=-0.1), "retry_budget"),
        (
            JobTypeSettings(breaker=BreakerSettings(window_ms=BREAKER_WINDOW_MS_MAX + 1)),
            "breaker.window",
        ),
        (
            JobTypeSettings(breaker=BreakerSettings(open_for_ms=TIMEOUT_MS_MAX + 1)),
            "breaker.open_for",
        ),
        (JobTypeSettings(breaker=BreakerSettings(open_for_ms=0)), "breaker.open_for"),
        (JobTypeSettings(breaker=BreakerSettings(probes=PROBES_MAX + 1)), "breaker.probes"),
        (JobTypeSettings(breaker=BreakerSettings(window_ms=0)), "breaker.window"),
        (JobTypeSettings(breaker=BreakerSettings(open_for_ms=-1)), "breaker.open_for"),
        (JobTypeSettings(breaker=BreakerSettings(volume_min=0)), "breaker.volume_min"),
        (JobTypeSettings(breaker=BreakerSettings(probes=0)), "breaker.probes"),
    ],
)
def test_refused(rig: Rig, settings: AnySettings, field: str) -> None:
    """What cannot be is refused with the path of its field, and nothing changes."""
    refusal = rig.refused(UpdateSettings(key=("acme", "x"), settings=settings))
    assert (refusal.reason, refusal.field) == (Reason.INVALID_ARGUMENT, f"settings.{field}")
    value = refusal.message.removeprefix(f"expected a valid settings.{field}, but ").split()[0]
    assert value != "None"
    assert f"={value}" in repr(settings)
    assert refusal.metadata == {"field": f"settings.{field}"}
    assert not len(state_of(rig.partition).settings)


def test_the_whole_is_judged(rig: Rig) -> None:
    """A field that is not named is not judged by what the command says of it."""
    update(rig, MAIL, QueueSettings(weight=-1.0, concurrency=3), "concurrency")
    assert state_of(rig.partition).settings.queue(*MAIL) == QueueSettings(concurrency=3)


def test_bounds_are_in() -> None:
    """The largest and smallest values that are allowed pass."""
    assert refuse(FULL) is None
    assert refuse(QueueSettings(weight=1e-9)) is None
    assert refuse(TenantSettings(weight=1_000_000)) is None
    assert refuse(JobTypeSettings(breaker=BreakerSettings(failure_rate=1.0))) is None
    least = BreakerSettings(window_ms=1, open_for_ms=1, volume_min=1, probes=1)
    most = BreakerSettings(
        window_ms=BREAKER_WINDOW_MS_MAX, open_for_ms=TIMEOUT_MS_MAX, probes=PROBES_MAX
    )
    for breaker in (least, most):
        assert refuse(JobTypeSettings(breaker=breaker)) is None
    for rate in (RateLimit(1, 1, 1), RateLimit(1, RATE_PER_MS_MAX, 1)):
        assert refuse(QueueSettings(rate=rate, key_rate=rate)) is None
    for priority in (0, 10):
        assert refuse(QueueSettings(reserved=0.0, reserved_priority=priority)) is None
    overrides = tuple(
        KeyOverride(f"{number:04}", BreakerOverride.OPEN) for number in range(KEY_OVERRIDES_MAX + 1)
    )
    assert refuse(QueueSettings(key_breaker_overrides=overrides[1:])) is None
    refusal = refuse(QueueSettings(key_breaker_overrides=overrides))
    assert refusal is not None
    assert f"{KEY_OVERRIDES_MAX + 1} keys are more than {KEY_OVERRIDES_MAX}" in refusal.message


def test_what_an_operator_said_of_a_key_is_found_among_others() -> None:
    """Of a key of which nothing was said, nothing."""
    opened, closed = BreakerOverride.OPEN, BreakerOverride.CLOSED
    overrides = (KeyOverride("a", closed), KeyOverride("b", opened))
    settings = QueueSettings(key_breaker_overrides=overrides)
    said = [settings.override_of(key) for key in ("a", "b", "c")]
    assert said == [closed, opened, BreakerOverride.NONE]


@pytest.mark.parametrize(
    ("settings", "lasting"),
    [
        (QueueSettings(concurrency=1, key_concurrency=1, paused=True), False),
        (QueueSettings(reserved=0.1), True),
        (QueueSettings(rate=RateLimit(1, 1, 1)), True),
        (QueueSettings(key_rate=RateLimit(1, 1, 1)), True),
        (QueueSettings(key_breaker=BreakerSettings()), True),
    ],
)
def test_what_a_queue_counts_keeps_it(settings: QueueSettings, lasting: bool) -> None:
    """Without a job: slots that it keeps free, tokens and failures."""
    assert settings.lasting is lasting


def test_an_older_event_changes_nothing() -> None:
    """As when a snapshot knows more than the event behind which it begins."""
    settings = Settings()
    assert settings.put(("t", "q"), QueueSettings(weight=2.0), 5)
    for seq, changes in ((5, False), (4, False), (6, True)):
        assert settings.put(("t", "q"), QueueSettings(weight=3.0), seq) is changes
    assert settings.put(("t", "q"), JobTypeSettings(paused=True), 0)
    entry = settings.get(SettingsKind.QUEUE, ("t", "q"))
    assert entry == (QueueSettings(weight=3.0), 6)
    assert settings.entries(SettingsKind.JOB_TYPE) == [
        (("t", "q"), (JobTypeSettings(paused=True), 0))
    ]
    assert settings.get(SettingsKind.TENANT, ("t",)) is None
    assert len(settings) == 2
