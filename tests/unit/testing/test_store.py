"""The simulated store's faults: what is lost, late, cut or crashed does what it would in etcd."""

import asyncio

import pytest

from tenure.master.backend.errors import OfficeLost, StoreFull, StoreUnavailable
from tenure.master.election.port import Candidate, Office
from tenure.master.journal.frame import Chain
from tenure.master.journal.port import HaltRecord, Journal, SealedBatch
from tenure.protocol.fence import Token
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tenure.testing.store import MEMBER_TTL_MS, Fate, SimStore, SimStoreServer

ALICE = Candidate(incarnation="a", name="alice", address="alice:1")
BOB = Candidate(incarnation="b", name="bob", address="bob:1")
CLOCK = SimClock()


async def _won(store: SimStore) -> Office:
    office = await store.election(0).campaign()
    assert office is not None
    return office


async def _chain(journal: Journal) -> Chain:
    chain = Chain.start(0)
    async for batch in journal.read(0):
        chain.follow(batch)
    return chain


def _seal(chain: Chain, token: Token) -> SealedBatch:
    return chain.seal(token=token, stamp_ms=0, events=b"\x90", event_count=0)


@pytest.mark.parametrize("fate", Fate)
@pytest.mark.parametrize("kind", ["append", "slice", "publication", "truncation", "halt"])
def test_a_lost_answer_is_resolved(fate: Fate, kind: str) -> None:
    """Applied or not, a mutation whose first answer was lost has happened once when it returns."""

    async def main() -> None:
        server = SimStoreServer()
        store = await server.open(ALICE)
        office, journal = await _won(store), store.journal(0)
        chain = await _chain(journal)
        await journal.append(office.token, _seal(chain, office.token))
        store.link.lose(fate, fate)
        match kind:
            case "append":
                await journal.append(office.token, _seal(chain, office.token))
                assert (await _chain(journal)) == chain
            case "slice":
                await journal.write_slice(office.token, "s", 0, b"slice")
                assert server.partitions[0].slices == {"s": {0: b"slice"}}
            case "publication":
                await journal.publish_snapshot(office.token, "s", b"manifest")
                assert server.partitions[0].pointer == ("s", b"manifest")
            case "truncation":
                await journal.truncate(office.token, 1)
                assert list(server.partitions[0].batches) == [1]
            case _:
                await journal.halt(office.token, HaltRecord(batch_number=1, detail=""))
                assert await journal.halted() is not None

    run_virtual(main)


@pytest.mark.parametrize("fate", Fate)
def test_a_campaign_without_an_answer_is_resolved(fate: Fate) -> None:
    """An office won by a campaign whose answer was lost is known to be won."""

    async def main() -> None:
        server = SimStoreServer()
        store = await server.open(ALICE)
        store.link.lose(fate)
        await (await _won(store)).verify()

    run_virtual(main)


def test_pipelined_batches_survive_a_lost_one() -> None:
    """Batches behind a lost one are not written before it, and all get in, in order."""

    async def main() -> None:
        server = SimStoreServer()
        store = await server.open(ALICE)
        office, journal = await _won(store), store.journal(0)
        chain = await _chain(journal)
        store.link.lose(Fate.NOT_APPLIED)
        async with asyncio.TaskGroup() as group:
            for _ in range(journal.pipeline_depth):
                group.create_task(journal.append(office.token, _seal(chain, office.token)))
        assert await _chain(journal) == chain

    run_virtual(main)


def test_a_zombies_late_write_is_refused() -> None:
    """An append that arrives after another's office was won changes nothing.

    1. alice sends batch 1; it takes 900 ms
    2. her office ends; bob wins it and writes his batch 1
    3. alice's arrives: her key is not there any more
    """

    async def main() -> None:
        server = SimStoreServer()
        alice, bob = await server.open(ALICE), await server.open(BOB)
        office = await _won(alice)
        late = _seal(await _chain(alice.journal(0)), office.token)
        alice.link.delay_ms = 900
        async with asyncio.TaskGroup() as group:
            append = group.create_task(_refused(alice.journal(0), office.token, late))
            await CLOCK.sleep(100)
            server.expire_office(0)
            successor = await _won(bob)
            chain = await _chain(bob.journal(0))
            await bob.journal(0).append(successor.token, _seal(chain, successor.token))
        assert append.result()
        assert await _chain(bob.journal(0)) == chain

    run_virtual(main)


