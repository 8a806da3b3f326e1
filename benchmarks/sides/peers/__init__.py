"""The loaders that augd is measured beside: one program each, in an environment of its own.

They may import `benchmarks._rounds`, `_tree`, `_law` and `_loop`, which need the standard
library and NumPy alone, and their own library; nothing else of the checkout.
"""
