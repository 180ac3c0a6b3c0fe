"""Memos: what was made is found again, in bounded memory."""

from tenure.master.node.memo import Memo


def test_what_was_kept_is_found() -> None:
    """A key's value, and nothing for others."""
    memo: Memo[str, list[int]] = Memo()
    value = memo.put("a", [1], 10)
    assert memo.get("a") is value
    assert memo.get("b") is None


def test_memory_is_bounded_by_bytes_and_by_number() -> None:
    """However large or many the values are."""
    for size in (0, 16 * 1024):
        memo: Memo[int, int] = Memo()
        most = 0
        for key in range(40_000):
            memo.put(key, key, size)
            assert memo.get(key) == key
            most = max(most, len(memo))
        assert most * (size + 1_024) <= 16 * 1024 * 1024
        assert most > 900
