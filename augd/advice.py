"""`augd bench --explain`: who waits for whom with one's own data and step, and what would help.

Nothing is extrapolated: what the verdict advises is tried at once, with a daemon of its own, and
both measurements are shown. A trial is a change of the setting; others are added to `_TRIALS`.
Watching a daemon at work opens no stream: its trainers are the loop that is explained.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from augd.errors import OptionError
from augd.launch import serve
from augd.meter import Measurement, measure, opened, verdict_on
from augd.stream import Batch
from augd.verdict import LITTLE, Verdict

Step = Callable[[Batch], object]

_STEP_MAX_MS = 60_000


@dataclass(frozen=True, slots=True)
class Setting:
    """What a measurement is made with."""

    path: str
    recipe: Mapping[str, Any]
    batch_size: int
    producers: int
    plugins: Sequence[str] = ()
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """A setting that was measured; `what` says how it differs from the first."""

    what: str
    setting: Setting
    measured: Measurement
    verdict: Verdict

    def as_plain(self) -> dict[str, Any]:
        """Write it as plain data."""
        return {
            "what": self.what,
            "producers": self.setting.producers,
            **asdict(self.measured),
            **asdict(self.verdict),
        }


def find_step(text: str | None) -> Step | None:
    """Find what a training does with a batch: MODULE:FUNCTION, or milliseconds that it takes.

    Raises:
        OptionError: neither; or it cannot be imported.
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
    sys.path.insert(0, os.getcwd())
    try:
        step: Step = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise OptionError(
            f"--step {text}: {error}; it is looked for in this folder first"
        ) from None
    return step


def explain(setting: Setting, step: Step | None, seconds: float) -> Iterator[Tried]:
    """Measure the setting, then what its verdict and the trials make of it."""
    base = _try("as asked", setting, step, seconds)
    yield base
    for trial in _TRIALS:
        changed = trial(base)
        if changed is not None:
            yield _try(*changed, step, seconds)


def _try(what: str, setting: Setting, step: Step | None, seconds: float) -> Tried:
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
        measured = measure(batches, probe, seconds, step)
    return Tried(what, setting, measured, verdict_on(measured, setting.producers))


Trial = Callable[[Tried], tuple[str, Setting] | None]


def _other_producers(base: Tried) -> tuple[str, Setting] | None:
    """Follow the verdict, or see what one more does where it cannot say how many."""
    now = base.setting.producers
    wanted = base.verdict.enough
    if base.verdict.limit == "producers" and wanted is None:
        wanted = now + 1
    if wanted is None or wanted == now or base.verdict.limit == "both":
        return None
    text = f"{wanted} producer{'s' if wanted > 1 else ''} instead of {now}"
    return text, replace(base.setting, producers=wanted)


def _scaled_decode(base: Tried) -> tuple[str, Setting] | None:
    """Decode large photos smaller, where decoding is what is waited for; other pixels come out."""
    if base.verdict.limit != "producers" or base.setting.recipe.get("scaled_decode") == "auto":
        return None
    recipe = {**base.setting.recipe, "scaled_decode": "auto"}
    return 'scaled_decode="auto" (other pixels)', replace(base.setting, recipe=recipe)


_TRIALS: tuple[Trial, ...] = (_other_producers, _scaled_decode)


def say(tried: Sequence[Tried], num_cores: int) -> Iterator[str]:
    """Put what was found into lines for people."""
    base = tried[0]
    yield base.verdict.sentence
    for one in tried:
        found = one.measured
        yield (
            f"  {one.what}: {found.images_per_s:,.0f} images/s, the trainer waited "
            f"{found.client_wait_share:.0%}, the producers {found.producers_idle_share:.0%}"
        )
    if base.setting.producers >= num_cores and base.verdict.limit == "producers":
        yield f"There are {num_cores} cores: more producers than cores only share them."
    yield _conclude(tried)


def _conclude(tried: Sequence[Tried]) -> str:
    """Name what helped most, as it was measured."""
    base, *others = tried
    best = max(others, key=lambda one: one.measured.images_per_s, default=base)
    gain = best.measured.images_per_s / base.measured.images_per_s
    if best is not base and base.verdict.limit == "producers" and gain > 1 + LITTLE:
        return f"What helped most: {best.what}, {gain:.2f} times the images/s."
    if best is not base and base.verdict.limit == "trainer":
        return f"{best.what}: {gain:.2f} times the images/s, as was to be shown."
    return "Nothing that was tried made it faster by a tenth."
