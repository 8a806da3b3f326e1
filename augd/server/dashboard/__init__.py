"""The dashboard: a program of its own that shows by HTTP what a daemon does (extra `http`).

The daemon starts it and it ends with the daemon. It only reads. Snapshots and the positions of
batches come over a link (`daemon_link`). Rows are copied out of a slot that is mapped for reading
(`batch_images`). Files are decoded in a confined process beside it (`sample_viewer`), so that no
image can harm it. `app` has the routes, `auth` decides who may call them, `history` keeps recent
reports, and `metrics` writes them for Prometheus.
"""
