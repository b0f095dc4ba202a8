"""A client program of a simulation: it lives, may be killed, and is started again."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Literal

from holdfast.chaos.checker.history import History
from holdfast.chaos.sim.services import ClientProcess, Front
from holdfast.client.client import Client
from holdfast.client.options import ClientOptions
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.client.effects import Observer


class Actor:
    """One client program. Subclasses say what it does in ``live``.

    ``stopping`` asks it to come to an end; ``done`` says that it has.
    """

    #: Seconds a life lasts at least and at most; None: until the end of the run.
    lifetime: tuple[float, float] | None = None

    def __init__(self, front: Front, history: History, name: str) -> None:
        self.front = front
        self.history = history
        self.name = name
        self.world = front.cluster.world
        self.rng: random.Random = self.world.stream(f"actor/{name}")
        self.life = 0
        self.stopping = False
        self.done = False
        #: False: it has been asked to stay, however old it gets.
        self.mortal = True
        self.state: Literal["down", "up"] = "down"
        self._process: ClientProcess | None = None

    def __repr__(self) -> str:
        return f"{self.name}({'done' if self.done else self.state}, life {self.life})"

    @property
    def now(self) -> float:
        return self.world.now

    def begin(self) -> None:
        """Start the program (again)."""
        if self.stopping and self.life:
            self.done = True
            return
        self.life += 1
        self.state = "up"
        life = self.life
        self._process = process = self.front.process(self.name)
        task = process.loop.create_task(self.live())
        task.add_done_callback(lambda task: self._ended(task, life))
        if self.lifetime is not None:
            low, high = self.lifetime
            self.world.at(self.now + low + (high - low) * self.rng.random(), lambda: self._grow_old(life))

    def finish(self) -> None:
        """Come to an end in good order."""
        self.stopping = True
        if self._process is not None and self.state == "up":
            self._process.loop.call_soon(self.leave)

    def kill(self) -> None:
        """kill -9, and a restart after a while."""
        process = self._process
        if process is None or self.state == "down":
            return
        self.state = "down"
        process.kill()
        self._again()

    # -- for subclasses --------------------------------------------------------------------

    async def live(self) -> None:
        """The program, from its start to its end."""
        raise NotImplementedError

    def leave(self) -> None:
        """Called on the program's loop when it is to end early, in good order."""

    def client(self, options: ClientOptions | None = None, observer: Observer | None = None) -> Client:
        assert self._process is not None
        return self._process.client(options or self.options(), observer)

    def options(self) -> ClientOptions:
        return ClientOptions(trace_context=False, timeout=5.0, connect_timeout=5.0, delivery_timeout=8.0)

    async def pause(self, low: float, high: float) -> None:
        await asyncio.sleep(low + (high - low) * self.rng.random())

    # -- lives -------------------------------------------------------------------------------

    def _grow_old(self, life: int) -> None:
        if life != self.life or self.state == "down" or self.stopping or not self.mortal:
            return
        if self.rng.random() < 0.5:
            self.kill()
        elif self._process is not None:
            self._process.loop.call_soon(self.leave)

    def _ended(self, task: asyncio.Task[None], life: int) -> None:
        if life != self.life or self.state == "down":
            return
        self.state = "down"
        assert self._process is not None
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not isinstance(failure, HoldfastError):
            self._process.loop.call_exception_handler(
                {"message": f"client {self.name} failed: {failure!r}", "exception": failure}
            )
        # Its process ends after this callback, not within it.
        process = self._process
        self.world.at(self.now, process.kill)
        self._again()

    def _again(self) -> None:
        self.world.at(self.now + 0.05 + self.rng.random(), self.begin)
