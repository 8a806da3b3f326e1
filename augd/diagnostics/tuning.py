"""`augd bench --explain`: the bottleneck with the user's own data and step, and what would help.

Runs in the command's process. Nothing is extrapolated: each advice is tried at once, with a daemon
of its own, and both measurements are shown. A trial changes the setting, or how the images are
stored. The latter is tried on a subset, which is also measured unchanged. New trials belong into
`_TRIALS`. To watch a daemon at work no stream is opened: its trainers are the loop explained.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from augd.client.batch import Batch
from augd.client.serve import serve
from augd.dataset.source_spec import parse_own
from augd.diagnostics.bottleneck import LITTLE, Bottleneck
from augd.diagnostics.measure import Measurement, fill_cache, measure, opened, verdict_on
from augd.diagnostics.subset import Subset, copy_subset
from augd.errors import OptionError, counted
from augd.pixels import native
from augd.plan.recipe.phases import plain_at
from augd.process import interpreter
from augd.transport.arena import available_bytes

Step = Callable[[Batch], object]

_STEP_MAX_MS = 60_000
_PACKING_MAX_S = 120.0  # of a sample, which takes seconds
# Share of the free memory for a cache: the trainer and the page cache need the rest.
_CACHE_SHARE = 0.6
# Decoded images don't fill the extents of a cache to the last byte.
_CACHE_SPARE = 1.1
_CACHE_SPARE_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Setting:
    """The options of a measurement."""

    path: str
    recipe: Mapping[str, Any]
    batch_size: int
    producers: int
    plugins: Sequence[str] = ()
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class TrialResult:
    """A setting that was measured; `what` says how it differs from the first.

    `against` is the result to compare it with, None for a baseline. `advice` is what to do if it
    helps.
    """

    what: str
    setting: Setting
    measured: Measurement
    verdict: Bottleneck
    against: TrialResult | None = None
    advice: str = ""

    def gain(self, tried: Sequence[TrialResult | SkippedTrial]) -> float | None:
        """Return the ratio of images per second to the fastest run of its baseline.

        None for a baseline.
        """
        if self.against is None:
            return None
        setting = self.against.setting
        runs = [one for one in tried if isinstance(one, TrialResult) and one.setting == setting]
        fastest = max(one.measured.images_per_s for one in (self.against, *runs))
        return self.measured.images_per_s / fastest

    def as_plain(self, tried: Sequence[TrialResult | SkippedTrial]) -> dict[str, Any]:
        """Return it as plain data; `tried` holds all results."""
        return {
            "what": self.what,
            "producers": self.setting.producers,
            "against": None if self.against is None else self.against.what,
            "gain": self.gain(tried),
            "advice": self.advice,
            **asdict(self.measured),
            **asdict(self.verdict),
        }


@dataclass(frozen=True, slots=True)
class SkippedTrial:
    """A trial that was not possible, and why."""

    what: str
    why: str

    def as_plain(self, tried: Sequence[TrialResult | SkippedTrial]) -> dict[str, Any]:
        """Return it as plain data; `tried` holds all results."""
        return {"what": self.what, "not_tried": self.why}


def find_step(text: str | None) -> Step | None:
    """Return the training step: MODULE:FUNCTION, or a pause of so many milliseconds.

    Raises:
        OptionError: the text is neither, or the function cannot be imported.
    """
    if text is None:
        return None
    if text.replace(".", "", 1).isdigit() and float(text) <= _STEP_MAX_MS:
        seconds = float(text) / 1000
        return lambda batch: time.sleep(seconds)
    module, separator, name = text.partition(":")
    if not separator:
        raise OptionError(
            f"--step: expected MODULE:FUNCTION, which is called with each batch, or milliseconds "
            f"in 0..{_STEP_MAX_MS}, got {text!r}"
        )
    try:
        step: Step = getattr(interpreter.import_named(module), name)
    except (ImportError, AttributeError) as error:
        raise OptionError(f"--step {text}: {error}. {interpreter.HOW_NAMED}") from None
    return step


Try = Callable[[str, Setting], TrialResult]
Trial = Callable[[TrialResult, Try], Iterator[TrialResult | SkippedTrial]]


def explain(
    setting: Setting, step: Step | None, seconds: float
) -> Iterator[TrialResult | SkippedTrial]:
    """Measure the setting, then every trial that applies to its bottleneck.

    A baseline is measured before and after the trials: the difference is the noise.
    """

    def run(what: str, changed: Setting) -> TrialResult:
        return _try(what, changed, step, seconds)

    base = run("as asked", setting)
    yield base
    found = [one for trial in _TRIALS for one in trial(base, run)]
    yield from found
    is_compared = any(isinstance(one, TrialResult) and one.against is base for one in found)
    if is_compared and base.verdict.limit == "producers":
        yield run("as asked, once more", setting)


def _try(what: str, setting: Setting, step: Step | None, seconds: float) -> TrialResult:
    with ExitStack() as stack:
        daemon = stack.enter_context(
            serve(
                setting.path,
                producers=setting.producers,
                plugins=setting.plugins,
                cache=setting.cache,
            )
        )
        asked = daemon.address, setting.recipe, setting.batch_size
        _, probe, batches = stack.enter_context(opened(*asked))
        if setting.cache is not None:
            fill_cache(probe, batches)
        measured = measure(batches, probe, seconds, step)
    return TrialResult(what, setting, measured, verdict_on(measured, setting.producers))


def _other_producers(base: TrialResult, run: Try) -> Iterator[TrialResult]:
    """Try the advised number of producers, or one more if that number is unknown."""
    now = base.setting.producers
    wanted = base.verdict.enough
    if base.verdict.limit == "producers" and wanted is None:
        wanted = now + 1
    if wanted is None or wanted == now or base.verdict.limit == "both":
        return
    text = f"{wanted} producer{'s' if wanted > 1 else ''} instead of {now}"
    found = run(text, replace(base.setting, producers=wanted))
    yield replace(found, against=base, advice=f"--producers {wanted}")


def _scaled_decode(base: TrialResult, run: Try) -> Iterator[TrialResult]:
    """Decode large images smaller, if decoding is the limit; the pixels differ."""
    asked = base.setting.recipe
    if base.verdict.limit != "producers" or plain_at(asked, 0).get("scaled_decode") == "auto":
        return
    recipe = {**asked, "scaled_decode": "auto"}
    if "phases" in asked:
        recipe = {"phases": [{**phase, "scaled_decode": "auto"} for phase in asked["phases"]]}
    found = run('scaled_decode="auto" (other pixels)', replace(base.setting, recipe=recipe))
    yield replace(found, against=base, advice='scaled_decode = "auto" in the recipe')


def _storage(base: TrialResult, run: Try) -> Iterator[TrialResult | SkippedTrial]:
    """Pack a subset of the images, and cache it decoded, if decoding is the limit."""
    if base.verdict.limit != "producers" or base.setting.cache is not None:
        return
    if parse_own(base.setting.path) is not None:
        yield SkippedTrial("packing, and a cache", "the samples of an own source are not copied")
        return
    try:
        with tempfile.TemporaryDirectory(prefix="augd-explain-") as folder:
            sample = copy_subset(base.setting.path, os.path.join(folder, "sample"))
            if sample is not None:
                with _indexes_in(folder):
                    yield from _try_storage(base, run, sample, os.path.join(folder, "packed"))
    except OSError as error:
        why = f"no sample can be written to {tempfile.gettempdir()}: {error.strerror}; set TMPDIR"
        yield SkippedTrial("packing, and a cache", why)


@contextmanager
def _indexes_in(folder: str) -> Iterator[None]:
    """Keep the indexes of temporary datasets in a folder, and not among the user's."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = folder
    try:
        yield
    finally:
        del os.environ["XDG_CACHE_HOME"]
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


