"""The same bus without asyncio: for scripts, notebooks and threads."""

import os

import holdfast

BROKERS = os.environ.get("HOLDFAST_ENDPOINTS", "127.0.0.1:7450")

with holdfast.connect_sync(BROKERS) as bus:
    bus.create_topic("notes", if_not_exists=True)
    ack = bus.publish("notes", b"remember the milk", key=b"home")
    print(f"stored at partition {ack.partition}, offset {ack.offset}")
    for note in bus.replay("notes"):
        print(note.offset, note.value.decode())
    with bus.subscribe("notes", group="reminders") as notes:
        for note in notes:
            print("done:", note.value.decode())
            note.ack()
            break
