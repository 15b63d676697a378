"""Options and exit statuses that several commands share."""

from typing import Annotated

import typer

USAGE = 2
"""Exit status of a command that cannot run as given."""
INTERRUPTED = 130
"""Exit status after Ctrl-C. The command has kept its results so far."""

Operations = Annotated[
    list[str] | None, typer.Option("-o", "--operation", metavar="NAME", help="Only this operation; repeatable.")
]
Implementations = Annotated[
    list[str] | None,
    typer.Option("-i", "--implementation", metavar="NAME", help="Only implementations of this name; repeatable."),
]
Sizes = Annotated[
    list[str] | None,
    typer.Option(
        "--sizes",
        metavar="AXES",
        help="Cases of these sizes instead of the operation's own: n=64 or n=1,2,4 or n=1:1024:x4 or n=100:500:+100, "
        "more axes after a comma; repeatable.",
    ),
]
Dtypes = Annotated[
    list[str] | None,
    typer.Option("--dtype", metavar="NAME", help="Only cases of this dtype, or that of --sizes; repeatable."),
]
Scenarios = Annotated[
    list[str] | None,
    typer.Option("--scenario", metavar="NAME", help="Only cases of this scenario, or that of --sizes; repeatable."),
]
Cases = Annotated[
    list[str] | None,
    typer.Option(
        "--case", metavar="LABEL", help="Only this case, or those that match, such as '*bfloat16'; repeatable."
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, metavar="N", help="Seed of the data; by default each case has its own.")
]
TimeLimit = Annotated[
    float,
    typer.Option(
        "--time-limit", min=1.0, metavar="SECONDS", help="For one check, one warm-up or one block of samples."
    ),
]
Json = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON to FILE, or to - (stdout).")]
