"""The command line of `resilient demo`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.live import Live

from .live import GAP, Screen, verdict_table
from .load import RATE
from .processes import StartError, stage
from .recording import Recording
from .report import page
from .run import Run
from .timeline import MIN_SECONDS, SECONDS, timeline
from .upstreams import Fault
from .verdict import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .processes import Stage
    from .timeline import Phase

MAX_RATE = 1000.0


class _NewFile(click.Path):
    """A file that can be written once the run is over, which is too late to find that it can't."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(value)
        if not os.access(path.parent, os.W_OK):
            self.fail(f"{path.parent} is not a directory that can be written to", param, ctx)
        return super().convert(path, param, ctx)


_FILE = _NewFile()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="resilient-asgi", prog_name="resilient")
def command() -> None:
    """Fault tolerance for FastAPI and Starlette applications."""


@command.command()
@click.option("--seconds", type=click.FloatRange(MIN_SECONDS), default=SECONDS, show_default=True, help="Length of the whole timeline.")
@click.option("--rate", type=click.FloatRange(1, MAX_RATE), default=RATE, show_default=True, help="Requests a second to each shop.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the arrivals, so that a run can be repeated.")
@click.option("--no-live", is_flag=True, help="Print a line a phase instead of the live view, as is done where there is no terminal.")
@click.option("--json", "json_file", type=_FILE, help="Write every sample and the verdict to this file.")
@click.option("--report", type=_FILE, default="resilient-demo.html", show_default=True, help="Where the HTML report goes.")
@click.option("--serve", is_flag=True, help="Send no load: keep everything up, to be tried by hand.")
def demo(*, seconds: float, rate: float, seed: int, no_live: bool, json_file: Path | None, report: Path, serve: bool) -> None:
    """Show one shop, bare and protected, while the services it calls fail.

    Starts three services and the two shops as processes on loopback, plays a timeline of faults under load and ends with a
    verdict and an HTML report. Exits with 0 if every claim holds, with 1 if one fails or could not be measured.
    """
    console = Console()
    recording = Recording(rate, seconds, seed)
    try:
        asyncio.run(_serve(console) if serve else _play(console, recording, live=console.is_terminal and not no_live))
    except KeyboardInterrupt:
        raise SystemExit(0 if serve else 130) from None
    except asyncio.CancelledError:
        raise SystemExit(143) from None
    except StartError as failure:
        raise click.ClickException(str(failure)) from failure
    verdict = judge(recording)
    report.write_text(page(recording, verdict), encoding="utf-8")
    if json_file is not None:
        json_file.write_text(json.dumps(recording.as_dict() | {"verdict": verdict.as_dict()}, allow_nan=False), encoding="utf-8")
    console.print(verdict_table(verdict))
    console.print(f"report: {report.resolve().as_uri()}", soft_wrap=True)
    raise SystemExit(0 if verdict.passed else 1)


async def _play(console: Console, recording: Recording, *, live: bool) -> None:
    _end_on_sigterm()
    phases = timeline(recording.seconds)
    console.print("starting three services and two shops on loopback ...")
    async with stage() as processes:
        run = Run(processes, recording)
        with _showing(console, phases, live=live) as show:
            await run.play(phases, show=show, gap=GAP)


@contextlib.contextmanager
def _showing(console: Console, phases: Sequence[Phase], *, live: bool) -> Iterator[Callable[[Run], None]]:
    if not live:
        told: list[str] = []

        def tell(run: Run) -> None:
            if run.phase is not None and run.phase.name not in told:
                told.append(run.phase.name)
                console.print(f"{run.clock():5.1f} s  {run.phase.title}")

        yield tell
        return
    screen = Screen(phases)
    with Live(console=console, auto_refresh=False) as view:
        yield lambda run: view.update(screen.draw(run), refresh=True)


async def _serve(console: Console) -> None:
    _end_on_sigterm()
    async with stage() as processes:
        console.print(_tour(processes), soft_wrap=True, highlight=False)
        await asyncio.Event().wait()


def _tour(processes: Stage) -> str:
    """What there is to try by hand, ready to be copied into another terminal."""
    lines = ["", "[bold]the shops[/]"]
    lines += [f"  curl -i {origin.url}/product/7    # {name}" for name, origin in processes.shops.items()]
    lines += [f"  curl {processes.shops['protected'].url}/metrics", "", "[bold]the services' fault switches[/]"]
    lines += [f"  curl -X POST '{origin.url}/fault?mode=hang'    # {name}" for name, origin in processes.upstreams.items()]
    lines += [f"  modes: {', '.join(fault.value for fault in Fault)}", "", "[bold]the processes[/]"]
    lines += [f"  {name} {pid}" for name, pid in processes.pids.items()]
    return "\n".join([*lines, "", "Ctrl-C ends them all."])


def _end_on_sigterm() -> None:
    """Lets SIGTERM end the run as Ctrl-C does: by cancelling it, so that the processes are ended in order."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError):  # Windows has no such signal
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
