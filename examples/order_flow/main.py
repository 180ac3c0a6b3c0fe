"""Places two orders, one of which cannot be paid. Run it beside
`tenure dev examples.order_flow.jobs`, in the repository's folder.
"""

from examples.order_flow.jobs import charge, confirm, put_back, reserve, ship
from tenure.client import Client, JobHandle, Workflow, result_of
from tenure.client.picture import to_mermaid


def place(
    client: Client, order: str, cents: int, items: list[str]
) -> tuple[Workflow, JobHandle[str]]:
    """Builds the workflow of one order; nothing runs before the block ends."""
    with client.workflow("order") as flow:
        paid = flow.add(charge, order, cents)
        reserved = flow.add(reserve, order, items)
        shipped = flow.add(ship, result_of(paid), result_of(reserved))
        told = flow.add(confirm, result_of(shipped), to="ann@example.org")
        # The compensation: it runs if the payment or the reservation fails, and only then.
        flow.add(put_back.options(after=[paid, reserved], run_if="any_failed"), items)
    return flow, told


def main() -> None:
    """Places the orders and prints what became of them."""
    with Client() as client:
        for order, cents in (("1001", 4_990), ("1002", 499_000)):
            flow, told = place(client, order, cents, ["lamp", "bulb"])
            flow.wait(timeout=60)
            print(f"order {order}: {flow.state().name}, mail {told.status().name}")
            print(to_mermaid(flow.members()))


if __name__ == "__main__":
    main()
