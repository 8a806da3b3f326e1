"""Data sets on disk: folders scanned into mapped index files."""
