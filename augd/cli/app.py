"""The command line: options in, one line of error or the work of a module out.

Holds no logic of its own. Every command imports what it needs when it runs, so that
`augd serve` starts its producers before anything slow is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from augd.cli.command_line import add_command, make_app, run_app
from augd.cli.dataset_options import opens_data
from augd.client.serve_options import ServeOptions
from augd.protocol.permissions import BYTES_DEFAULT, STREAMS_DEFAULT
from augd.version import __version__

app = make_app("augd", "Image batches for training, from a daemon of CPU producers.")

Producers = Annotated[
    int | None, typer.Option("--producers", metavar="N", help="Producer processes [one per core].")
]

Force = Annotated[
    bool, typer.Option("--force", help="Start more than four producers per core, too.")
]
DatasetPath = Annotated[str, typer.Argument(help="Folder of images or tar shards, or a manifest.")]
RecipeName = Annotated[str, typer.Option("--recipe", help="Preset, or a TOML file with a recipe.")]
Seed = Annotated[int, typer.Option(metavar="S", help="The seed of the stream.")]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="train|val|test|all",
        help="Photos of this split; without it train, where the data set records splits.",
    ),
]
ClientKeys = Annotated[
    str | None,
    typer.Option("--keys", metavar="FILE", help="NAME.key, if the daemon wants one [$AUGD_KEYS]."),
]
CacheText = Annotated[
    str | None,
    typer.Option("--cache", metavar="SPEC", help="Keep decoded pictures: ram:8GB, disk:DIR:200GB."),
]
ShardCacheText = Annotated[
    str | None,
    typer.Option(
        "--shard-cache", metavar="DIR:SIZE", help="Keep what came from S3 or HTTP: /fast:200GB."
    ),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="MODULE", help="Python module with own ops; repeat for more."),
]


def _require(paths: Sequence[str], named: str | None) -> None:
    """Refuse a line without datasets, as typer refuses one without any other argument."""
    if not paths and named is None:
        raise typer.BadParameter("expected one at least", param_hint="'[NAME=]PATH...'")


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


@add_command(app, "augd serve photos/   then, in a training script, augd.torch.connect().")
def serve(options: ServeOptions) -> int:
    """Start the daemon and serve these folders until Ctrl-C."""
    from augd.server.daemon.startup import serve_forever

    _require(options.paths, options.named)
    return serve_forever(options)


@app.command(epilog="Example: augd produce photos/ --connect tcp://trainer:7000 --keys me.key")
@opens_data
def produce(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]PATH...", help="The daemon's data sets, as they are here."),
    ] = None,
    connect: Annotated[
        str | None, typer.Option(metavar="ADDR", help="The daemon's [your default one].")
    ] = None,
    producers: Producers = None,
    force: Force = False,
    keys: ClientKeys = None,
    pin: Annotated[
        bool, typer.Option("--pin", help="Keep each producer on a core of its own, in turns.")
    ] = False,
    plugin: Plugins = None,
    shard_cache: ShardCacheText = None,
    host: Annotated[
        str | None, typer.Option(metavar="NAME", help="What `augd status` calls this host.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.")] = False,
    named: Annotated[str | None, typer.Option(hidden=True)] = None,
    lifeline_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Lend producers of this host to a daemon on another, until Ctrl-C or the daemon's end.

    They may come and go at any time: the bytes of the batches stay the same.
    """
    from augd.server.relay.startup import RelayOptions, lend_forever

    options = RelayOptions(
        connect,
        named=named,
        num_producers=producers,
        is_forced=force,
        keys=keys,
        plugins=tuple(plugin or ()),
        is_pinned=pin,
        is_quiet=quiet,
        shard_cache=shard_cache,
        host=host,
        lifeline_fd=lifeline_fd,
    )
    _require(paths or (), named)
    raise typer.Exit(lend_forever(paths or (), options))


