"""Readers: a sample's bytes from a folder, a tar shard or an object store. Decodes nothing."""
