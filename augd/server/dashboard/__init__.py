"""The page: a program of its own that shows by HTTP what a daemon does (extra `http`).

Started by the daemon, ends with it, and only reads: snapshots and where a batch lies come over a
link (`lookout`), rows are copied out of a slot that is mapped for reading (`pictures`), and files
are decoded in a confined process beside it (`studio`), so that no image can harm it. `app` holds
the routes, `guard` who may call them, `metrics` the words of Prometheus.
"""
