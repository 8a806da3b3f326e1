"""The real broker and the real readers, moved by a seeded scheduler with bad luck.

`world` holds a daemon, its producers and trainers, and the ways between them. `moves` changes one
thing at a time. `invariants` looks at everything after each. `rules` takes the protocol's rules out
one by one, so that `test_rules` can show that the schedules notice.
"""
