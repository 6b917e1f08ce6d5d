"""Circuit breakers of Polly, resilience4j, linkerd, Hystrix, cockatiel, gobreaker, semian, opossum and failsafe-go.

Each record's settings are translated into ours; its steps are played, and what it expects is read, from the data.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from resilient.core.health import Health
from resilient.core.outcome import Outcome
from resilient.core.rules import Rules
from resilient.core.window import CountWindow, TimeWindow

from .circuit import Circuit, outcome_of
from .records import Record, records

FAILURE, SUCCESS = Outcome.FAILURE, Outcome.SUCCESS
Settings = dict[str, Any]


def seconds_of(text: str) -> float:
    """`time 20 s` is 20."""
    return float(re.search(r"[\d.]+", text)[0])  # type: ignore[index]


# -- settings -----------------------------------------------------------------------------------------------------------


def backing_off(config: Settings) -> Settings:
    """linkerd: a break that doubles, one probe."""
    backoff = config["backoff"]
    assert backoff.get("multiplier", 2) == 2
    failures = config.get("max_failures") or config["max_consecutive_failures"]
    return {"fail_max": failures, "break_time": backoff["base"], "max_break": backoff["max"], "jitter": backoff["jitter"], "trials": 1}


def hystrix(config: Settings) -> Settings:
    rate, wait = config["error_threshold_pct"] / 100, config.get("sleep_window", 5)
    return {"failure_rate": rate, "minimum_calls": config["volume_threshold"], "reset_timeout": wait, "trials_": 1}


def sampled(config: Settings, trials: int, rate: float) -> Settings:
    return {"trials": trials, "trial_failure_rate": rate, "initial_state": "half-open"}


SETTINGS: dict[str, Callable[[Settings], Settings]] = {
    "cb-breakgen-01": lambda c: {
        "failure_rate": c["failure_ratio"],
        "minimum_calls": c["min_throughput"],
        "window": c["sampling"],
        "break_time": c["break_duration"],
        "max_break": c["break_duration"],
        "break_for": lambda number, reason: seconds_of(c["break_duration_generator"]),
        "trials": c["half_open_probes"],
    },
    "cb-ratio-04": lambda c: {
        "failure_rate": c["failure_rate_threshold_pct"] / 100,
        "minimum_calls": c["min_calls"],
        "window": seconds_of(c["window"]),
    },
    "cb-ratio-07": lambda c: {
        "failure_rate": c["threshold"],
        "minimum_calls": c["min_calls"],
        "count_window": int(seconds_of(c["window"])),
    },
    "cb-ratio-09": hystrix,
    "cb-ratio-11": hystrix,
    "cb-half-12": hystrix,
    "cb-ratio-13": lambda c: {"failure_rate": c["error_threshold_pct"] / 100, "minimum_calls": c["volume_threshold"]},
    "cb-consec-04": backing_off,
    "cb-window-09": lambda c: {
        "failure_rate": 1 - c["success_threshold"],
        "minimum_calls": c["min_requests"],
        "window": c["window"],
    },
    "cb-slow-01": lambda c: {
        "slow_call": c["slow_duration"],
        "slow_rate": c["slow_rate_threshold_pct"] / 100,
        "failure_rate": c["failure_rate_threshold_pct"] / 100,
        "minimum_calls": c["min_calls"],
        "window": seconds_of(c["window"]),
    },
    "cb-half-01": lambda c: sampled(c, c["half_open_permits"], 0.5),
    "cb-half-03": lambda c: {"trials": c["half_open_probes"], "reset_timeout": c["break_duration"]},
    "cb-half-05": lambda c: sampled(c, c["half_open_permits"], c["failure_rate_threshold_pct"] / 100),
    # The source opens above its threshold, we open at ours: that is one trial more.
    "cb-half-07": lambda c: {
        "trials": c["half_open_calls"],
        "trial_failure_rate": c["half_open_failure_threshold"] + 1 / c["half_open_calls"],
        "reset_timeout": c["half_open_after"],
    },
    "cb-ignore-01": lambda c: sampled(c, c["half_open_permits"], c["failure_rate_threshold_pct"] / 100),
    "cb-429-01": backing_off,
    "cb-429-03": backing_off,
    "cb-breakgen-04": lambda c: {
        "fail_max": int(c["trip"].split()[0]),
        "trials": 1,
        "break_for": lambda number, reason: c["half_open_after"][min(number, len(c["half_open_after"])) - 1],
    },
    "cb-breakgen-06": lambda c: {
        "fail_max": c["error_threshold"],
        "trials": c["success_threshold"],
        "break_time": c["initial_timeout"],
        "max_break": c["max_timeout"],
        "jitter": 0.0,
    },
    "cb-manual-01": lambda c: {"reset_timeout": c["break_duration"]},
    "cb-manual-05": lambda c: {"reset_timeout": c["wait_open"]},
}


def circuit_of(record: Record) -> Circuit:
    settings = SETTINGS[record["id"]](record["config"])
    if "trials_" in settings:
        settings["trials"] = settings.pop("trials_")
    circuit = Circuit(**settings)
    if record["config"].get("start_state") == "open at t=0":
        circuit.breaker.trip()
    return circuit


# -- steps --------------------------------------------------------------------------------------------------------------


def play(circuit: Circuit, step: dict[str, Any]) -> bool | None:
    """One step; returns whether what it asked for was admitted."""
    op = step["op"]
    if op in ("call", "record"):
        outcome = outcome_of(step["outcome"])
        if step.get("late"):
            circuit.come_late(outcome)
            return None
        act = circuit.call if op == "call" else circuit.record
        admitted = [act(outcome, step.get("dur", 0.0)) for _ in range(step.get("repeat", 1))]
        return all(admitted)
    if op == "acquire":
        return circuit.acquire(step["id"])
    if op == "release":
        circuit.release(step["id"])
    elif op == "isolate":
        circuit.breaker.open()
    elif op == "close":
        circuit.breaker.close()
    elif op == "open_for":
        circuit.breaker.reset_timeout = step["duration"]
        circuit.breaker.trip()
    else:
        assert op == "read", op
    return None


def check(circuit: Circuit, expected: dict[str, Any], admitted: bool | None) -> None:
    for what, value in expected.items():
        seen = admitted if what == "permitted" else circuit.read(what, value)
        assert seen == value, what


def steps(record: Record) -> None:
    circuit = circuit_of(record)
    for step in record["sequence"]:
        circuit.at(step["t"])
        admitted = play(circuit, step)
        check(circuit, step.get("expect", {}) | step.get("expect_last", {}), admitted)
    if "final_state" in record["expected"]:
        assert circuit.state == record["expected"]["final_state"]


def reset_of_breaks(record: Record) -> None:
    """After closing, the first break is as short as the first one ever."""
    steps(record)
    circuit = circuit_of(record)
    for pause in record["config"]["half_open_after"]:
        while circuit.call(FAILURE):
            pass
        assert circuit.retry_after == pause
        circuit.clock.advance(pause)
    assert circuit.call(SUCCESS) and circuit.state == "closed"
    while circuit.call(FAILURE):
        pass
    assert circuit.retry_after == record["config"]["half_open_after"][0]


def series(record: Record) -> None:
    (step,) = record["sequence"]
    circuit = circuit_of(record)
    circuit.at(step["t"])
    states = [circuit.state for outcome in step["outcomes"] if circuit.call(outcome_of(outcome))]
    assert len(states) == len(step["outcomes"])
    assert set(states[:-1]) == {step["expect"]["all_but_last"]} and states[-1] == step["expect"]["final"]
    assert circuit.moves("half-open") == step["expect"]["half_open_events"]


def bursts(record: Record) -> None:
    for step in record["sequence"]:
        circuit = circuit_of(record)
        tripped = None
        for number in range(1, step["n"] + 1):
            circuit.record(outcome_of(step["outcome"]))
            tripped = tripped or (number if circuit.state == "open" else None)
            circuit.clock.advance(step["spacing"])
        assert tripped == step["expect"]["trips_at_sample"]


def k_of_n(record: Record) -> None:
    for step in record["sequence"]:
        k, n = record["config"][step["breaker"]]["k"], record["config"][step["breaker"]]["n"]
        circuit = Circuit(count_window=n, minimum_calls=n, failure_rate=k / n)
        states = []
        for outcome in step["outcomes"]:
            circuit.record(outcome_of(outcome))
            states.append(circuit.state)
        expect = step["expect"]
        assert states == expect["states"] if "states" in expect else set(states) == {expect["all_states"]}


def generator(record: Record) -> None:
    """The number of the break, which for us begins with 1."""
    seen: list[int] = []
    circuit = Circuit(trials=1, break_for=lambda number, reason: seen.append(number) or 1.0)  # type: ignore[func-returns-value]
    (step,) = record["sequence"]
    for part in step["pattern"].split(", "):
        cycles = re.fullmatch(r"(\d) x \(open", part)
        if cycles is None:
            continue
        for cycle in range(int(cycles[1])):
            circuit.breaker.trip("forced") if cycle == 0 and circuit.state == "closed" else circuit.call(FAILURE)
            assert circuit.state == "open"
            circuit.clock.advance(1.0)
        assert circuit.call(SUCCESS) and circuit.state == "closed"
    assert [number - 1 for number in seen] == step["expect"]["half_open_attempts_seen"]


# -- rules and windows by themselves ------------------------------------------------------------------------------------


def rule(record: Record) -> None:
    """What the rule says, without the circuit that it opens."""
    config = record["config"]
    if "trip" in config:
        health = Health(Rules(consecutive=int(config["trip"].split()[-1])))
        for step in record["sequence"]:
            outcome = outcome_of(step["outcome"])
            health.note(outcome, False, 0.0, None)
            if "expect" in step:
                assert (health.broken_rule(outcome, False, 0.0) is not None) is step["expect"]["opens"]
        return
    for step in record["sequence"]:
        health = Health(Rules(minimum_calls=config["min_throughput"], failure_rate=config["failure_ratio"]))
        failures = round(step["throughput"] * step["failure_rate"])
        for number in range(step["throughput"]):
            health.note(FAILURE if number < failures else SUCCESS, False, 0.0, None)
        broken = failures > 0 and health.broken_rule(FAILURE, False, 0.0) is not None
        assert broken is step["expect"]["opens"], step


def window(record: Record) -> None:
    config = record["config"]
    seen, last = window_of(config), 0.0
    for step in record["sequence"]:
        now = step["t"] or 0.0
        if step["op"] == "record_series":
            for outcome in "FSS" * step["i"]:
                seen.record(now, outcome == "F", False)
        elif step["op"] == "record":
            for _ in range(step.get("repeat", 1)):
                seen.record(now, step["outcome"] == "failure", step.get("slow", False))
        last = now if step["op"] != "read" else last
        # The one source that does not move its window on when it is read says so.
        frozen = "reading at 7 does not roll" in record.get("note", "")
        for what, value in step.get("expect", {}).items():
            if what not in UNKEPT:
                assert COUNTS[what](*seen.totals(last if frozen else now)) == value, (step, what)
    if record["id"] == "cb-window-03":
        assert record["expected"]["also"] == "the same at 10.001 s"
        assert seen.totals(10.001) == (0, 0, 0)


def window_of(config: Settings) -> TimeWindow | CountWindow:
    text = str(config.get("window"))
    if text.startswith("count"):
        return CountWindow(int(seconds_of(text)))
    if "buckets of 1 s" in text:
        return TimeWindow(seconds_of(text), int(seconds_of(text)))
    return TimeWindow(config.get("sampling") or config.get("duration") or config["window"], config.get("buckets") or config["windows"])


UNKEPT = {"buckets", "slow_failed", "slow_succeeded", "total_duration", "average_duration"}  # we count, and keep no sums of time
COUNTS: dict[str, Callable[[int, int, int], float]] = {
    "throughput": lambda calls, failures, slow: calls,
    "total": lambda calls, failures, slow: calls,
    "failures": lambda calls, failures, slow: failures,
    "failed": lambda calls, failures, slow: failures,
    "successes": lambda calls, failures, slow: calls - failures,
    "succeeded": lambda calls, failures, slow: calls - failures,
    "slow": lambda calls, failures, slow: slow,
    "rate": lambda calls, failures, slow: failures / calls if calls else 0,
    "rate_pct": lambda calls, failures, slow: 100 * failures / calls,
    "slow_rate_pct": lambda calls, failures, slow: 100 * slow / calls,
}

RUNNERS: dict[str, Callable[[Record], None]] = {
    "cb-ratio-01": rule,
    "cb-consec-02": rule,
    "cb-kofn-01": k_of_n,
    "cb-half-07": series,
    "cb-window-09": bursts,
    "cb-breakgen-02": generator,
    "cb-breakgen-04": reset_of_breaks,
}


@pytest.mark.parametrize("record", records("cb"))
def test_record(record: Record) -> None:
    by_itself = record["id"].startswith("cb-window")
    RUNNERS.get(record["id"], window if by_itself else steps)(record)