@app.command(epilog="Example: augd bench photos/ --recipe imagenet --seconds 10")
@opens_data
def bench(
    path: Annotated[str | None, typer.Argument(help="Folder of images.")] = None,
    connect: Annotated[
        str | None, typer.Option(metavar="ADDR", help="Measure a running daemon instead.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Preset, or a TOML file with a recipe.")] = "imagenet",
    batch_size: Annotated[int, typer.Option(metavar="B")] = 256,
    producers: Producers = None,
    force: Force = False,
    seconds: Annotated[float, typer.Option(metavar="S", help="How long to measure.")] = 10.0,
    keys: ClientKeys = None,
    plugin: Plugins = None,
    cache: CacheText = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    is_explained: Annotated[
        bool, typer.Option("--explain", help="Say what limits, try what would help, measure it.")
    ] = False,
    step: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION|MS", help="With --explain: what is done with each batch."
        ),
    ] = None,
) -> None:
    """Measure images/s, CPU time by process, and who waits for whom."""
    from augd.cli.bench import BenchOptions, run_bench

    options = BenchOptions(
        *(path, connect, recipe, batch_size, producers, seconds, as_json, keys),
        plugins=plugin or (),
        cache=cache,
        is_explained=is_explained,
        step=step,
        is_forced=force,
    )
    run_bench(options)


@app.command(epilog="Example: augd status --watch")
def status(
    address: Annotated[
        str | None, typer.Argument(metavar="[ADDR]", help="The daemon's [your default one].")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; with --watch a line each second.")
    ] = False,
    keys: ClientKeys = None,
) -> None:
    """Show what a daemon does: its producers, its streams, and who waits for whom.

    Exits with 1 when no daemon answers.
    """
    from augd.cli.status import run_status

    run_status(address, watch, as_json, keys)


@app.command(epilog="Example: augd doctor && augd serve photos/")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """Look at what this machine offers: kernels, memory, limits; and say what to do about it.

    Exits with 1 when something is in the way of a daemon.
    """
    from augd.cli.doctor import run_doctor

    raise typer.Exit(run_doctor(as_json))


