"""docs/scale-out/clusters.md gives files to copy: the tools and the command accept them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from augd.cli.app import app

PAGE = (Path(__file__).parents[2] / "docs" / "scale-out" / "clusters.md").read_text()
ANALYZE = shutil.which("systemd-analyze")


def block(language: str) -> str:
    """Return the page's only block of this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


def check_command(words: list[str]) -> None:
    """Have the command line read these words; it fails at an option that there is not."""
    name, *rest = words
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, list(rest))
    assert context.params["paths"] == ["photos=/data/photos"]
    assert context.params["connect"].endswith(":7000")


def test_the_deployment_is_whole() -> None:
    yaml = pytest.importorskip("yaml", reason="the extra docs is not installed")
    manifest = yaml.safe_load(block("yaml"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("apps/v1", "Deployment")
    spec = manifest["spec"]
    pod = spec["template"]["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    assert spec.keys() == {"replicas", "selector", "template"}
    assert pod.keys() == {
        *("terminationGracePeriodSeconds", "containers", "volumes", "securityContext"),
    }
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == volumes.keys()
    assert volumes["keys"]["secret"]["defaultMode"] == 0o400, "a key others can read is refused"
    augd, *words = container["command"]
    assert augd == "augd"
    check_command(words)
    arguments = dict(zip(words[2::2], words[3::2], strict=True))
    assert arguments["--keys"].startswith(mounts["keys"] + "/")
    assert words[1] == f"photos={mounts['photos']}"
    (named,) = container["env"]
    assert arguments["--host"] == f"$({named['name']})"
    assert named["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"
    # A producer may take 2 GiB of data; the requests hold one core for each.
    assert container["resources"]["requests"]["cpu"] == arguments["--producers"]


def exec_start() -> list[str]:
    (line,) = re.findall(r"^ExecStart=(.*)$", block("ini"), re.MULTILINE)
    return shlex.split(line)


def test_the_unit_starts_a_command_that_there_is() -> None:
    program, *words = exec_start()
    assert program.endswith("/augd")
    check_command(words)


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "augd-produce.service"
    # Its program isn't installed here, and systemd looks for it.
    unit.write_text(block("ini").replace(exec_start()[0], sys.executable))
    command = [str(ANALYZE), "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in done.stderr.splitlines() if "augd-produce.service" in line]
    assert not said, said
    assert done.returncode == 0, done.stderr
    unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=gently"))
    wrong = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "augd-produce.service" in wrong.stderr, "it would say if a word were wrong"


def test_the_steps_of_slurm_are_commands_that_there_are() -> None:
    (script,) = re.findall(r"^```\n(#!/bin/bash\n.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    lines = re.findall(r"augd (produce .*?) &$", script, re.MULTILINE)
    assert len(lines) == 1
    check_command(shlex.split(lines[0]))
    check = subprocess.run(["bash", "-n"], input=script, text=True, timeout=20, check=False)
    assert check.returncode == 0
