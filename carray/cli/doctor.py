"""`carray doctor`: say whether a study has all that it needs, on this machine or a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from carray.cli.shared import JsonOption, RunsOption, say


def doctor(
    data: Annotated[
        str | None,
        typer.Argument(metavar="DIR", help="A folder made by `data prepare`, or its URL."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster's: each of its nodes is looked at too.")
    ] = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look over what a study needs, before it begins; nothing is trained.

    Versions, folders and their disks, memory, weights, the tracking server, GPUs and Ray; of a
    cluster each node, as `carray tune` looks at it before it places lanes there. One line each: ok,
    note (worth knowing), or FAILS with the cure behind it. Exit code 1 where something fails.

    [dim]Examples:[/]

      carray doctor

      carray doctor cars --runs /ABS/RUNS --address auto

      carray doctor --json
    """
    import json

    from carray.runs_folder import RunsFolder
    from carray.search.doctor import look_over

    findings = []

    def lines() -> Iterator[str]:
        for finding in look_over(data, address, RunsFolder.unchecked(runs)):
            findings.append(finding.model_dump(mode="json"))
            yield finding.line()

    if as_json:
        list(lines())
    else:
        say(lines)
    failed = any(finding["state"] == "fails" for finding in findings)
    if as_json:
        print(json.dumps({"ok": not failed, "findings": findings}, ensure_ascii=False))
    raise typer.Exit(int(failed))
