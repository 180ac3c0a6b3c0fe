"""Arguments and results that cannot be: each costs its own attempt, for good, in any executor."""

import msgspec
import pytest

from tenure.protocol.vocabulary import AttemptOutcome
from tests.unit.worker.executor.bench import JOBS, bench

APP = "tests.unit.worker.bad_values"
PERMANENT, COMPLETED = AttemptOutcome.FAILED_PERMANENT, AttemptOutcome.COMPLETED
#: A list in a list in a list, and so on: few bytes, in which a decoder descends for ever.
DEEP = b"\x92\x91" + b"\x91" * 100_000 + b"\x90\x80"

in_each_executor = pytest.mark.parametrize("kind", ["", "_async", "_in_child"])


@in_each_executor
@pytest.mark.parametrize(
    ("payload", "says"),
    [
        pytest.param(DEEP, "", id="deep"),
        pytest.param(DEEP[: len(DEEP) // 2], "", id="deep and cut off"),
        pytest.param(b"\x92\xdd\xff\xff\xff\xff", "", id="a list that claims four billion"),
        pytest.param(b"\x92\x91\xc6\xff\xff\xff\xff\x80", "", id="bytes that claim four billion"),
        pytest.param(b"\xc1" * 1_000, "payload", id="no MessagePack"),
        pytest.param(b"\x93\x90\x80\x90", "", id="more than a call"),
    ],
)
def test_payloads_that_harm_decoders(kind: str, payload: bytes, says: str) -> None:
    """The attempt fails for good, and whatever ran it takes the next job."""
    with bench(f"take{kind}", slots=1, module=APP) as pool:
        result = pool.result(f"take{kind}", payload=payload)
        assert result.outcome is PERMANENT
        assert result.fault is not None
        assert result.fault.type == "INVALID_ARGUMENT"
        assert says in result.fault.message
        assert pool.result(f"take{kind}", 1).outcome is COMPLETED


@in_each_executor
def test_argument_of_the_wrong_type_has_its_path(kind: str) -> None:
    """However deep it lies in the arguments."""
    payload = msgspec.msgpack.encode(([[{"a": 1}, {"b": "two"}]], {}))
    with bench(f"take_rows{kind}", module=APP) as pool:
        result = pool.result(f"take_rows{kind}", payload=payload)
    assert result.outcome is PERMANENT
    assert result.fault is not None
    assert "rows[1]" in result.fault.message


@in_each_executor
@pytest.mark.parametrize(
    ("what", "type_name", "says"),
    [
        ("lock", "INVALID_ARGUMENT", "result"),
        ("much", "PAYLOAD_TOO_LARGE", "262144"),
        ("deep", "INVALID_ARGUMENT", "result"),
        ("endless", "INVALID_ARGUMENT", "result"),
        ("wide", "INVALID_ARGUMENT", "result"),
    ],
)
def test_results_that_cannot_travel(kind: str, what: str, type_name: str, says: str) -> None:
    """They fail where they were made, and say why; the next job runs."""
    with bench(f"give{kind}", slots=1, module=APP) as pool:
        result = pool.result(f"give{kind}", what)
        assert result.outcome is PERMANENT
        assert result.fault is not None
        assert result.fault.type == type_name
        assert says in result.fault.message
        assert pool.result(f"give{kind}", "fine").outcome is COMPLETED


def test_payload_that_kills_its_decoder_costs_its_attempt() -> None:
    """In a child it is a loss like any other crash, and so poison in the end; the next job runs."""
    name = "defuse_in_child"
    content_type = JOBS[name].settings.content_type
    with bench(name, slots=1, module=APP) as pool:
        result = pool.result(name, payload=b"harmful", content_type=content_type)
        assert result.outcome is AttemptOutcome.LOST
        assert result.fault is not None
        assert "SIGABRT" in result.fault.message
        fine = pool.result(name, payload=b"harmless", content_type=content_type)
        assert fine.outcome is COMPLETED
