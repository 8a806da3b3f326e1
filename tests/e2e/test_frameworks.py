"""Lightning and Hugging Face's Trainer learn from a stream, as the examples show."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.scenes import make_coloured

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]

LIGHTNING = """
from examples.lightning_fit import main
fit = main("photos", max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False,
           enable_checkpointing=False, enable_model_summary=False)
print(fit.global_step, fit.current_epoch, float(fit.callback_metrics["loss"]))
"""
HUGGING_FACE = """
from examples.hugging_face import main
done = main("photos", num_train_epochs=2, per_device_train_batch_size=20, use_cpu=True,
            save_strategy="no", disable_tqdm=True)
print(done.global_step, 2, done.training_loss)
"""


@pytest.mark.parametrize(
    ("module", "program", "steps"),
    [("lightning", LIGHTNING, 2 * 3), ("transformers", HUGGING_FACE, 2 * 4)],
    ids=["lightning", "hugging-face"],
)
def test_it_trains(module, program, steps, tmp_path):
    pytest.importorskip(module, reason="the extra examples is not installed")
    make_coloured(tmp_path / "photos", per_class=40)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=115,
    )
    assert done.returncode == 0, done.stderr
    found, epochs, loss = done.stdout.splitlines()[-1].split()
    assert (int(found), int(epochs)) == (steps, 2)
    assert math.isfinite(float(loss)) and float(loss) < 1.5
