"""The `augd` command: each function is a command, made from its options struct.

Holds no logic of its own. Every command imports what it needs when it runs, so that
`augd serve` starts its producers before anything slow is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from augd.cli.command_line import add_command, make_app, run_app
from augd.cli.options import (
    BenchOptions,
    CheckOptions,
    DoctorOptions,
    ExplainOptions,
    KeysAddOptions,
    KeysListOptions,
    KeysNewOptions,
    KeysRemoveOptions,
    PcaOptions,
    PreviewOptions,
    RecipesOptions,
    ReplayOptions,
    StatusOptions,
)
from augd.cli.pack.options import IndexOptions, PackCommandOptions
from augd.client.serve_options import ServeOptions
from augd.server.supervision.produce_options import ProduceOptions
from augd.version import __version__

app = make_app("augd", "Image batches for training, from a daemon of CPU producers.")
key_commands = make_app(
    "keys", "Keys of the clients that may connect to a daemon's port: make, add, list, remove."
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """Image batches for training, from a daemon of CPU producers."""


def _require(paths: Sequence[str], named: str | None) -> None:
    """Refuse a line without datasets, as typer refuses one without any other argument."""
    if not paths and named is None:
        raise typer.BadParameter("expected one at least", param_hint="'[NAME=]PATH...'")


@add_command(app, "augd serve photos/   then, in a training script, augd.torch.connect().")
def serve(options: ServeOptions) -> int:
    """Start the daemon and serve these folders until Ctrl-C."""
    from augd.server.daemon.startup import serve_forever

    _require(options.paths, options.named)
    return serve_forever(options)


@add_command(app, "augd produce photos/ --connect tcp://trainer:7000 --keys me.key")
def produce(options: ProduceOptions) -> int:
    """Run producers on this host for a daemon on another, until Ctrl-C or the daemon's end.

    They may join and leave at any time: the batches stay the same, byte for byte.
    """
    from augd.server.relay.startup import produce_forever

    _require(options.paths, options.named)
    return produce_forever(options)


@add_command(app, "augd bench photos/ --recipe imagenet --seconds 10")
def bench(options: BenchOptions) -> None:
    """Measure images/s, CPU time by process, and which side waits."""
    from augd.cli.bench import run_bench

    run_bench(options)


@add_command(app, "augd status --watch")
def status(options: StatusOptions) -> None:
    """Show what a daemon does: its producers, its streams, and the bottleneck.

    Exits with 1 when no daemon answers.
    """
    from augd.cli.status import run_status

    run_status(options)


@add_command(app, "augd doctor && augd serve photos/")
def doctor(options: DoctorOptions) -> int:
    """Check what this machine offers (kernels, memory, limits) and say what to do about it.

    Exits with 1 when something prevents a daemon from running.
    """
    from augd.cli.doctor import run_doctor

    return run_doctor(options.as_json)


@add_command(app, "augd check photos/ && augd serve photos/")
def check(options: CheckOptions) -> int:
    """Decode every file; list bad, rotated, huge and duplicate ones; count sizes and classes.

    Exits with 0 when every file is good, 1 when some are bad, 2 when there is no dataset.
    """
    from augd.cli.check import run_check

    return run_check(options.path, options.as_json)


@add_command(app, "augd preview photos/ --recipe imagenet --out sheet.png")
def preview(options: PreviewOptions) -> None:
    """Draw a contact sheet: photos with their crops, beside what a training will see of them.

    The photos are the first that a shuffled stream of this seed delivers in epoch E. With several
    views of a sample these are the columns, those of epoch E.
    """
    from augd.cli.preview import run_preview
    from augd.cli.recipes import load_recipe
    from augd.plugins.ops import load

    run_preview(options, load_recipe(options.recipe, load(options.plugins)))


@add_command(app, "augd explain photos/ --epoch 3 --id 17 --out crop.png")
def explain(options: ExplainOptions) -> None:
    """Print the drawn parameters of one sample, and draw the crop on its photo."""
    from augd.cli.explain import run_explain
    from augd.cli.recipes import load_recipe
    from augd.plugins.ops import load

    catalogue = load(options.plugins)
    run_explain(options, load_recipe(options.recipe, catalogue), catalogue)


@add_command(app, "augd pca photos/ --out pca.toml")
def pca(options: PcaOptions) -> None:
    """Compute the principal components of a dataset's colours, as an op for a recipe.

    Prints the eigenvalues with their standard errors. Bad files are skipped and counted.
    """
    from augd.cli.pca import run_pca

    run_pca(options)


@add_command(app, "augd recipes imagenet > my.toml")
def recipes(options: RecipesOptions) -> None:
    """List the presets, or print one as TOML to start your own from."""
    from augd.cli.recipes import run_recipes

    run_recipes(options)


@add_command(app, "augd replay photos/ --epoch 3 --batch 17 --out batch.npz")
def replay(options: ReplayOptions) -> int:
    """Make one batch of a run again, byte for byte, and compare it with what was received then.

    Exits with 0, with 1 when the batch differs, and with 1 and an error when it cannot be made.
    """
    from augd.cli.recipes import load_plain_recipe
    from augd.cli.replay import run_replay

    return run_replay(options, load_plain_recipe(options.recipe))


@add_command(app, "augd pack photos/ packed/   then: augd serve packed/")
def pack(options: PackCommandOptions) -> None:
    """Pack photos without loss into tar shards from which a crop is read and decoded by itself.

    Pixels stay the same, which is verified. After an interruption the same command resumes.
    """
    from augd.cli.pack.command import run_pack

    run_pack(options)


@add_command(app, "augd index shards/   then: augd serve shards/")
def index(options: IndexOptions) -> None:
    """Index tar shards that other tools made, once, so that serving them needs no scan.

    On a local disk augd.index is written next to the shards. The user's cache keeps the index of
    remote shards. With --rebuild any dataset is scanned again, and the changes are printed.
    """
    from augd.cli.pack.command import run_index

    run_index(options)


@add_command(key_commands, "augd keys new alice --dataset photos", name="new")
def keys_new(options: KeysNewOptions) -> None:
    """Make a client's key and register it; the first time, also make the daemon's own."""
    from augd.cli.keys import run_new

    run_new(options)


@add_command(key_commands, "augd keys add alice 'PUBLIC KEY' --max-streams 2", name="add")
def keys_add(options: KeysAddOptions) -> None:
    """Register a client whose key was made on its own host."""
    from augd.cli.keys import run_add

    run_add(options)


@add_command(key_commands, name="list")
def keys_list(options: KeysListOptions) -> None:
    """Print the daemon's public key, and the rights of each client."""
    from augd.cli.keys import run_list

    run_list(options.folder)


@add_command(key_commands, name="remove")
def keys_remove(options: KeysRemoveOptions) -> None:
    """Remove a client's key; a running daemon closes what the client has open."""
    from augd.cli.keys import run_remove

    run_remove(options.folder, options.name)


app.add_typer(key_commands)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error that the user can mend is one line on stderr."""
    run_app(app, "augd", arguments)
