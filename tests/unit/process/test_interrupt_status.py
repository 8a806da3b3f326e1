"""A command that Ctrl-C ends has the status of that, also while modules are imported."""

from __future__ import annotations

import pytest

from augd.process import command


class Interrupts:
    def __set_name__(self, owner: type, name: str) -> None:
        raise KeyboardInterrupt


def make_a_class() -> None:
    type("Made", (), {"field": Interrupts()})


def fail() -> None:
    raise RuntimeError("of our own")


def test_ctrl_c_while_a_class_is_made_is_ctrl_c():
    assert command._status_of("augd", make_a_class) == 130


def test_another_error_is_none():
    with pytest.raises(RuntimeError, match="of our own"):
        command._status_of("augd", fail)
