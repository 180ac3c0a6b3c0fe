"""What ``tenure dev`` does with what its children say."""

import asyncio
from pathlib import Path

import pytest

from tenure.cli.dev import DevConfig, _Tree

LONG = "x" * 300_000
CONFIG = DevConfig(
    app=None,
    data_dir=Path(),
    listen="127.0.0.1:0",
    workers=0,
    slots=None,
    ephemeral=True,
    insecure=False,
    verbose=False,
)


def test_a_long_line_of_a_job_ends_nothing(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """What a job prints goes through, however long, with or without an end of the line."""

    async def main() -> None:
        child = await asyncio.create_subprocess_exec(
            "printf",
            "%s\\n%s\\n%s",
            LONG[:100_000],
            "short",
            LONG[:90_000],
            stdout=asyncio.subprocess.PIPE,
        )
        await _Tree(CONFIG, Path())._follow(child)

    asyncio.run(main())
    said = capfdbinary.readouterr().out
    assert said == f"{LONG[:100_000]}\nshort\n{LONG[:90_000]}".encode()
