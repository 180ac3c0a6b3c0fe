"""Every store's elections: one holder, rising tokens, and a token that dies with its office."""

import asyncio

import pytest

from tenure.master.backend.errors import OfficeLost, StoreMismatch
from tenure.master.election.port import Leader, Member
from tests.conformance.bench import WALL_MS, Bench, candidate, followed, sealed, won


async def test_a_free_office_is_won(bench: Bench) -> None:
    """A campaign for a free office wins it, and everybody can see who holds it."""
    store = await bench.open("alice")
    election = store.election(0)
    assert await election.leader() is None
    office = await election.campaign()
    assert office is not None
    await office.renew()
    await office.verify()
    assert await election.leader() == Leader(candidate=candidate("alice"), token=office.token)
    await store.close()


async def test_tokens_rise_with_every_term(bench: Bench) -> None:
    """No token is given twice: not to the same master, not to another, not after a restart."""
    store = await bench.open()
    tokens = []
    for _ in range(3):
        office = await won(store)
        tokens.append(office.token)
        await office.resign()
    store = await bench.reopen(store)
    tokens.append((await won(store)).token)
    taken = await bench.takeover(store)
    tokens.append(taken.office.token)
    assert tokens == sorted(set(tokens))
    await taken.store.close()
    await store.close()


async def test_a_resigned_office_is_over(bench: Bench) -> None:
    """After resigning, nothing can be done under the old token; resigning again does no harm."""
    store = await bench.open()
    journal, office = store.journal(0), await won(store)
    chain = await followed(journal)
    await office.resign()
    await office.resign()
    with pytest.raises(OfficeLost):
        await office.verify()
    with pytest.raises(OfficeLost):
        await office.renew()
    with pytest.raises(OfficeLost):
        await journal.append(office.token, sealed(chain, office.token))
    assert await store.election(0).leader() is None
    await store.close()


async def test_resigning_late_does_not_harm_the_next_term(bench: Bench) -> None:
    """A resignation ends its own term only."""
    store = await bench.open()
    first = await won(store)
    await first.resign()
    second = await won(store)
    await first.resign()
    await second.verify()
    await store.close()


async def test_partitions_have_offices_of_their_own(bench: Bench) -> None:
    """Resigning one partition leaves the others as they are."""
    store = await bench.open(partitions=3)
    offices = [await won(store, partition) for partition in range(3)]
    await offices[1].resign()
    await offices[0].verify()
    await offices[2].verify()
    with pytest.raises(OfficeLost):
        await offices[1].verify()
    await store.close()


async def test_a_held_office_is_not_won(shared_bench: Bench) -> None:
    """While one master holds the office, another's campaign ends with None."""
    alice, bob = await shared_bench.open("alice"), await shared_bench.open("bob")
    office = await won(alice)
    assert await bob.election(0).campaign() is None
    assert await bob.election(0).leader() == Leader(
        candidate=candidate("alice"), token=office.token
    )
    await office.verify()
    await office.resign()
    assert (await won(bob)).token > office.token
    await alice.close()
    await bob.close()


async def test_a_deposed_master_is_told(shared_bench: Bench) -> None:
    """Renewing and verifying an office that another has won since fail for good."""
    store = await shared_bench.open()
    office = await won(store)
    taken = await shared_bench.takeover(store)
    with pytest.raises(OfficeLost):
        await office.verify()
    with pytest.raises(OfficeLost):
        await office.renew()
    await office.resign()
    await taken.office.verify()
    await taken.store.close()
    await store.close()


async def test_vacancy_is_announced(shared_bench: Bench) -> None:
    """Who waits for a vacancy is woken by a resignation, long before the timeout."""
    alice, bob = await shared_bench.open("alice"), await shared_bench.open("bob")
    office = await won(alice)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        vacancy = group.create_task(bob.election(0).vacancy(3_600_000))
        await asyncio.sleep(0)
        await office.resign()
    assert vacancy.result()
    await alice.close()
    await bob.close()


async def test_vacancy_ends_with_its_timeout(bench: Bench) -> None:
    """Waiting for the vacancy of a held office ends after the timeout, without one."""
    store = await bench.open()
    office = await won(store)
    async with asyncio.timeout(30):
        assert not await store.election(0).vacancy(50)
    await office.verify()
    await store.close()


async def test_a_vacant_office_needs_no_waiting(bench: Bench) -> None:
    """Nobody waits for an office that is free already."""
    store = await bench.open()
    async with asyncio.timeout(30):
        assert await store.election(0).vacancy(3_600_000)
    await store.close()


async def test_members_are_listed(bench: Bench) -> None:
    """A registered master is listed with what it last wrote."""
    store = await bench.open("alice")
    assert await store.members() == []
    await store.register(Member(candidate=candidate("alice"), version="1.0", wall_ms=WALL_MS))
    last = Member(
        candidate=candidate("alice"),
        version="1.0",
        wall_ms=WALL_MS + 1,
        boot_ms=7,
        heard_ms={"bob-1": 9},
        caught_up=(1, 2),
        ending=True,
    )
    await store.register(last)
    assert await store.members() == [last]
    await store.close()


async def test_members_see_each_other(shared_bench: Bench) -> None:
    """Every master lists all, and one that closes in order is gone at once."""
    alice, bob = await shared_bench.open("alice"), await shared_bench.open("bob")
    await alice.register(Member(candidate=candidate("alice"), version="1.0", wall_ms=WALL_MS))
    await bob.register(Member(candidate=candidate("bob"), version="1.1", wall_ms=WALL_MS))
    names = [sorted(m.candidate.name for m in await store.members()) for store in (alice, bob)]
    assert names == [["alice", "bob"], ["alice", "bob"]]
    await alice.close()
    assert [member.candidate.name for member in await bob.members()] == ["bob"]
    await bob.close()


async def test_the_number_of_partitions_is_fixed(bench: Bench) -> None:
    """The first open decides; later ones take what there is, or are refused."""
    store = await bench.open(partitions=3)
    cluster_id = store.cluster_id
    await store.close()
    with pytest.raises(StoreMismatch, match="3"):
        await bench.open(partitions=2)
    store = await bench.open()
    assert (store.partitions, store.cluster_id) == (3, cluster_id)
    await store.close()
