"""docs/api.md is what the protos say now, and the protos say something of everything offered."""

import re

from tenure.v1 import cluster_pb2, jobs_pb2, worker_pb2
from tools.generate_api import REFERENCE, reference


def test_reference_is_fresh() -> None:
    """No comment of the contract was changed without the page."""
    assert REFERENCE.read_text("utf-8") == reference(), "run `make protos` and commit docs/api.md"


def test_every_method_is_described() -> None:
    """Each method of each service has a row with a comment."""
    text = reference()

    for module in (jobs_pb2, worker_pb2, cluster_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            assert f"### {service.name}\n" in text
            for method in service.methods:
                row = re.search(rf"^\| `{method.name}` \| .+ \| .+ \| (.*) \|$", text, re.M)
                assert row is not None, method.name
                assert row[1], f"expected a comment on {service.name}.{method.name}"


def test_every_link_leads_to_a_section() -> None:
    """A type that is named has its own section on the page."""
    text = reference()
    sections = {name.lower() for name in re.findall(r"^### (\w+)$", text, re.M)}

    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= sections
