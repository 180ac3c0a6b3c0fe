"""The steps of an order. Each is a job of its own: it is retried, limited and seen by itself."""

from tenure.client import Permanent, job


@job(queue="payments")
def charge(order: str, cents: int) -> str:
    """Takes the money; gives the payment's reference."""
    if cents > 100_000:
        raise Permanent(f"the card of order {order} is good for 1000.00 only")
    return f"payment-{order}"


@job(queue="warehouse")
def reserve(order: str, items: list[str]) -> dict[str, int]:
    """Puts the items aside; gives the shelf of each."""
    return {item: shelf for shelf, item in enumerate(items, 1)}


@job(queue="warehouse")
def ship(payment: str, shelves: dict[str, int]) -> str:
    """Packs what was reserved, once it is paid; gives the parcel's number."""
    return f"parcel-{len(shelves)}-{payment}"


@job(queue="mail")
def confirm(parcel: str, to: str) -> str:
    """Tells the customer."""
    return f"{to}: {parcel} is on its way"


@job(queue="warehouse")
def put_back(items: list[str]) -> int:
    """Undoes ``reserve`` when the order did not come about."""
    return len(items)
