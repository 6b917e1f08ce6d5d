"""The page of several workers: in real processes where it is about processes, else in this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import values as prometheus_values
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from resilient.events import CallRejected, CheckChanged, CircuitChanged, DeadlinePassed, FeatureChanged, ResponseAbandoned
from resilient.telemetry import families
from resilient.telemetry.prometheus import Metrics
from resilient.telemetry.workers import identify, sweep_dead

Read = Callable[[Metrics], dict[tuple[str, tuple[tuple[str, str], ...]], float]]

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="start times of processes are read from /proc")
posix = pytest.mark.skipif(os.name != "posix", reason="needs signals and fork")


def name(metric: str, **label_values: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return metric, tuple(sorted(label_values.items()))


CLOSED, OPEN, HALF_OPEN = (name("resilient_breaker_state", dependency="catalog", state=s) for s in ("closed", "open", "half-open"))
IN_USE = name("resilient_bulkhead_in_use", dependency="catalog")
BUDGET = name("resilient_budget_remaining_ratio", dependency="catalog")
SUCCESSES = name("resilient_calls_total", dependency="catalog", outcome="success")
ORDERS = name("resilient_requests_total", route="/orders/{order_id}", method="GET", status="2xx")
REJECTIONS = name("resilient_rejections_total", dependency="catalog", policy="breaker", reason="outage")


class Worker:
    """A process with metrics of its own."""

    def __init__(self, directory: Path) -> None:
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py"))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, f"the worker ended with {self.process.wait(10)} on {line!r}"
        return json.loads(answer)

    def scrape(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        families = text_string_to_metric_families(self.tell("scrape"))
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    workers: list[Worker] = []

    def start_one() -> Worker:
        workers.append(Worker(tmp_path))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.end()


def two(start: Callable[[], Worker]) -> tuple[Worker, Worker]:
    one, other = start(), start()  # both at once, then each is waited for
    for worker in (one, other):
        worker.tell("scrape")
    return one, other


# -- real processes ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ground_51_two_workers_sum(start: Callable[[], Worker]) -> None:
    one, other = two(start)
    for worker, calls in ((one, 3), (other, 2)):
        for _ in range(calls):
            worker.tell("call success 0.02")
    one.tell("call failure 7")
    other.tell("reject")
    one.tell("budget 0.25")
    one.tell("reject")
    other.tell("reject")
    one.scrape()  # its budget is written when it is asked itself
    page = other.scrape()
    assert page == one.scrape()
    assert page[SUCCESSES] == 5
    assert page[name("resilient_calls_total", dependency="catalog", outcome="failure")] == 1
    assert page[name("resilient_call_duration_seconds_count", dependency="catalog")] == 6
    assert page[name("resilient_call_duration_seconds_bucket", dependency="catalog", le="0.025")] == 5
    assert page[name("resilient_call_duration_seconds_sum", dependency="catalog")] == pytest.approx(7.1)
    assert page[REJECTIONS] == 3
    assert page[IN_USE] == 4
    assert page[BUDGET] == 0.25
    assert (page[CLOSED], page[OPEN], page[HALF_OPEN]) == (2, 0, 0)
    assert page[name("resilient_feature_level", feature="prices", level="full")] == 2
    assert not any("pid" in dict(labels) for _, labels in page)


@pytest.mark.slow
def test_ground_51_the_requests_of_two_workers_sum(start: Callable[[], Worker]) -> None:
    one, other = two(start)
    for worker, served in ((one, 3), (other, 2)):
        for _ in range(served):
            worker.tell("request /orders/{order_id} GET 2xx 0.02")
    other.tell("request /orders/{order_id} POST 5xx 7")
    one.tell("request unmatched GET 4xx 0.001")
    page = one.scrape()
    assert page == other.scrape()
    assert page[ORDERS] == 5
    assert page[name("resilient_requests_total", route="/orders/{order_id}", method="POST", status="5xx")] == 1
    assert page[name("resilient_requests_total", route="unmatched", method="GET", status="4xx")] == 1
    assert page[name("resilient_request_duration_seconds_bucket", route="/orders/{order_id}", le="0.025")] == 5
    assert page[name("resilient_request_duration_seconds_count", route="/orders/{order_id}")] == 6
    assert page[name("resilient_request_duration_seconds_sum", route="/orders/{order_id}")] == pytest.approx(7.1)


@pytest.mark.slow
def test_ground_51_what_happens_in_one_worker_is_told_by_the_other_at_once(start: Callable[[], Worker]) -> None:
    one, other = two(start)
    one.tell("call success 0.02")
    one.tell("open")
    one.tell("degrade")
    page = other.scrape()
    assert page[SUCCESSES] == 1
    assert (page[CLOSED], page[OPEN], page[HALF_OPEN]) == (1, 1, 0)
    assert page[name("resilient_feature_level", feature="prices", level="static")] == 1
    assert (
        page[name("resilient_breaker_transitions_total", **{"dependency": "catalog", "from": "closed", "to": "open", "reason": "outage"})]
        == 1
    )


@posix
@pytest.mark.slow
def test_ground_52_a_killed_worker_is_not_counted(start: Callable[[], Worker]) -> None:
    survivor, victim = two(start)
    victim.tell("call success 0.02")
    victim.tell("open")
    assert survivor.scrape()[OPEN] == 1
    victim.process.send_signal(signal.SIGKILL)
    victim.process.wait(10)
    page = survivor.scrape()
    assert (page[CLOSED], page[OPEN], page[HALF_OPEN]) == (1, 0, 0)
    assert page[IN_USE] == 2
    assert page[SUCCESSES] == 1  # its calls were made
    assert page[BUDGET] == 0.5


@linux
@pytest.mark.slow
def test_ground_52_a_killed_worker_that_nobody_has_waited_for_is_not_counted(start: Callable[[], Worker]) -> None:
    survivor, victim = two(start)
    victim.process.send_signal(signal.SIGKILL)
    # Returns once it is dead and leaves it a zombie, which a signal still finds.
    os.waitid(os.P_PID, victim.process.pid, os.WEXITED | os.WNOWAIT)
    os.kill(victim.process.pid, 0)
    assert survivor.scrape()[CLOSED] == 1


@posix
@pytest.mark.slow
def test_a_worker_that_was_forked_off_counts_for_itself(start: Callable[[], Worker]) -> None:
    loaded, other = two(start)
    loaded.tell("call success 0.02")
    before = loaded.process.pid
    assert loaded.tell("fork") != before
    loaded.tell("call success 0.02")  # and by this has become a worker of its own
    page = other.scrape()
    assert page[SUCCESSES] == 2
    assert page[CLOSED] == 3  # the parent is there too
    loaded.tell("open")
    page = other.scrape()
    assert (page[CLOSED], page[OPEN]) == (2, 1)


# -- which processes are there ----------------------------------------------------------------------------------------


@pytest.fixture
def somebody() -> Iterator[int]:
    """A process that is alive and has nothing to do with metrics."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate(b"\n", timeout=10)


