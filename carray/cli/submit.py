"""`carray submit`: `carray tune` as a job of a cluster elsewhere."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer


def submit(
    context: typer.Context,
    address: Annotated[
        str, typer.Argument(help="The dashboard of the cluster's head: http://HEAD:8265.")
    ],
    data: Annotated[
        str, typer.Argument(help="A prepared data set: its URL, or its path on the head.")
    ],
    just_pack: Annotated[
        bool, typer.Option("--just-pack", help="Say what would be sent; send nothing.")
    ] = False,
) -> None:
    """Run `carray tune` as a job of a Ray cluster; every option of `carray tune` may follow.

    carray's code goes with the job, and the space's file; data and weights don't: name their URL,
    or a path that the head has. Without --runs results go to the head's $CARRAY_RUNS, else to its
    ~/carray. The same command again goes on where the study stopped.

    [dim]Examples:[/]

      carray submit http://HEAD:8265 s3://BUCKET/cars --runs s3://BUCKET/runs --trials 100

      carray submit http://HEAD:8265 /ABS/CARS --space my.yaml --lanes 8
    """
    from carray.search.placement.submission import follow_lines, packed
    from carray.search.placement.submission import submit as send

    _check_options(context, [data, *context.args])
    command = shlex.join(["carray", "submit", address, data, *context.args])
    with packed(data, context.args) as package:
        for line in package.lines():
            print(line)
        print(f"runs: {package.entrypoint}")
        if just_pack:
            return
        job = send(address, package)
    for line in follow_lines(address, job, command):
        print(line)


def _check_options(context: typer.Context, words: list[str]) -> None:
    """Refuse here what `carray tune` would refuse there."""
    parent = context.parent
    assert parent is not None
    tune = parent.command.get_command(parent, "tune")  # type: ignore[attr-defined]
    tune.make_context("tune", list(words), parent=parent)
