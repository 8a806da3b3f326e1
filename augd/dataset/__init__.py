"""Datasets on disk: folders and manifests as mapped index files, and choices from them."""
