"""A program as it is in production: it knows nothing of tests."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast import Retry, subscriber


@dataclass
class Order:
    id: int
    price: float = 1.0


billed: list[int] = []


@subscriber(
    "orders",
    group="billing",
    retry=Retry(attempts=3, initial=3_600.0, maximum=7_200.0, jitter=0.0),
    dead_letter="orders.dead",
)
async def bill(order: Order) -> None:
    if order.price < 0:
        raise ValueError(f"a price of {order.price}")
    billed.append(order.id)
