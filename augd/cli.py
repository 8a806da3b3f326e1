"""The command line: options in, one line of error or the work of a module out.

Holds no logic of its own. Every command imports what it needs when it runs, so that
`augd serve` starts its producers before anything slow is loaded.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from augd.errors import AugdError

app = typer.Typer(
    name="augd",
    help="Image batches for training, from a daemon of CPU producers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Producers = Annotated[
    int | None, typer.Option("--producers", metavar="N", help="Producer processes [one per core].")
]

DatasetPath = Annotated[str, typer.Argument(help="Folder of images, or a .csv or .jsonl manifest.")]
RecipeName = Annotated[str, typer.Option("--recipe", help="Preset, or a TOML file with a recipe.")]
Seed = Annotated[int, typer.Option(metavar="S", help="The seed of the stream.")]


@app.callback()
def _root() -> None:
    """Image batches for training, from a daemon of CPU producers."""


@app.command(epilog="Example: augd serve photos/   then, in a training script, trainer.connect().")
def serve(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]PATH...",
            help="Folders of images, of class folders, of train/ and val/; or .csv, .jsonl.",
        ),
    ],
    listen: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDR",
            help="ipc://PATH or tcp://HOST:PORT; may be given twice [a private ipc path].",
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let anybody who reaches the port connect.")
    ] = False,
    producers: Producers = None,
    patience: Annotated[
        float | None,
        typer.Option(metavar="S", help="Kill a producer silent at work for S seconds [30]."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.")] = False,
    lifeline_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start the daemon and serve these folders until Ctrl-C."""
    from augd.serving import Options, serve_forever

    options = Options(
        listen=tuple(listen or ()),
        num_producers=producers,
        patience_s=patience,
        is_quiet=quiet,
        is_insecure=insecure,
        lifeline_fd=lifeline_fd,
        ready_fd=ready_fd,
    )
    raise typer.Exit(serve_forever(paths, options))


@app.command(epilog="Example: augd bench photos/ --recipe imagenet --seconds 10")
def bench(
    path: Annotated[str | None, typer.Argument(help="Folder of images.")] = None,
    connect: Annotated[
        str | None, typer.Option(metavar="ADDR", help="Measure a running daemon instead.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Preset, or a TOML file with a recipe.")] = "imagenet",
    batch_size: Annotated[int, typer.Option(metavar="B")] = 256,
    producers: Producers = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="How long to measure.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure images/s, CPU time by process, and who waits for whom."""
    from augd.bench import BenchOptions, run_bench

    run_bench(BenchOptions(path, connect, recipe, batch_size, producers, seconds, as_json))


@app.command(epilog="Example: augd status --watch")
def status(
    address: Annotated[
        str | None, typer.Argument(metavar="[ADDR]", help="The daemon's [your default one].")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; with --watch a line each second.")
    ] = False,
) -> None:
    """Show what a daemon does: its producers, its streams, and who waits for whom.

    Exits with 1 when no daemon answers.
    """
    from augd.views.status import run_status

    run_status(address, watch, as_json)


@app.command(epilog="Example: augd check photos/ && augd serve photos/")
def check(
    path: DatasetPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Decode every file; tell bad, rotated, huge and equal ones, and count sizes and classes.

    Exits with 0 when every file is good, 1 when some are bad, 2 when it could not look.
    """
    from augd.views.check import run_check

    raise typer.Exit(run_check(path, as_json))


@app.command(epilog="Example: augd preview photos/ --recipe imagenet --out sheet.png")
def preview(
    path: DatasetPath,
    recipe: RecipeName = "imagenet",
    out: Annotated[str, typer.Option(metavar="FILE", help="The picture to write.")] = "sheet.png",
    rows: Annotated[int, typer.Option(metavar="N", help="How many photos.")] = 6,
    columns: Annotated[int, typer.Option(metavar="K", help="How many epochs of each.")] = 5,
    seed: Seed = 0,
    epoch: Annotated[int, typer.Option(metavar="E", help="The first of the epochs.")] = 0,
) -> None:
    """Draw a contact sheet: photos with their crops, beside what a training will see of them.

    The photos are the first that a shuffled stream of this seed delivers in epoch E.
    """
    from augd.bench import load_recipe
    from augd.views.preview import PreviewOptions, run_preview

    options = PreviewOptions(path, recipe, out, rows, columns, seed, epoch)
    run_preview(options, load_recipe(recipe))


@app.command(epilog="Example: augd explain photos/ --epoch 3 --id 17 --out crop.png")
def explain(
    path: DatasetPath,
    sample: Annotated[int, typer.Option("--id", metavar="I", help="Position in the index.")],
    epoch: Annotated[int, typer.Option(metavar="E", help="Which epoch.")] = 0,
    recipe: RecipeName = "imagenet",
    seed: Seed = 0,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw the crop on its photo into this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the drawn parameters of one sample, and draw the crop on its photo."""
    from augd.bench import load_recipe
    from augd.views.explain import ExplainOptions, run_explain

    options = ExplainOptions(path, sample, epoch, seed, out, as_json)
    run_explain(options, load_recipe(recipe))


@app.command(epilog="Example: augd recipes imagenet > my.toml")
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Preset, or a TOML file: print it as TOML.")
    ] = None,
) -> None:
    """List the presets, or print one as TOML to start your own from."""
    from augd.views.recipes import print_recipe, print_recipes

    if name is None:
        print_recipes()
    else:
        from augd.bench import load_recipe

        print_recipe(load_recipe(name))


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; errors that are the user's to mend are one line on stderr."""
    try:
        app(args=arguments)
    except AugdError as error:
        print(f"augd: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
