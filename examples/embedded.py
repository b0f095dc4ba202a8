"""A broker inside your own process: for tests, tools and small services."""

import asyncio
import tempfile

import holdfast
from holdfast.rpc import settings
from holdfast.rpc.broker import Broker


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        # Port 0: any free one. The data outlives the broker, here only as long as the folder.
        config = settings.make(data_dir=folder, listen="127.0.0.1:0")
        async with Broker(config) as broker, holdfast.connect(broker.client_address) as bus:
            await bus.create_topic("events")
            await bus.publish("events", b"hello from inside")
            async for record in bus.replay("events"):
                print(record.offset, record.value.decode())


asyncio.run(main())