def _try_storage(
    base: TrialResult, run: Try, sample: Subset, target: str
) -> Iterator[TrialResult | SkippedTrial]:
    photos = f"{sample.num_images:,} of {counted(sample.num_samples, 'photo')}"
    plain = replace(base.setting, path=sample.path)
    packed = replace(base.setting, path=target)
    why = ""
    if native.kernels is None:
        why = "it needs the native kernels; augd doctor says why there are none"
    elif not sample.num_jpegs:
        why = "there is no JPEG among the photos"
    else:
        why = _pack(sample.path, target)
    if why and not sample.is_segmented:
        yield SkippedTrial("packing", why)
    # A packed dataset is packed again, to be compared with the same images in a cache.
    is_packed = sample.is_segmented and not why
    alone = run(f"{photos}, copied", packed if is_packed else plain)
    yield alone
    if not why and not is_packed:
        found = run("the same, packed", packed)
        yield replace(found, against=alone, advice=f"augd pack {base.setting.path} DST; serve DST")
    if plain_at(base.setting.recipe, 0).get("scaled_decode", "off") == "off":
        yield from _try_cache(run, alone, sample)
    yield run(f"{alone.what}, once more", alone.setting)


def _try_cache(
    run: Try, alone: TrialResult, sample: Subset
) -> Iterator[TrialResult | SkippedTrial]:
    wanted = _cache_bytes(sample.all_decoded_bytes)
    free = int(_CACHE_SHARE * available_bytes())
    if wanted > free:
        why = (
            f"decoded, the photos take about {_in_gb(wanted)}, and {_in_gb(free)} can be spared "
            f"here; --cache disk:DIR:{_in_gb(wanted)} where a fast disk has the room"
        )
        yield SkippedTrial("a cache in memory", why)
        return
    cache = f"ram:{_cache_bytes(sample.decoded_bytes) // 1_000_000 + 1}MB"
    found = run("the same, from a filled cache", replace(alone.setting, cache=cache))
    yield replace(found, against=alone, advice=f"--cache ram:{_in_gb(wanted)}")