@app.command(epilog="Example: augd check photos/ && augd serve photos/")
@opens_data
def check(
    path: DatasetPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Decode every file; tell bad, rotated, huge and equal ones, and count sizes and classes.

    Exits with 0 when every file is good, 1 when some are bad, 2 when it could not look.
    """
    from augd.cli.check import run_check

    raise typer.Exit(run_check(path, as_json))


@app.command(epilog="Example: augd preview photos/ --recipe imagenet --out sheet.png")
@opens_data
def preview(
    path: DatasetPath,
    recipe: RecipeName = "imagenet",
    out: Annotated[str, typer.Option(metavar="FILE", help="The picture to write.")] = "sheet.png",
    rows: Annotated[int, typer.Option(metavar="N", help="How many photos.")] = 6,
    columns: Annotated[int, typer.Option(metavar="K", help="How many epochs of each.")] = 5,
    seed: Seed = 0,
    epoch: Annotated[int, typer.Option(metavar="E", help="The first of the epochs.")] = 0,
    split: SplitOption = None,
    plugin: Plugins = None,
) -> None:
    """Draw a contact sheet: photos with their crops, beside what a training will see of them.

    The photos are the first that a shuffled stream of this seed delivers in epoch E. With several
    views of a sample these are the columns, those of epoch E.
    """
    from augd.cli.bench import load_recipe
    from augd.cli.preview import PreviewOptions, run_preview
    from augd.plugins.ops import load

    options = PreviewOptions(path, recipe, out, rows, columns, seed, epoch, split)
    run_preview(options, load_recipe(recipe, load(plugin or ())))


@app.command(epilog="Example: augd explain photos/ --epoch 3 --id 17 --out crop.png")
@opens_data
def explain(
    path: DatasetPath,
    sample: Annotated[int, typer.Option("--id", metavar="I", help="Position in the index.")],
    epoch: Annotated[int, typer.Option(metavar="E", help="Which epoch.")] = 0,
    recipe: RecipeName = "imagenet",
    seed: Seed = 0,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw the crop on its photo into this file.")
    ] = None,
    split: SplitOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    plugin: Plugins = None,
) -> None:
    """Print the drawn parameters of one sample, and draw the crop on its photo."""
    from augd.cli.bench import load_recipe
    from augd.cli.explain import ExplainOptions, run_explain
    from augd.plugins.ops import load

    options = ExplainOptions(path, sample, epoch, seed, out, as_json, split)
    catalogue = load(plugin or ())
    run_explain(options, load_recipe(recipe, catalogue), catalogue)


@app.command(epilog="Example: augd pca photos/ --out pca.toml")
@opens_data
def pca(
    path: DatasetPath,
    out: Annotated[str, typer.Option(metavar="FILE", help="The file to write.")] = "pca.toml",
    samples: Annotated[
        int, typer.Option(metavar="N", help="How many photos to look at, chosen by their paths.")
    ] = 3000,
    split: SplitOption = None,
) -> None:
    """Compute the principal components of a data set's colours, as an op for a recipe.

    Prints the eigenvalues with their standard errors. Bad files are skipped and counted.
    """
    from augd.cli.pca import PcaOptions, run_pca

    run_pca(PcaOptions(path, out, samples, split))


@app.command(epilog="Example: augd recipes imagenet > my.toml")
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Preset, or a TOML file: print it as TOML.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of recipes, for editors.")
    ] = False,
) -> None:
    """List the presets, or print one as TOML to start your own from."""
    from augd.cli.recipes import print_recipe, print_recipes, print_schema

    if schema:
        print_schema()
    elif name is None:
        print_recipes()
    else:
        from augd.cli.bench import load_recipe

        print_recipe(load_recipe(name))


@app.command(epilog="Example: augd replay photos/ --epoch 3 --batch 17 --out batch.npz")
@opens_data
def replay(
    path: Annotated[
        str | None, typer.Argument(help="Folder or manifest that was trained from.")
    ] = None,
    connect: Annotated[
        str | None, typer.Option(metavar="ADDR", help="Have a running daemon make it instead.")
    ] = None,
    epoch: Annotated[int, typer.Option(metavar="E", help="Which epoch.")] = 0,
    batch: Annotated[int, typer.Option(metavar="N", help="Which batch of it, from 0 on.")] = 0,
    recipe: RecipeName = "imagenet",
    batch_size: Annotated[int, typer.Option(metavar="B")] = 256,
    seed: Seed = 0,
    shuffle: Annotated[bool, typer.Option(help="As the stream was connected.")] = True,
    blocks: Annotated[
        str | None,
        typer.Option(metavar="SIZExWINDOW", help='It was, with shuffle="blocks:SIZExWINDOW".'),
    ] = None,
    drop_last: Annotated[bool, typer.Option("--drop-last")] = False,
    rank: Annotated[int, typer.Option(metavar="R")] = 0,
    world: Annotated[int, typer.Option(metavar="W")] = 1,
    dataset: Annotated[str | None, typer.Option(metavar="NAME")] = None,
    split: SplitOption = None,
    bad: Annotated[str, typer.Option(metavar="mask|fail")] = "mask",
    state: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A saved state_dict(), as JSON: its quarantine and content hold."
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the batch here, as .npz.")
    ] = None,
    expect: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="batch.digest of the run.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="FILE", help="Compare with an earlier --out, row by row.")
    ] = None,
    keys: ClientKeys = None,
    plugin: Plugins = None,
) -> None:
    """Make one batch of a run again, byte for byte, and compare it with what arrived then.

    Exits with 0, with 1 when the batch differs, and with 1 and an error when it cannot be made.
    """
    from augd.cli.bench import load_plain_recipe
    from augd.cli.replay import ReplayOptions, run_replay

    shuffled = shuffle if blocks is None else f"blocks:{blocks}"
    arguments = {
        **{"batch_size": batch_size, "seed": seed, "shuffle": shuffled, "drop_last": drop_last},
        **{"rank": rank, "world": world, "dataset": dataset, "split": split, "bad": bad},
    }
    options = ReplayOptions(
        *(path, connect, epoch, batch, out, state, expect, against, arguments, keys),
        plugins=plugin or (),
    )
    raise typer.Exit(run_replay(options, load_plain_recipe(recipe)))


@app.command(epilog="Example: augd pack photos/ packed/   then: augd serve packed/")
@opens_data
def pack(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Any data set that can be served.")],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="A new folder, or one begun before.")
    ],
    shard_mb: Annotated[int, typer.Option(metavar="MB", help="Size of a shard, at most.")] = 256,
    short_side: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Shrink larger photos and encode them anew [not]."),
    ] = None,
    quality: Annotated[int, typer.Option(metavar="Q", help="JPEG quality of shrunk photos.")] = 90,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes that pack [one per core].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Pack photos without loss into tar shards from which a crop is read and decoded by itself.

    Pixels stay the same, and are compared. Killed or broken off, the same command goes on.
    """
    from augd.cli.pack.command import PackOptions, run_pack

    run_pack(source, target, PackOptions(shard_mb, short_side, quality, workers, as_json))


@app.command(epilog="Example: augd index shards/   then: augd serve shards/")
@opens_data
def index(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC", help="Folder of .tar shards, as WebDataset has them; or s3://, https://."
        ),
    ],
    beside: Annotated[
        bool, typer.Option("--beside", help="Of shards on S3: write augd.index to them.")
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Of shards on S3 or HTTP: write augd.index here, too."),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Of any data set: look at all of it anew.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Index tar shards that others have made, once, so that serving them needs no walk.

    On a disk augd.index lies beside them then; of shards elsewhere it is kept in the user's cache.
    With --rebuild the cached index of any data set is made anew, and what changed is said.
    """
    from augd.cli.pack.command import IndexOptions, run_index

    run_index(source, IndexOptions(beside, out, as_json, rebuild))


key_commands = typer.Typer(
    name="keys",
    help="Keys that let clients in at a daemon's port: make, add, list, remove.",
    no_args_is_help=True,
)
app.add_typer(key_commands)

KeyFolder = Annotated[
    Path | None, typer.Option("--dir", metavar="DIR", help="Keys [~/.config/augd/keys].")
]
ClientName = Annotated[str, typer.Argument(metavar="NAME", help="What to call the client.")]
KeyOut = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Where the key goes [NAME.key].")
]
KeyDatasets = Annotated[
    list[str] | None,
    typer.Option("--dataset", metavar="NAME", help="One it may read; repeat for more [all]."),
]
MaxStreams = Annotated[int, typer.Option(metavar="N", help="Streams that it may have open.")]
MaxGigabytes = Annotated[float, typer.Option(metavar="GB", help="Memory of all its streams.")]
MayProduce = Annotated[bool, typer.Option("--produce", help="Let producers join with this key.")]


@key_commands.command("new", epilog="Example: augd keys new alice --dataset photos")
def keys_new(
    name: ClientName,
    out: KeyOut = None,
    datasets: KeyDatasets = None,
    max_streams: MaxStreams = STREAMS_DEFAULT,
    max_gigabytes: MaxGigabytes = BYTES_DEFAULT / 10**9,
    produce: MayProduce = False,
    folder: KeyFolder = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="PUBLIC_KEY", help="Make only a pair, for a daemon elsewhere."),
    ] = None,
) -> None:
    """Make a client's key and let it in; the first time, make the daemon's own, too."""
    from augd.cli.keys import Bounds, run_new, run_new_elsewhere

    if server is not None:
        run_new_elsewhere(name, server, out)
        return
    run_new(folder, name, out, Bounds(datasets or (), max_streams, max_gigabytes, produce))


@key_commands.command("add", epilog="Example: augd keys add alice 'PUBLIC KEY' --max-streams 2")
def keys_add(
    name: ClientName,
    public: Annotated[
        str, typer.Argument(metavar="PUBLIC_KEY", help="Printed by `augd keys new --server`.")
    ],
    datasets: KeyDatasets = None,
    max_streams: MaxStreams = STREAMS_DEFAULT,
    max_gigabytes: MaxGigabytes = BYTES_DEFAULT / 10**9,
    produce: MayProduce = False,
    folder: KeyFolder = None,
) -> None:
    """Let a client in whose key was made on its own host."""
    from augd.cli.keys import Bounds, run_add

    run_add(folder, name, public, Bounds(datasets or (), max_streams, max_gigabytes, produce))


@key_commands.command("list")
def keys_list(folder: KeyFolder = None) -> None:
    """Print the daemon's public key, and who is let in with which rights."""
    from augd.cli.keys import run_list

    run_list(folder)


@key_commands.command("remove")
def keys_remove(name: ClientName, folder: KeyFolder = None) -> None:
    """Take a key away; a running daemon ends what the client has open."""
    from augd.cli.keys import run_remove

    run_remove(folder, name)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error that the user can mend is one line on stderr."""
    run_app(app, "augd", arguments)
