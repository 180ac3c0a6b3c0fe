"""``examples/order_flow`` and ``examples/data_pipeline``: on a real node, with their pictures."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cluster import REPOSITORY
from tests.integration.desk import Desk

#: A node of a picture: its id, and the last part of its job's name.
NODE = re.compile(r'^ +(n\d+)\["[\w.]*\.(\w+)<br/>', re.M)
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A reader in a folder with a copy of the examples."""
    for example in ("order_flow", "data_pipeline"):
        folder = REPOSITORY / "examples" / example
        shutil.copytree(
            folder,
            tmp_path / "examples" / example,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copy(REPOSITORY / "examples" / "__init__.py", tmp_path / "examples")
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def serve(desk: Desk, app: str) -> None:
    """Runs a node with the jobs of an example."""
    dev = desk.start("dev", f"tenure dev {app} --ephemeral --listen 127.0.0.1:0")
    desk.address = desk.wait_said(dev, "serving").fields["address"]
    desk.wait_said(dev, "registered")


def test_an_order(desk: Desk) -> None:
    """Payment and inventory, then shipment and confirmation; an unpaid order is undone."""
    serve(desk, "examples.order_flow.jobs")
    said = desk.run("python -m examples.order_flow.main").splitlines()
    assert said[0] == "order 1001: COMPLETED, mail COMPLETED"
    second = said.index("order 1002: FAILED, mail FAILED")
    good, bad = said[1:second], said[second + 1 :]
    for picture, undone in ((good, "CANCELLED"), (bad, "COMPLETED")):
        assert picture[0] == "flowchart LR"
        names = dict(NODE.findall("\n".join(picture)))
        edges = {tuple(line.split()[::2]) for line in picture if "-->" in line}
        assert {(names[parent], names[child]) for parent, child in edges} == {
            ("charge", "ship"),
            ("reserve", "ship"),
            ("ship", "confirm"),
            ("charge", "put_back"),
            ("reserve", "put_back"),
        }
        assert any(f'put_back<br/>{undone}"]:::{undone}' in line for line in picture)
    listed = desk.run("tenure workflows list").splitlines()
    assert [line.split()[3] for line in listed[1:]] == ["FAILED", "COMPLETED"]
    failed = listed[1].split()[0]
    assert "digraph" in desk.run(f"tenure workflows get {failed} -o dot")
    assert "put_back" in desk.run(f"tenure workflows get {failed}")


def test_a_pipeline(desk: Desk) -> None:
    """All parts go through all stages; missing data ends in the error branch."""
    serve(desk, "examples.data_pipeline.jobs")
    said = desk.run("python -m examples.data_pipeline.main").splitlines()
    assert said[0] == "monday: COMPLETED, mean 1.10, highest 2.20"
    (lost,) = [line for line in said if line.startswith("lost:")]
    assert lost == "lost: FAILED, the data of lost needs a look"
    assert sum("-->" in line for line in said) == 2 * (3 * 2 + 3 + 2 + 1)
