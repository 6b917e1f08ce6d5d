from __future__ import annotations

import asyncio
import contextlib
import sys

import pytest
from click.testing import CliRunner

from resilient.demo import processes
from resilient.demo.command import command


def test_a_process_that_does_not_start_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "UPSTREAMS", ("billing",))
    result = CliRunner().invoke(command, ["demo", "--serve"])
    assert result.exit_code == 1
    assert "billing did not start" in result.output
    assert "Error" in result.output.rstrip().splitlines()[-1]


def test_a_process_that_falls_silent_is_given_up_and_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(processes, "_START", 0.2)
    monkeypatch.setattr(processes, "_END", 0.2)

    async def main() -> int | None:
        async with contextlib.AsyncExitStack() as stack:
            # A module that is there, waits for ever and heeds no lifeline.
            start = await processes._started(stack, "http.server", "0", "--bind", "127.0.0.1")
            with pytest.raises(processes.StartError, match="0 did not start"):
                await start.port()
        return start.process.returncode

    assert asyncio.run(main()) == (-9 if sys.platform != "win32" else 1)
