"""Two consumers share the work of one topic; nothing is forgotten when one of them goes."""

import asyncio
import os

import holdfast

BROKERS = os.environ.get("HOLDFAST_ENDPOINTS", "127.0.0.1:7450")
TOPIC = "orders-to-bill"
ORDERS = 200


async def worker(name: str, done: asyncio.Queue[tuple[str, bytes]], orders: int) -> None:
    """Take orders for ever; after ``orders`` of them, leave in the middle of the work."""
    async with (
        holdfast.connect(BROKERS) as bus,
        bus.subscribe(TOPIC, group="billing", name=name) as subscription,
    ):
        async for order in subscription:
            # The work first, then the ack: should this process end in between, the order comes again.
            await done.put((name, order.value))
            await order.ack()
            orders -= 1
            if orders == 0:
                return


async def main() -> None:
    async with holdfast.connect(BROKERS) as bus:
        await bus.create_topic(TOPIC, partitions=8, if_not_exists=True)
        values = [f"order {number}".encode() for number in range(ORDERS)]
        await bus.publish_many(TOPIC, values, keys=[f"customer {n % 20}" for n in range(ORDERS)])

    done: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    leaving = asyncio.create_task(worker("leaving", done, orders=20))
    # The first order shows that it is at work: from now on the two share what is left.
    billed = {(await done.get())[1]}
    steady = asyncio.create_task(worker("steady", done, orders=-1))
    while len(billed) < ORDERS:
        _, order = await done.get()
        billed.add(order)  # a set: an order that was not acknowledged in time may come twice
    await leaving
    steady.cancel()
    await asyncio.gather(steady, return_exceptions=True)
    print(f"billed all {len(billed)} orders, although one of two workers left early")


asyncio.run(main())
