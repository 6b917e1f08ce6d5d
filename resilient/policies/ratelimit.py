"""RateLimit: how many calls, tokens or euros go to a dependency in a second, a minute or a day."""

from __future__ import annotations

import functools
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Collection, Hashable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..clock import SYSTEM_CLOCK, Clock
from ..core.bounds import flag, not_negative, one_of, positive, whole
from ..core.keys import Keyed
from ..core.outcome import Outcome
from ..core.quota import Quota
from ..core.ratelimit import SLACK, Limiter
from ..errors import RateLimited, SpendExceeded
from .charge import CHARGES, Charge, amount, charge_of
from .key import MAX_KEYS, Key, check_key, finder
from .listening import Listening
from .shown import shown
from .turns import Turns

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner
    from .pipeline import Pipeline

__all__ = ["RateLimit"]

logger = logging.getLogger("resilient")
Bucket = Limiter | Quota
SUCCESS = Outcome.SUCCESS


class RateLimit:
    """Send no faster than agreed, and slow down when the server says so.

    No more than `burst` calls go at once, and then one every `per / rate` seconds: in any stretch of w seconds at most
    burst + w x rate / per (the Generic Cell Rate Algorithm, ITU-T I.371). It counts what passes it: outside a `Retry`
    whole calls, inside one each attempt.

    Args:
        rate: calls, or units of `cost`, that go in `per` seconds.
        per: seconds.
        burst: what may go at once after a pause; by default as much as `rate`, and a call at least.
        max_wait: seconds that a call may wait for its turn, first come, first served; 0 rejects at once. A call that
            would wait beyond its deadline is rejected at once, too.
        cost: what a call costs, if not 1: a number, or a function of the call's arguments (the request, for HTTP).
            `charge()` is then the handle to correct it by.
        settle: a function of what the call returned (the response, its body unread, for HTTP) that says what it really
            cost; None leaves the cost as it was.
        key: "route", "origin", "partition" or a function of the call's arguments; each key has a limit of its own.
        max_keys: how many keys are told apart; beyond, one at rest is forgotten, or else the one used least recently,
            which then begins anew. A hard limit forgets none that has spent: it refuses new keys.
        hard: True makes it a spend guard: in any stretch of `per` seconds no more than `rate` is spent; over it calls
            are rejected with SpendExceeded and never wait.
        learn: what to believe of the server: "all" of Retry-After on 429 and 503, `RateLimit` and `X-RateLimit` fields;
            "retry-after" alone; "nothing". It holds for all calls of the same key. A hard limit learns nothing.
        max_pushback: seconds; whatever a server says is believed for no longer.
        enforce: False counts and reports what would have been rejected, and lets it through.

    Attributes:
        settle_errors: times that `settle` failed; the cost then stays as it was.

    Raises:
        RateLimited: from the call. The reason is rate, pushback (the server's word), deadline (it would have had to wait
            beyond it) or cost (more than `burst`: it could never go); `retry_after` says when it could go.
        SpendExceeded: from the call, where `hard`. The reason is spent, cost, or keys.
        TypeError, ValueError: from the constructor, naming the parameter; from the call, where `cost` or `key` fail.
    """

    __slots__ = (
        *("_bucket", "_charged", "_clock", "_cost", "_ears", "_given", "_key", "_keyed", "_lock", "_longest", "_settle", "_turns"),
        *("burst", "enforce", "hard", "max_wait", "per", "rate", "settle_errors"),
    )

    def __init__(
        self,
        rate: float,
        per: float = 1.0,
        *,
        burst: float | None = None,
        max_wait: float = 0.0,
        cost: float | Callable[..., float] | None = None,
        settle: Callable[[Any], float | None] | None = None,
        key: Key | None = None,
        max_keys: int = MAX_KEYS,
        hard: bool = False,
        learn: Literal["all", "retry-after", "nothing"] = "all",
        max_pushback: float = 60.0,
        enforce: bool = True,
    ) -> None:
        positive("rate", rate)
        positive("per", per)
        not_negative("max_wait", max_wait)
        whole("max_keys", max_keys)
        flag("hard", hard)
        one_of("learn", learn, ("all", "retry-after", "nothing"))
        positive("max_pushback", max_pushback)
        flag("enforce", enforce)
        if settle is not None and not callable(settle):
            raise TypeError(f"settle: expected a function, got {settle!r}")
        if key is not None:
            check_key(key)
        if cost is not None and not callable(cost):
            amount("cost", cost)
        if hard and max_wait:
            raise ValueError(f"max_wait: a hard limit never waits, got {max_wait!r}")
        self.rate: float = rate
        self.per: float = per
        self.burst: float = _burst(rate, burst, cost, hard=hard)
        self.max_wait: float = max_wait
        self.hard: bool = hard
        self.enforce: bool = enforce
        self.settle_errors: int = 0
        self._cost, self._settle = cost, settle
        self._key: Callable[[Call], Hashable] | None = None if key is None else finder(key)
        self._given = {"cost": cost, "settle": settle, "key": key, "max_keys": max_keys, "hard": hard, "learn": learn}
        self._charged = cost is not None or settle is not None
        self._lock = threading.Lock()
        make: Callable[[], Bucket] = functools.partial(Quota, rate, per) if hard else functools.partial(Limiter, rate, per, self.burst)
        self._bucket = make()
        self._keyed: Keyed[Bucket] = Keyed(make, max_keys, forgetful=not hard)
        self._turns = Turns(self._lock)
        self._ears = None if hard or learn == "nothing" else Listening(self._turns, max_pushback, fields=learn == "all")
        self._longest = max_pushback
        self._clock: Clock = SYSTEM_CLOCK

    def __repr__(self) -> str:
        own = {"rate": self.rate, "per": self.per, "burst": self.burst, "max_wait": self.max_wait}
        if self.burst == _burst(self.rate, None, self._cost, hard=self.hard):
            del own["burst"]
        return shown(self, **own, **self._given, max_pushback=self._longest, enforce=self.enforce)

    changeable: ClassVar[frozenset[str]] = frozenset({"rate", "per", "burst", "max_wait", "enforce"})
    """Settings that `taking` can change at work."""

    def taking(self, other: RateLimit, names: Collection[str]) -> Callable[[], None]:
        """What takes the settings named over from `other`; what went, who waits and what servers have said stay.

        Raises:
            ValueError: the rate is that of a hard limit or of calls that cost more or less than one: it cannot change at work.
        """
        retuned = not {"rate", "per", "burst"}.isdisjoint(names)
        if retuned and (self.hard or self._cost is not None):
            raise ValueError("rate: that of a hard limit, or of one with a cost, cannot change at work")

        def take() -> None:
            for name in names:
                if name in ("max_wait", "enforce"):
                    setattr(self, name, getattr(other, name))
            if retuned:
                self._retune(other.rate, other.per, other.burst)

        return take

    def _retune(self, rate: float, per: float, burst: float) -> None:
        now = self._clock.now()
        woken: list[tuple[Bucket, Any]] = []
        with self._lock:
            self.rate, self.per, self.burst = rate, per, burst
            self._keyed.make = functools.partial(Limiter, rate, per, burst)
            for bucket in (self._bucket, *self._keyed.states()):
                if isinstance(bucket, Limiter):
                    bucket.meter.tune(rate, per, burst)
                    woken.append((bucket, bucket.advance(now)))
        for bucket, places in woken:
            self._turns.wake(bucket, places, now)

    @property
    def garbage(self) -> int:
        """Fields of servers that could not be understood."""
        return 0 if self._ears is None else self._ears.garbage

    @property
    def forgotten(self) -> int:
        """Keys that were forgotten for want of room although they were not at rest."""
        return self._keyed.forgotten

    def charge(self, answer: Any = None) -> Charge:
        """The charge of a call, to be settled: inside a function that is called under this limit, the present call's.

        Where there is none, because the call was answered by a fallback or policies are switched off, it is one whose
        `settle` changes nothing.

        Args:
            answer: an HTTP response; then the charge of the request that it answers.
        """
        return charge_of(self, answer)

    # -- the policy -----------------------------------------------------------------------------------------------

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        return self.link(inner)(call)

    def link(self, inner: Inner) -> Inner:
        """`run` for one place in one pipeline; where all calls cost the same, one that may go pays for little."""
        bucket, learns = self._bucket, self._ears is not None
        try_take: Callable[[float, float], Any] = bucket.try_take
        acquire, release = self._lock.acquire, self._lock.release

        def step(call: Call) -> Awaitable[Any]:
            now = call.runtime.now()
            # `with` looks a lock's methods up on its type each time, and takes more than twice as long.
            acquire()
            try:
                ticket = try_take(1.0, now)
            finally:
                release()
            if ticket is None or (learns and call.headed):
                return self._run(call, inner, bucket, 1.0, ticket)
            call.held.append((self, (call, ticket, call.attempts)))
            return inner(call)

        def charged(call: Call) -> Awaitable[Any]:
            bucket, cost = self._asked(call)
            with self._lock:
                ticket = None if bucket is None else bucket.try_take(cost, call.runtime.now())
            return self._run(call, inner, bucket, cost, ticket)

        return charged if self._charged or self._key is not None else step

    def _asked(self, call: Call) -> tuple[Bucket | None, float]:
        """Whose limit a call falls under, None if there is no room for its key; and what it costs."""
        bucket: Bucket | None = self._bucket
        cost = 1.0
        try:
            if callable(self._cost):
                args, kwargs = call.arguments()
                cost = amount("cost", self._cost(*args, **kwargs))
            elif self._cost is not None:
                cost = float(self._cost)
            if self._key is not None:
                key = self._key(call)
                with self._lock:
                    bucket = self._keyed.get(key, call.runtime.now())
        except Exception as error:
            call.ignore(error)  # a mistake of the program's, which says nothing of the dependency
            raise
        return bucket, cost

    async def _run(self, call: Call, inner: Inner, bucket: Bucket | None, cost: float, ticket: Any) -> Any:
        if ticket is None:
            ticket = await self._wait(call, bucket, cost) if self.enforce else self._watch(call, bucket, cost)
        charge = Charge() if ticket is None else Charge(cost, bucket, self, call, ticket, call.attempts)
        if ticket is not None:
            call.held.append((self, charge))
        if self._ears is not None and call.headed and isinstance(bucket, Limiter):
            self._ears.attend(call, bucket)
        if not self._charged:
            return await inner(call)
        outer = CHARGES.set((self, charge, CHARGES.get()))
        try:
            result = await inner(call)
        finally:
            CHARGES.reset(outer)
        if call.degraded is None:
            call.attach(result, self, charge)
            if self._settle is not None and not call.streamed:
                self._settle_by(result, charge)
        return result

    async def _wait(self, call: Call, bucket: Bucket | None, cost: float) -> Any:
        """Wait for the call's turn. Returns its ticket.

        Raises:
            RateLimited, SpendExceeded: it does not come, or not in time.
        """
        runtime = call.runtime
        now = runtime.now()
        max_wait = self.max_wait if self.max_wait and runtime.may_wait() else 0.0
        if isinstance(bucket, Limiter) and max_wait > 0:
            latest = min(now + max_wait, call.deadline - call.min_useful)
            ticket = await self._turns.wait(bucket, cost, runtime, latest)
            if ticket is not None:
                return ticket
            now, max_wait = runtime.now(), max(now + max_wait - runtime.now(), 0.0)
        reason, retry_after = self._why(call, bucket, cost, now, max_wait)
        raise call.reject(
            SpendExceeded if self.hard else RateLimited,
            f"the limit of {self.rate:g} in {self.per:g} s is reached ({reason})",
            policy="ratelimit",
            reason=reason,
            retry_after=retry_after,
        )

    def _watch(self, call: Call, bucket: Bucket | None, cost: float) -> Any:
        """Shadow mode: the ticket of a call that would have been let go, if late; None for one that would not."""
        now = call.runtime.now()
        with self._lock:
            if bucket is not None and bucket.when(cost, now) <= min(now + self.max_wait, call.deadline - call.min_useful) + SLACK:
                return bucket.take(cost, now)
        reason, _ = self._why(call, bucket, cost, now, self.max_wait)
        call.report_rejection("ratelimit", reason, enforced=False)
        return None

    def _why(self, call: Call, bucket: Bucket | None, cost: float, now: float, max_wait: float) -> tuple[str, float | None]:
        """Why a call may not go, in a word, and the seconds after which it might."""
        if bucket is None:
            return "keys", None
        with self._lock:
            at = bucket.when(cost, now)
            held_back = isinstance(bucket, Limiter) and bucket.held_back(cost, now)
        if cost > bucket.capacity:
            return "cost", None
        wait = max(at - now, 0.0)
        if self.hard:
            return "spent", None if wait == math.inf else wait
        if max_wait > 0 and wait <= max_wait + SLACK:
            return "deadline", wait
        return ("pushback" if held_back else "rate"), wait

    # -- afterwards -----------------------------------------------------------------------------------------------

    def settle(self, token: Any, outcome: Outcome, now: float, error: BaseException | None) -> float | None:
        if outcome is SUCCESS:
            return None
        charge = token if type(token) is Charge else Charge(1.0, self._bucket, self, *token)
        call, bucket = charge.call, charge.bucket
        if call.turned_away(error) and call.attempts == charge.attempts:
            self._correct(charge, 0.0, unsent=True)  # another policy refused it before anything was sent
        elif error is not None and self._ears is not None:
            self._ears.hear(call, bucket, None, error)
        if self._ears is None or not self.enforce or bucket.not_before <= now + self.max_wait:
            return None
        return bucket.not_before - self.max_wait  # type: ignore[no-any-return]

    def _correct(self, charge: Charge, actual: float, *, unsent: bool = False) -> None:
        """Make a charge what the call really came to; `Charge.settle` is how programs say it."""
        bucket, now = charge.bucket, charge.call.runtime.now()
        with self._lock:
            charge.book(actual, now, unsent=unsent)
            woken = bucket.advance(now) if isinstance(bucket, Limiter) else []
        self._turns.wake(bucket, woken, now)

    def _settle_by(self, result: Any, charge: Charge) -> None:
        assert self._settle is not None
        try:
            actual = self._settle(result)
            if actual is not None:
                charge.settle(actual)
        except Exception:
            # The answer is there, and it is the caller's; the cost stays as it was.
            self.settle_errors += 1
            if self.settle_errors == 1:
                logger.exception("settle, given to a RateLimit, failed; further failures are only counted")

    def push_back(self, seconds: float, key: Hashable = None) -> None:
        """Let nothing go for so many seconds (`max_pushback` at the most): for servers that say so in a way of their own.

        A hard limit takes no notice.

        Args:
            seconds: from now on.
            key: whose limit, where there is one for each key.

        Raises:
            TypeError, ValueError: `seconds` is no number above 0.
        """
        positive("seconds", seconds)
        now = self._clock.now()
        with self._lock:
            bucket = self._bucket if self._key is None else self._keyed.get(key, now)
            if isinstance(bucket, Limiter):
                bucket.push_back(now + min(seconds, self._longest))

    def join(self, owner: Pipeline) -> None:
        """Tell the time by the clock of `owner`."""
        self._clock = owner.clock

    def reset(self) -> None:
        """Forget all that went, and all that servers have said."""
        bucket, now = self._bucket, self._clock.now()
        with self._lock:
            bucket.reset()
            self._keyed.clear()
            woken = bucket.advance(now) if isinstance(bucket, Limiter) else []
        self._turns.wake(bucket, woken, now)


def _burst(rate: float, burst: float | None, cost: Any, *, hard: bool) -> float:
    if burst is None:
        burst = rate if hard or cost is not None else max(rate, 1.0)
    elif hard:
        raise ValueError(f"burst: a hard limit has none, it lets `rate` go in any stretch of `per` seconds; got {burst!r}")
    positive("burst", burst)
    least = 1.0 if cost is None else 0.0 if callable(cost) else float(cost)
    if burst < least:
        raise ValueError(f"{'rate' if hard else 'burst'}: {burst!r} is less than what a call costs, {least!r}: none could ever go")
    return burst
