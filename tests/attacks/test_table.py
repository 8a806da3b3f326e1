"""`tests/attacks/README.md` lists every attack as its docstring tells it.

`python -m tests.attacks.test_table` writes the table anew.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.attacks.catalogue import Attack, all_attacks

DOCUMENT = Path(__file__).with_name("README.md")
_BLOCK = re.compile(r"(<!-- table: attacks -->\n).*?(<!-- end -->)", re.DOTALL)


def row(attack: Attack) -> str:
    name = attack.play.__name__.replace("_", " ")
    withstood = "yes" if attack.is_withstood else "**no**"
    return f"| {attack.number} | {name} | {attack.does} | {attack.seen} | {withstood} |"


def render() -> str:
    head = [
        "| no. | attack | what the attacker does | what is seen | withstood |",
        "|---" * 5 + "|",
    ]
    return "\n".join([*head, *map(row, all_attacks())])


def written_anew(text: str) -> str:
    return _BLOCK.sub(lambda found: f"{found[1]}\n{render()}\n\n{found[2]}", text)


def test_the_table_is_what_the_docstrings_say() -> None:
    text = DOCUMENT.read_text()
    assert "| A01 |" in text
    assert text == written_anew(text), "run python -m tests.attacks.test_table"


def test_every_attack_says_what_it_does_and_what_is_seen() -> None:
    for attack in all_attacks():
        assert attack.does.endswith(".") and attack.seen.endswith("."), attack.number
        assert "|" not in attack.does + attack.seen, attack.number


if __name__ == "__main__":
    DOCUMENT.write_text(written_anew(DOCUMENT.read_text()))
