"""The options of the commands that measure, show and check, and of `augd keys`.

One struct per command, apart from the command's work: `augd --help` loads this module, and none of
the work. Those of `augd pack` and `augd index` are in `cli/pack/options.py`; those of `augd serve`
and `augd produce` are in `client/serve_options.py` and `server/supervision/produce_options.py`,
since other programs start these commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from augd.client.shared_options import (
    AsJson,
    Cache,
    ClientKeys,
    DatasetOptions,
    Force,
    Plugins,
    Producers,
)
from augd.process.options import Argument, Option
from augd.protocol.permissions import BYTES_DEFAULT, STREAMS_DEFAULT

DatasetPath = Annotated[str, Argument("Folder of images or tar shards, or a manifest.")]
RecipeName = Annotated[str, Option("Preset, or a TOML file with a recipe.")]
Seed = Annotated[int, Option("The seed of the stream.", metavar="S")]
Split = Annotated[
    str | None,
    Option(
        "Images of this split; without it train, where the dataset records splits.",
        metavar="train|val|test|all",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions(DatasetOptions):
    """What to measure. Exactly one of `path` and `connect` is given."""

    path: Annotated[str | None, Argument("Folder of images.")] = None
    connect: Annotated[str | None, Option("Measure a running daemon instead.", metavar="ADDR")] = (
        None
    )
    recipe: RecipeName = "imagenet"
    batch_size: Annotated[int, Option("Images per batch.", metavar="B")] = 256
    producers: Producers = None
    force: Force = False
    seconds: Annotated[float, Option("How long to measure.", metavar="S")] = 10.0
    keys: ClientKeys = None
    plugins: Plugins = ()
    cache: Cache = None
    as_json: AsJson = False
    explain: Annotated[
        bool, Option("Name the bottleneck, try other settings and measure them.")
    ] = False
    step: Annotated[
        str | None,
        Option("With --explain: the training step, or its length.", metavar="MODULE:FUNCTION|MS"),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusOptions:
    """Which daemon to ask, and how often."""

    address: Annotated[
        str | None, Argument("Address of the daemon [your default one].", metavar="[ADDR]")
    ] = None
    watch: Annotated[bool, Option("Refresh until Ctrl-C.")] = False
    as_json: Annotated[
        bool,
        Option("Print one JSON object; with --watch a line each second.", word="--json"),
    ] = False
    keys: ClientKeys = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """How to print what is found."""

    as_json: Annotated[bool, Option("Print one JSON list.", word="--json")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions(DatasetOptions):
    """Which files to check."""

    path: DatasetPath
    as_json: AsJson = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewOptions(DatasetOptions):
    """Which samples to draw, and where."""

    path: DatasetPath
    recipe: RecipeName = "imagenet"
    out: Annotated[str, Option("The image file to write.", metavar="FILE")] = "sheet.png"
    rows: Annotated[int, Option("How many photos.", metavar="N")] = 6
    columns: Annotated[int, Option("How many epochs of each.", metavar="K")] = 5
    seed: Seed = 0
    epoch: Annotated[int, Option("The first of the epochs.", metavar="E")] = 0
    split: Split = None
    plugins: Plugins = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainOptions(DatasetOptions):
    """Which sample to explain, in which epoch."""

    path: DatasetPath
    sample: Annotated[int, Option("Position in the index.", metavar="I", word="--id")]
    epoch: Annotated[int, Option("Which epoch.", metavar="E")] = 0
    recipe: RecipeName = "imagenet"
    seed: Seed = 0
    out: Annotated[
        str | None, Option("Draw the crop on its photo into this file.", metavar="FILE")
    ] = None
    split: Split = None
    as_json: AsJson = False
    plugins: Plugins = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PcaOptions(DatasetOptions):
    """Which images to measure."""

    path: DatasetPath
    out: Annotated[str, Option("The file to write.", metavar="FILE")] = "pca.toml"
    num_samples: Annotated[
        int,
        Option("How many images to read, chosen by their paths.", metavar="N", word="--samples"),
    ] = 3000
    split: Split = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipesOptions:
    """What to print: all presets, one recipe, or the schema."""

    name: Annotated[str | None, Argument("Preset, or a TOML file: print it as TOML.")] = None
    size: Annotated[
        int | None, Option("Evaluation (NAME eval): side of the crop [224].", metavar="PX", least=1)
    ] = None
    crop_pct: Annotated[
        float | None, Option("Evaluation: the crop's side as a share [0.875].", metavar="F")
    ] = None
    filter: Annotated[
        str | None, Option("Evaluation: antialias, bicubic or linear [antialias].", metavar="NAME")
    ] = None
    squash: Annotated[bool, Option("Evaluation: give up the aspect, and crop less.")] = False
    from_weights: Annotated[
        str | None,
        Option("Print how torchvision's or timm's weights are evaluated.", metavar="[timm:]NAME"),
    ] = None
    from_timm: Annotated[
        str | None,
        Option("Print the training recipe of timm's string rand-m9-mstd0.5-inc1.", metavar="SPEC"),
    ] = None
    training: Annotated[
        bool, Option("With --from-weights: how they were trained, where that is known.")
    ] = False
    schema: Annotated[bool, Option("Print the JSON schema of recipes, for editors.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions(DatasetOptions):
    """Which batch of which run. Exactly one of `path` and `connect` is given."""

    path: Annotated[str | None, Argument("Folder or manifest that was trained from.")] = None
    connect: Annotated[
        str | None, Option("Read the batch from a running daemon instead.", metavar="ADDR")
    ] = None
    epoch: Annotated[int, Option("Which epoch.", metavar="E")] = 0
    batch: Annotated[int, Option("Which batch of it, from 0 on.", metavar="N")] = 0
    recipe: RecipeName = "imagenet"
    batch_size: Annotated[int, Option("Images per batch.", metavar="B")] = 256
    seed: Seed = 0
    shuffle: Annotated[
        bool, Option("As the stream was connected.", word="--shuffle/--no-shuffle")
    ] = True
    blocks: Annotated[
        str | None,
        Option('Where the run had shuffle="blocks:SIZExWINDOW".', metavar="SIZExWINDOW"),
    ] = None
    repeats: Annotated[
        str | None, Option("Where the run had repeats.", metavar="N|COUNTxSPREAD")
    ] = None
    drop_last: Annotated[bool, Option("As the stream was connected.")] = False
    rank: Annotated[int, Option("Rank of the trainer.", metavar="R")] = 0
    world: Annotated[int, Option("Number of ranks.", metavar="W")] = 1
    dataset: Annotated[
        str | None, Option("Which one, if the daemon serves several.", metavar="NAME")
    ] = None
    split: Split = None
    bad: Annotated[str, Option("As the stream was connected.", metavar="mask|fail")] = "mask"
    state: Annotated[
        str | None,
        Option("Saved state_dict(), as JSON, whose quarantine and content apply.", metavar="FILE"),
    ] = None
    out: Annotated[str | None, Option("Write the batch here, as .npz.", metavar="FILE")] = None
    expect: Annotated[
        str | None, Option("Compare with this batch.digest of the run.", metavar="DIGEST")
    ] = None
    against: Annotated[
        str | None, Option("Compare with an earlier --out, row by row.", metavar="FILE")
    ] = None
    keys: ClientKeys = None
    plugins: Plugins = ()


_ClientName = Annotated[str, Argument("Name of the client.", metavar="NAME")]
_KeyFolder = Annotated[
    Path | None, Option("Folder of the keys [~/.config/augd/keys].", metavar="DIR", word="--dir")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRights:
    """What a client may do; no datasets are all of them."""

    datasets: Annotated[
        tuple[str, ...],
        Option(
            "Dataset that the client may read; repeat for more [all].",
            metavar="NAME",
            word="--dataset",
        ),
    ] = ()
    max_streams: Annotated[int, Option("Streams that the client may have open.", metavar="N")] = (
        STREAMS_DEFAULT
    )
    max_gigabytes: Annotated[float, Option("Memory of all its streams, in GB.", metavar="GB")] = (
        BYTES_DEFAULT / 10**9
    )
    produce: Annotated[bool, Option("Allow producers to join with this key.")] = False
    folder: _KeyFolder = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysNewOptions(ClientRights):
    """A client whose key is made here."""

    name: _ClientName
    out: Annotated[Path | None, Option("File for the key [NAME.key].", metavar="FILE")] = None
    server: Annotated[
        str | None,
        Option("Make only a key pair, for the daemon with this public key.", metavar="PUBLIC_KEY"),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysAddOptions(ClientRights):
    """A client whose key was made on its own host."""

    name: _ClientName
    public: Annotated[
        str, Argument("Public key that `augd keys new --server` printed.", metavar="PUBLIC_KEY")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysListOptions:
    """Where the keys are."""

    folder: _KeyFolder = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRemoveOptions:
    """Which key to remove."""

    name: _ClientName
    folder: _KeyFolder = None
