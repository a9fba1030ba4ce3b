"""A world of actors of which one moves at a time: every step between two operations is drawn from one seed.

Actors run the product's own code on threads, but only one thread ever runs: at each operation on a port the actor that
has the word draws who has it next. A killed actor never comes back from the operation that it asks for; what it did
before stays done.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

START = datetime(2030, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """Ends an actor where it stands; nothing that product code catches."""


class AwayError(Exception):
    """The simulated database does not answer."""


class Violation(Exception):  # noqa: N818 - it is what a simulation looks for, not an error in one
    """An invariant does not hold."""


@dataclass
class Faults:
    """How much goes wrong, and until when.

    Attributes:
        kill: Probability that an actor is killed at a step.
        delay: Probability that an actor is held up at a step.
        kills: How many may be killed.
        until_s: After so long nothing goes wrong any more, and everything must settle.
    """

    kill: float = 0.004
    delay: float = 0.01
    kills: int = 6
    until_s: float = 3600.0


@dataclass
class Actor:
    """Somebody who acts: a name, what he does, and whether he may be killed."""

    name: str
    act: Callable[[], None]
    mortal: bool = True
    wake_s: float = 0.0
    killed: bool = False
    ended: bool = False
    delicate: int = 0
    longest_delay_s: float = 200.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def alive(self) -> bool:
        """Whether he still acts."""
        return not self.killed and not self.ended


class World:
    """The actors, the time, and the one source of chance.

    Args:
        seed: Draws everything.
        faults: What goes wrong.
        most_steps: When the simulation has not settled by then, it never does.
    """

    def __init__(self, seed: int, faults: Faults, most_steps: int = 30_000) -> None:
        self.random = random.Random(seed)
        self.faults = faults
        self.most_steps = most_steps
        self.time_s = 0.0
        self.steps = 0
        self.trace: list[tuple[str, str]] = []
        self.digest = 0
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.failure: BaseException | None = None
        self.down_until_s = 0.0
        self.settled: Callable[[], bool] = lambda: False
        self.on_kill: Callable[[Actor], None] = lambda _actor: None
        self._done = threading.Lock()
        self._done.acquire()
        self._stopping = False

    # ---------------------------------------------------------------------------------------------------------- clock
    def now(self) -> datetime:
        """Return the time, to the millisecond."""
        return START + timedelta(milliseconds=int(self.time_s * 1000))

    def sleep(self, seconds: float) -> None:
        """Let the present actor wait."""
        self.me.wake_s = self.time_s + seconds
        self.step("sleep")

    @property
    def calm(self) -> bool:
        """Whether the time is over in which things go wrong."""
        return self.time_s > self.faults.until_s

    # --------------------------------------------------------------------------------------------------------- actors
    @property
    def me(self) -> Actor:
        """The actor who has the word."""
        assert self.current is not None
        return self.current

    def add(self, name: str, act: Callable[[], None], *, mortal: bool = True, delay_s: float = 0.0) -> Actor:
        """Let somebody join."""
        actor = Actor(name, act, mortal=mortal, wake_s=self.time_s + delay_s)
        actor.lock.acquire()
        self.actors.append(actor)
        threading.Thread(target=self._life, args=(actor,), daemon=True, name=name).start()
        return actor

    def kill(self, actor: Actor) -> None:
        """Kill an actor: he does not come back from the operation that he is about to do."""
        if actor.alive:
            actor.killed = True
            actor.wake_s = self.time_s
            self.on_kill(actor)

    def _life(self, actor: Actor) -> None:
        actor.lock.acquire()
        try:
            if not self._stopping and not actor.killed:
                actor.act()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is what the simulation looks for
            self.failure = self.failure or error
        actor.ended = True
        self._pass_on(None)

    # ----------------------------------------------------------------------------------------------------- scheduling
    def run(self) -> None:
        """Let the actors act until all is settled.

        Raises:
            Violation: An invariant did not hold, or all does not settle.
        """
        self._pass_on(None)
        self._done.acquire()
        self._stopping = True
        for actor in self.actors:  # those who wait for the word leave
            if not actor.ended:
                actor.killed = True
                self.current = actor
                actor.lock.release()
                self._done.acquire()
        if self.failure is not None:
            raise self.failure

    def step(self, what: str) -> None:
        """Be about to do something: others may come first, and the actor may never get to it."""
        me = self.me
        if me.killed:
            raise Killed
        self.steps += 1
        draw = self.random.random()
        self.time_s += 0.005 + 0.1 * draw
        self.digest = self._mix(me.name, what)
        self.trace.append((me.name, what))
        if not self.calm:
            self._disturb(me)
        if self.failure is not None or self.settled() or self.steps > self.most_steps:
            self._finish(me)
        if me.killed:
            raise Killed
        if draw < 0.5 and me.wake_s <= self.time_s:
            return  # nobody comes in between
        self._pass_on(me)
        if me.killed:
            raise Killed

    def _mix(self, *parts: str) -> int:
        value = self.digest
        for part in parts:
            for character in part.encode():
                value = (value * 131 + character) & 0xFFFFFFFFFFFF
        return value

    def _disturb(self, me: Actor) -> None:
        """Let something go wrong, perhaps."""
        draw = self.random.random()
        if draw < self.faults.kill:
            if me.mortal and self.faults.kills > 0:
                self.faults.kills -= 1
                self.trace.append((me.name, "KILLED"))
                self.kill(me)
        elif draw < self.faults.kill + self.faults.delay:
            long = 4.0 if me.delicate else self.random.choice((3.0, 30.0, me.longest_delay_s))
            me.wake_s = max(me.wake_s, self.time_s + self.random.uniform(0.5, long))

    def _finish(self, me: Actor) -> None:
        if self.failure is None and self.steps > self.most_steps:
            self.failure = Violation("it does not settle")
        self._stopping = True
        self._done.release()
        me.lock.acquire()
        raise Killed

    def _pass_on(self, me: Actor | None) -> None:
        """Draw who has the word next, and wait until it comes back."""
        if self._stopping or self.failure is not None:
            self._done.release()
            if me is not None:
                me.lock.acquire()
            return
        chosen = self._draw()
        if chosen is None:
            self._done.release()
            return
        if chosen is me:
            return
        self.current = chosen
        chosen.lock.release()
        if me is not None:
            me.lock.acquire()

    def _draw(self) -> Actor | None:
        present = [actor for actor in self.actors if not actor.ended]
        if not present:
            return None
        if len(present) < len(self.actors):
            self.actors = present
        awake = [actor for actor in present if actor.wake_s <= self.time_s]
        if not awake:
            chosen = min(present, key=lambda actor: actor.wake_s)
            self.time_s = chosen.wake_s
            return chosen
        return awake[int(self.random.random() * len(awake))]
