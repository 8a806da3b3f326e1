"""Names of datasets in key files: what is written is read back, whatever the characters are."""

from __future__ import annotations

from pathlib import Path

import pytest

from augd.errors import OptionError
from augd.protocol.permissions import Rights
from augd.transport.auth import keys


@pytest.mark.parametrize("name", ["photos", 'a "b" \\ c', "été", "\N{CAT FACE}", "a\x7fb\x1f\n"])
def test_a_name_is_read_back(name: str, tmp_path: Path) -> None:
    keys.make_server_pair(tmp_path)
    known = keys.KnownClient(keys.make_pair().public, Rights("ann", datasets=(name,)))
    keys.register(tmp_path, known)
    (found,) = keys.read_clients(tmp_path).values()
    assert isinstance(found, keys.KnownClient) and found.rights.datasets == (name,)


def test_a_name_that_no_text_can_hold_is_refused(tmp_path: Path) -> None:
    known = keys.KnownClient(keys.make_pair().public, Rights("ann", datasets=("a\udcff",)))
    with pytest.raises(OptionError, match=r"dataset 'a.udcff': expected a name in UTF-8"):
        keys.register(tmp_path, known)
