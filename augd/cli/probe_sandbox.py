"""A program that `augd doctor` starts to enter the sandbox, which a process cannot leave again.

Prints which confinement holds then, in a producer's words.
"""

from __future__ import annotations

from augd.process.sandbox import confine

if __name__ == "__main__":
    print(confine())