async def _refused(journal: Journal, token: Token, batch: SealedBatch) -> bool:
    try:
        await journal.append(token, batch)
    except (OfficeLost, StoreUnavailable):
        return True
    return False


def test_a_crashed_masters_last_words_count() -> None:
    """What was on the way when a master died is applied; nothing it awaits ever returns."""

    async def main() -> None:
        server = SimStoreServer()
        alice, bob = await server.open(ALICE), await server.open(BOB)
        office = await _won(alice)
        chain = await _chain(alice.journal(0))
        alice.link.delay_ms = 10
        async with asyncio.TaskGroup() as group:
            batch = _seal(chain, office.token)
            append = group.create_task(alice.journal(0).append(office.token, batch))
            await CLOCK.sleep(5)
            alice.crash()
            await CLOCK.sleep(60_000)
            assert not append.done()
            append.cancel()
        assert await _chain(bob.journal(0)) == chain

    run_virtual(main)


def test_an_office_lives_for_its_ttl() -> None:
    """Renewed it lives on; left alone it ends, exactly at its TTL, and another can win it."""

    async def main() -> None:
        server = SimStoreServer(office_ttl_ms=6_000)
        alice, bob = await server.open(ALICE), await server.open(BOB)
        office = await _won(alice)
        for _ in range(10):
            await CLOCK.sleep(5_000)
            await office.renew()
        renewed_ms = CLOCK.boot_ms()
        await bob.election(0).vacancy(60_000)
        assert 5_990 <= CLOCK.boot_ms() - renewed_ms <= 6_100
        with pytest.raises(OfficeLost):
            await office.renew()
        assert (await _won(bob)).token > office.token

    run_virtual(main)


def test_a_cut_link_answers_nothing_until_healed() -> None:
    """Behind a cut a call ends as unknown, in bounded time; afterwards the same call works."""

    async def main() -> None:
        server = SimStoreServer(office_ttl_ms=60_000)
        store = await server.open(ALICE)
        office, journal = await _won(store), store.journal(0)
        chain = await _chain(journal)
        batch = _seal(chain, office.token)
        store.link.cut()
        started_ms = CLOCK.boot_ms()
        with pytest.raises(StoreUnavailable):
            await journal.append(office.token, batch)
        with pytest.raises(StoreUnavailable):
            await office.renew()
        assert CLOCK.boot_ms() - started_ms <= 10_000
        store.link.heal()
        await office.verify()
        await journal.append(office.token, batch)

    run_virtual(main)


def test_lost_replies_leave_the_change() -> None:
    """With only the way back cut, what was asked has been done all the same."""

    async def main() -> None:
        server = SimStoreServer(office_ttl_ms=60_000)
        store = await server.open(ALICE)
        office, journal = await _won(store), store.journal(0)
        batch = _seal(await _chain(journal), office.token)
        store.link.replies_cut = True
        with pytest.raises(StoreUnavailable):
            await journal.append(office.token, batch)
        store.link.heal()
        assert await journal.last_number() == 1
        await journal.append(office.token, batch)

    run_virtual(main)


def test_no_office_is_won_without_space() -> None:
    """A full server grants no lease, so nobody can win; who leads may stay."""

    async def main() -> None:
        server = SimStoreServer()
        alice, bob = await server.open(ALICE), await server.open(BOB)
        office = await _won(alice)
        server.full = True
        await office.renew()
        await office.resign()
        with pytest.raises(StoreFull):
            await bob.election(0).campaign()
        server.full = False
        await _won(bob)

    run_virtual(main)


def test_members_end_with_their_ttl() -> None:
    """A member that does not renew its key is gone after its TTL."""

    async def main() -> None:
        server = SimStoreServer()
        alice, bob = await server.open(ALICE), await server.open(BOB)
        await alice.register(ALICE, "1", 0)
        await bob.register(BOB, "1", 0)
        alice.crash()
        await CLOCK.sleep(MEMBER_TTL_MS - 100)
        await bob.register(BOB, "1", 1)
        await CLOCK.sleep(200)
        assert [member.candidate.name for member in await bob.members()] == ["bob"]

    run_virtual(main)
