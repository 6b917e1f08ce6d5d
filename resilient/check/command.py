"""The command line of `resilient check`."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..settings.values import masked
from .report import report
from .target import TargetError, found

__all__ = ["check"]


@click.command()
@click.argument("target", metavar="MODULE:APP")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@click.option("--strict", is_flag=True, help="Exit with 1 if there is a warning.")
def check(*, target: str, as_json: bool, strict: bool) -> None:
    """Explain what a service is composed of, and what will become of each failure.

    MODULE:APP names an app that a Resilience is installed in, or a Resilience. Exits with 0 if all is well, with 1 for warnings
    under --strict, with 2 where it can't be imported or its settings are wrong.
    """
    try:
        resilience, app, mistakes = found(target)
    except TargetError as error:
        told = masked(str(error))
        click.echo(json.dumps({"error": told}) if as_json else f"error: {told}", err=not as_json)
        raise SystemExit(2) from None
    told_of = report(resilience, app, mistakes)
    if as_json:
        click.echo(json.dumps(told_of, indent=2))
    else:
        _print(Console(highlight=False), told_of)
    raise SystemExit(1 if strict and told_of["warnings"] else 0)


def _print(console: Console, told: dict[str, Any]) -> None:
    console.print(f"[bold]policies[/] {'on' if told['enabled'] else 'OFF'}, [bold]chaos[/] {'ALLOWED' if told['chaos'] else 'off'}")
    console.print(f"[bold]settings[/] {escape(told['settings'])}")
    for one in told["dependencies"]:
        facts = [one["origin"] or "no origin", *(["required"] if one["required"] else [])]
        facts += [f"variant of {one['variant_of']}"] if one["variant_of"] else []
        console.print(f"\n[bold]{escape(one['name'])}[/]  {escape(', '.join(facts))}")
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        for number, policy in enumerate(one["policies"], 1):
            table.add_row(str(number), escape(policy))
        if not one["usual_order"]:
            table.add_row("", "[dim]not in the usual order of standard()[/]")
        for kind, end in one["failures"].items():
            table.add_row(kind, escape(end))
        console.print(table)
    if told["features"]:
        console.print()
        table = Table("feature", "needs", "when they fail", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for one in told["features"]:
            name = escape(one["name"]) + (" (critical)" if one["critical"] else "")
            table.add_row(name, escape(", ".join(one["needs"]) or "-"), escape(one["failing"]))
        console.print(table)
    if told["checks"]:
        console.print()
        table = Table("check", "asked", "while it is ill", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for one in told["checks"]:
            table.add_row(escape(one["name"]), f"every {one['interval']:g} s, for {one['timeout']:g} s", escape(one["ill"]))
        console.print(table)
    drain = told["drain"]
    if drain:
        begins = ", ".join(drain["signals"]) or "no signal"
        console.print(
            f"\n[bold]drain[/] begun by {begins}: {drain['delay']:g} s until new work is refused, then {drain['budget']:g} s"
            + ("" if drain["enforce"] else " (shadow: refuses nothing)")
        )
    if told["middleware"]:
        console.print(f"\n[bold]middleware[/] {escape(', '.join(told['middleware']))}")
    for warning in told["warnings"]:
        console.print(f"[yellow]warning[/] {escape(warning)}")
