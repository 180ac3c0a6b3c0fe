"""Settings of a replay, as TOML and the API's JSON have them."""

import pytest

from tenure.master.core.settings import (
    BreakerSettings,
    JobTypeSettings,
    QueueSettings,
    RateLimit,
    TenantSettings,
)
from tenure.master.whatif.configuration import read_settings
from tenure.protocol.errors import Rejected


def test_every_table_is_read() -> None:
    """Names of fields as in the proto files or as in JSON; whatever is beside settings is left."""
    rate = {"count": 5, "per": "2s"}
    document = {
        "queues": [
            {"name": "mail", "settings": {"concurrency": 2, "key_rate": rate}, "counts": []}
        ],
        "tenants": [{"name": "acme", "settings": {"weight": 2.5}}],
        "jobTypes": [{"name": "send", "tenant": "acme", "settings": {"breaker": {"probes": 1}}}],
    }
    assert read_settings(document) == [
        (("default", "mail"), QueueSettings(concurrency=2, key_rate=RateLimit(5, 2_000, 5))),
        (("acme",), TenantSettings(weight=2.5)),
        (("acme", "send"), JobTypeSettings(breaker=BreakerSettings(probes=1))),
    ]


def test_a_list_is_one_of_queues() -> None:
    """As `tenure queues list -o json` prints it."""
    entry = {"tenant": "default", "name": "a", "partition": 3, "settings": {"keyConcurrency": 1}}
    assert read_settings([entry]) == [(("default", "a"), QueueSettings(key_concurrency=1))]


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (3, "queue_config"),
        ({"queue": []}, "queue"),
        ({"queues": {}}, "queues"),
        ({"queues": [1]}, "queues[0]"),
        ({"queues": [{}]}, "queues[0].name"),
        ({"queues": [{"name": "a", "tenant": ""}]}, "queues[0].tenant"),
        ({"queues": [{"name": "a", "settings": []}]}, "queues[0].settings"),
        ({"queues": [{"name": "a", "settings": {"wait": 1}}]}, "queues[0].settings"),
        ({"queues": [{"name": "a", "settings": {"weight": 0}}]}, "queues[0].settings.weight"),
        (
            {"queues": [{"name": "a"}, {"name": "b", "settings": {"rate": {"per": "1s"}}}]},
            "queues[1].settings.rate.count",
        ),
        ({"tenants": [{"name": "a", "settings": {"weight": -1}}]}, "tenants[0].settings.weight"),
        (
            {"job_types": [{"name": "a", "settings": {"retryBudget": 2}}]},
            "job_types[0].settings.retry_budget",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_path(document: object, path: str) -> None:
    """The path leads to the entry and the field in the document."""
    with pytest.raises(Rejected) as caught:
        read_settings(document)
    assert caught.value.field == path
