"""Publish keyed records with event times, then replay one window of them."""

import asyncio
import os
from datetime import UTC, datetime, timedelta

import holdfast

BROKERS = os.environ.get("HOLDFAST_ENDPOINTS", "127.0.0.1:7450")
START = datetime(2030, 1, 1, tzinfo=UTC)


async def main() -> None:
    async with holdfast.connect(BROKERS) as bus:
        await bus.create_topic("readings", partitions=4, if_not_exists=True)

        # Each call returns a future at once; they travel together, in a few batches.
        acks = [
            bus.publish(
                "readings",
                f"{20 + hour % 5}.0".encode(),
                key=f"sensor-{sensor}",
                timestamp=START + timedelta(hours=hour),
            )
            for hour in range(24)
            for sensor in range(10)
        ]
        for ack in await asyncio.gather(*acks):
            assert ack.offset >= 0  # fsynced on a majority of the brokers
        print(f"published {len(acks)} readings")

        # The window holds exactly the records whose event time lies in it.
        window = bus.replay("readings", start=START + timedelta(hours=6), end=START + timedelta(hours=9))
        readings = [record async for record in window]
        print(
            f"between 6 and 9 o'clock: {len(readings)} readings of {len({r.key for r in readings})} sensors"
        )


asyncio.run(main())