def gauge_files(directory: Path, *pids: int) -> None:
    for pid in (os.getpid(), *pids):
        (directory / f"gauge_livesum_{pid}.db").touch()


def finished() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(10)
    return process.pid


@posix
def test_files_of_the_dead_go_and_others_stay(tmp_path: Path, somebody: int) -> None:
    dead = finished()
    gauge_files(tmp_path, somebody, dead)
    others = [f"counter_{dead}.db", f"gauge_sum_{dead}.db", f"gauge_livesum_{somebody}.db", f"gauge_livesum_{os.getpid()}.db"]
    for other in others:
        (tmp_path / other).touch()
    assert sweep_dead(tmp_path) == [dead]
    assert {path.name for path in tmp_path.iterdir()} == set(others)
    assert sweep_dead(tmp_path) == []


@linux
def test_a_process_that_has_got_the_number_of_a_dead_worker_is_not_taken_for_it(tmp_path: Path, somebody: int) -> None:
    gauge_files(tmp_path, somebody)
    born = tmp_path / f"resilient_{somebody}.started"
    for noted in (Path(f"/proc/{somebody}/stat").read_text().rpartition(")")[2].split()[19], ""):  # itself; just being written
        born.write_text(noted)
        assert sweep_dead(tmp_path) == []
    born.write_text("1")
    assert sweep_dead(tmp_path) == [somebody]
    assert not born.exists()


@linux
def test_a_worker_is_known_by_when_it_started(tmp_path: Path) -> None:
    identify(tmp_path)
    (born,) = tmp_path.iterdir()
    assert born.name == f"resilient_{os.getpid()}.started"
    assert int(born.read_text()) > 0


