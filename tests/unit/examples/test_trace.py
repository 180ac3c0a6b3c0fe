"""The shop's trace and its settings."""

from pathlib import Path

from examples.whatif.make_trace import TRACE, text


def test_the_trace_is_what_its_script_writes() -> None:
    """Whoever changes the script writes the file anew."""
    assert TRACE.read_text("utf-8") == text()


def test_its_settings_are_beside_it() -> None:
    """The documents name both."""
    assert Path(TRACE).with_name("queues.toml").is_file()