def _cache_bytes(decoded_bytes: int) -> int:
    return int(_CACHE_SPARE * decoded_bytes) + _CACHE_SPARE_BYTES


def _in_gb(size_bytes: int) -> str:
    return f"{-(-size_bytes // 100_000_000) / 10:g}GB"


def _pack(source: str, target: str) -> str:
    """Pack as a user would; return the reason of a failure, else an empty text."""
    words = "pack", source, target, "--json"
    try:
        done = interpreter.run(
            *("augd", *words), capture_output=True, text=True, timeout=_PACKING_MAX_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"the sample took longer than {_PACKING_MAX_S:g} s"
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


_TRIALS: tuple[Trial, ...] = (_other_producers, _scaled_decode, _storage)


def say(tried: Sequence[TrialResult | SkippedTrial], num_cores: int) -> Iterator[str]:
    """Yield the findings as lines for users."""
    measured = [one for one in tried if isinstance(one, TrialResult)]
    base = measured[0]
    yield base.verdict.sentence
    for one in tried:
        if isinstance(one, SkippedTrial):
            yield f"  not tried: {one.what}: {one.why}"
            continue
        found, gain = one.measured, one.gain(tried)
        times = "" if gain is None else f", {gain:.2f} times as many"
        yield (
            f"  {one.what}: {found.images_per_s:,.0f} images/s{times}, the trainer waited "
            f"{found.client_wait_share:.0%}, the producers {found.producers_idle_share:.0%}"
        )
    if base.setting.producers >= num_cores and base.verdict.limit == "producers":
        yield f"There are {counted(num_cores, 'core')}: more producers than cores only share them."
    yield from _conclude(measured)


def _conclude(tried: Sequence[TrialResult]) -> Iterator[str]:
    """Name what helped, best first, each against its baseline."""
    base = tried[0]
    gains = [(gain, one) for one in tried if (gain := one.gain(tried)) is not None]
    gains.sort(key=lambda found: -found[0])
    if base.verdict.limit == "trainer":
        for gain, one in gains[:1]:
            yield f"{one.what}: {gain:.2f} times the images/s, as expected."
            return
    helpful = [(gain, one) for gain, one in gains if gain > 1 + LITTLE]
    if base.verdict.limit != "producers" or not helpful:
        yield "Nothing that was tried made it faster by a tenth."
        return
    for number, (gain, one) in enumerate(helpful):
        how = "Also" if number else "What helped most"
        yield f"{how}: {one.what}, {gain:.2f} times the images/s: {one.advice}"