@linux
def test_a_zombie_is_dead(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    gauge_files(tmp_path, process.pid)
    assert sweep_dead(tmp_path) == [process.pid]
    process.wait(10)


@posix
def test_where_start_times_are_not_to_be_had_a_number_in_use_is_believed(
    tmp_path: Path, somebody: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text

    def without_proc(path: Path) -> str:
        if path.parts[1] == "proc":
            raise FileNotFoundError(path)
        return read_text(path)

    gauge_files(tmp_path, somebody)
    (tmp_path / f"resilient_{somebody}.started").write_text("1")
    monkeypatch.setattr(Path, "read_text", without_proc)
    identify(tmp_path)
    assert not (tmp_path / f"resilient_{os.getpid()}.started").exists()
    assert sweep_dead(tmp_path) == []


def test_files_that_are_not_named_by_processes_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "gauge_livesum_3.db").touch()  # a server's own numbering; this process has no file by its number
    (tmp_path / f"gauge_livesum_{finished()}.db").touch()
    assert sweep_dead(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 2


@posix
def test_a_process_of_somebody_else_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    gauge_files(tmp_path, finished())
    monkeypatch.setattr(os, "kill", refuse)
    assert sweep_dead(tmp_path) == []


def test_without_a_way_to_ask_everybody_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gauge_files(tmp_path, finished())
    with monkeypatch.context() as patched:
        patched.setattr("resilient.telemetry.workers.os.name", "nt")
        dead = sweep_dead(tmp_path)
    assert dead == []


# -- one worker, in this process --------------------------------------------------------------------------------------


def test_calls_events_and_states_are_written(worker_files: Path, parts: Any, samples: Read) -> None:
    catalog, prices, disk = parts.dependency("catalog"), parts.feature("prices"), parts.check("disk", "unknown")
    source = parts.source(catalog, features=(prices,), checks=(disk,))
    metrics = Metrics(source)
    page = samples(metrics)
    assert (page[CLOSED], page[OPEN], page[SUCCESSES]) == (1, 0, 0)
    assert page[name("resilient_deadline_exceeded_total", side="inbound")] == 0
    assert page[name("resilient_events_dropped_total")] == 0
    catalog.stats.record("success", 0.02, 0.0)
    catalog.stats.record("rejected", None, 0.0)
    metrics.on_event(CallRejected(at=0.0, dependency="catalog", policy="breaker", reason="outage"))
    metrics.on_event(DeadlinePassed(at=0.0, side="inbound", limit="inbound"))
    metrics.on_event(ResponseAbandoned(at=0.0, dependency="catalog"))
    prices.level = "off"
    metrics.on_event(FeatureChanged(at=0.0, feature="prices", old="full", new="off", cause="outage"))
    metrics.count_request("/orders/{order_id}", "GET", "2xx", 0.02)
    metrics.count_check("disk", "ill")
    disk.state = "ill"
    metrics.on_event(CheckChanged(at=0.0, check="disk", old="unknown", new="ill"))
    source.outbox.dropped = 3
    for _ in range(2):  # a second scrape adds nothing
        page = samples(metrics)
        assert page[SUCCESSES] == 1
        assert page[name("resilient_calls_total", dependency="catalog", outcome="rejected")] == 1
        assert page[name("resilient_call_duration_seconds_count", dependency="catalog")] == 1
        assert page[REJECTIONS] == 1
        assert page[ORDERS] == 1
        assert page[name("resilient_request_duration_seconds_bucket", route="/orders/{order_id}", le="0.025")] == 1
        assert page[name("resilient_deadline_exceeded_total", side="inbound")] == 1
        assert page[name("resilient_abandoned_responses_total", dependency="catalog")] == 1
        assert page[name("resilient_feature_level", feature="prices", level="off")] == 1
        assert page[name("resilient_feature_level", feature="prices", level="full")] == 0
        assert page[name("resilient_events_dropped_total")] == 3
        assert [page[name("resilient_check_state", check="disk", state=state)] for state in ("well", "ill", "unknown")] == [0, 1, 0]
        assert page[name("resilient_checks_total", check="disk", result="ill")] == 1


def test_totals_are_those_of_this_worker(worker_files: Path, parts: Any) -> None:
    metrics = Metrics(parts.source(parts.dependency("catalog")))
    heard: list[Any] = []
    metrics.on_request = lambda *told: heard.append(told)
    for _ in range(2):
        metrics.on_event(CallRejected(at=0.0, dependency="catalog", policy="breaker", reason="outage"))
    metrics.count_shed("critical", "full")
    metrics.count_request("/orders", "GET", "2xx", 0.02)
    assert metrics.totals((families.REJECTIONS, families.SHED)) == {
        families.REJECTIONS: {("catalog", "breaker", "outage"): 2.0},
        families.SHED: {("critical", "full"): 1.0},
    }
    assert heard == [("/orders", "2xx", 0.02)]


def test_names_and_types_are_those_of_a_single_process(worker_files: Path, parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = parts.source(parts.dependency("catalog"), features=(parts.feature("prices"),))
    several = Metrics(source, registry=CollectorRegistry())
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    single = Metrics(source, registry=CollectorRegistry())

    def families(metrics: Metrics) -> dict[str, tuple[str, str]]:
        return {family.name: (family.type, family.documentation) for family in metrics._registry.collect()}

    assert families(several) == families(single)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(worker_files))
    page = several.render("application/openmetrics-text")[0].decode()
    shown = {family.name: (family.type, family.documentation) for family in text_string_to_metric_families(page)}
    assert shown.items() <= families(single).items()


def test_requests_come_to_the_numbers_of_a_single_process(
    worker_files: Path, parts: Any, samples: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = Metrics(parts.source(), limits={"route": 3})
    with monkeypatch.context() as alone:
        alone.delenv("PROMETHEUS_MULTIPROC_DIR")
        single = Metrics(parts.source(), limits={"route": 3})
    for turn, seconds in enumerate((0.0, 0.001, 0.0011, 0.01, 0.7, 30.0, 31.0) * 5):
        for metrics in (several, single):
            metrics.count_request(f"/r{turn % 5}", ("GET", "POST")[turn % 2], ("2xx", "5xx")[turn % 3 // 2], seconds)

    def requests(metrics: Metrics) -> dict[Any, float]:
        return {key: value for key, value in samples(metrics).items() if key[0].startswith("resilient_request")}

    assert len(requests(single)) > 60
    assert requests(several) == pytest.approx(requests(single))


def test_a_dependency_that_is_made_later_is_watched(worker_files: Path, parts: Any, samples: Read) -> None:
    source = parts.source()
    metrics = Metrics(source)
    catalog = source.dependencies["catalog"] = parts.dependency("catalog")
    metrics.watch(catalog)
    catalog.stats.record("success", 0.02, 0.0)
    assert samples(metrics)[SUCCESSES] == 1
    unseen = source.dependencies["unseen"] = parts.dependency("unseen")  # nobody said so: from the next scrape on
    samples(metrics)
    unseen.stats.record("success", 0.02, 0.0)
    assert samples(metrics)[name("resilient_calls_total", dependency="unseen", outcome="success")] == 1


def test_a_dependency_that_is_gone_adds_nothing_to_a_gauge(worker_files: Path, parts: Any, samples: Read) -> None:
    catalog = parts.dependency("catalog")
    catalog.bulkhead.in_use = 5
    catalog.budget.remaining_ratio = lambda: 0.1
    source = parts.source(catalog)
    metrics = Metrics(source)
    catalog.stats.record("success", 0.02, 0.0)
    page = samples(metrics)
    assert (page[IN_USE], page[BUDGET]) == (5, 0.1)
    del source.dependencies["catalog"]
    page = samples(metrics)
    assert (page[IN_USE], page[CLOSED], page[BUDGET], page[SUCCESSES]) == (0, 0, 1, 1)
    source.dependencies["catalog"] = again = parts.dependency("catalog")
    metrics.watch(again)
    again.stats.record("success", 0.02, 0.0)
    page = samples(metrics)
    assert (page[IN_USE], page[CLOSED], page[SUCCESSES]) == (0, 1, 2)


def test_ground_53_label_values_beyond_the_cap_are_other_and_sum(worker_files: Path, parts: Any, samples: Read) -> None:
    dependencies = [parts.dependency(f"host{index}") for index in range(6)]
    source = parts.source(*dependencies, features=tuple(parts.feature(f"f{index}") for index in range(3)))
    metrics = Metrics(source, limits={"dependency": 4, "feature": 1, "reason": 1, "route": 2})
    for index, dependency in enumerate(dependencies):
        dependency.stats.record("success", 0.02, 0.0)
        metrics.on_event(CallRejected(at=0.0, dependency=dependency.name, policy="breaker", reason=f"r{index}"))
        metrics.count_request(f"/r{index}", "GET", "2xx", 0.02)
    # A change of one of several does not write over the sum of them.
    dependencies[5].breaker.current_state = "open"
    metrics.on_event(CircuitChanged(at=0.0, dependency="host5", old="closed", new="open", reason="outage"))
    page = samples(metrics)
    assert page[name("resilient_calls_total", dependency="other", outcome="success")] == 2
    assert page[name("resilient_rejections_total", dependency="other", policy="breaker", reason="other")] == 2
    assert page[name("resilient_rejections_total", dependency="host0", policy="breaker", reason="r0")] == 1
    assert page[name("resilient_requests_total", route="other", method="GET", status="2xx")] == 4
    assert page[name("resilient_request_duration_seconds_count", route="other")] == 4
    assert page[name("resilient_request_duration_seconds_count", route="/r1")] == 1
    assert page[name("resilient_bulkhead_limit", dependency="other")] == 200
    assert page[name("resilient_breaker_state", dependency="other", state="closed")] == 1
    assert page[name("resilient_breaker_state", dependency="other", state="open")] == 1
    assert page[name("resilient_feature_level", feature="other", level="full")] == 2


@pytest.mark.parametrize("first", ["call", "event", "request", "scrape"])
def test_the_child_of_a_fork_shows_its_state_with_the_first_thing_it_does(
    worker_files: Path, parts: Any, samples: Read, first: str
) -> None:
    catalog = parts.dependency("catalog")
    metrics = Metrics(parts.source(catalog))
    metrics._backend._pid = -1
    catalog.breaker.current_state = "open"
    if first == "call":
        catalog.stats.record("success", 0.02, 0.0)
    elif first == "event":
        metrics.on_event(CallRejected(at=0.0, dependency="catalog", policy="breaker", reason="outage"))
    elif first == "request":
        metrics.count_request("/", "GET", "2xx", 0.02)
    else:
        samples(metrics)
    assert metrics._registry.get_sample_value("resilient_breaker_state", {"dependency": "catalog", "state": "open"}) == 1
    assert metrics._registry.get_sample_value("resilient_breaker_state", {"dependency": "catalog", "state": "closed"}) == 0


def test_two_of_them_in_one_process_add_up(worker_files: Path, parts: Any, samples: Read) -> None:
    one, other = parts.dependency("catalog"), parts.dependency("catalog")
    metrics = Metrics(parts.source(one))
    Metrics(parts.source(other))
    one.stats.record("success", 0.02, 0.0)
    other.stats.record("success", 0.02, 0.0)
    one.stats.record("success", 0.02, 0.0)
    assert samples(metrics)[SUCCESSES] == 3


def test_the_page_holds_the_metrics_of_the_whole_program(worker_files: Path, parts: Any) -> None:
    Gauge("queue_depth", "Orders waiting.", registry=None, multiprocess_mode="livesum").set(4)
    body, _ = Metrics(parts.source()).render()
    assert b"queue_depth 4.0" in body


def test_a_registry_that_is_given_shows_this_worker(worker_files: Path, parts: Any) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(parts.source(parts.dependency("catalog")), registry=registry)
    assert registry.get_sample_value("resilient_breaker_state", {"dependency": "catalog", "state": "closed"}) == 1
    with pytest.raises(ValueError, match="registry: "):
        Metrics(parts.source(), registry=registry)
    metrics.close()
    assert list(registry.collect()) == []


def test_a_directory_that_is_none_is_named(worker_files: Path, parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(worker_files / "nowhere"))
    with pytest.raises(ValueError, match=r"PROMETHEUS_MULTIPROC_DIR: .*nowhere' is not a directory"):
        Metrics(parts.source())


def test_a_variable_that_was_set_too_late_is_an_error(worker_files: Path, parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus_values, "ValueClass", prometheus_values.MutexValue)
    with pytest.raises(RuntimeError, match="set it before the program starts"):
        Metrics(parts.source())
