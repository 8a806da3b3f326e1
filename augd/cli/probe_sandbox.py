"""`augd doctor` has this program confine itself: there is no way back for a process that did.

Prints what holds then, as a producer says it.
"""

from __future__ import annotations

from augd.process.sandbox import confine

if __name__ == "__main__":
    print(confine())
