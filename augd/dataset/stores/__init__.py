"""Object stores: shards that lie in a bucket or behind HTTP, read by range. Uses obstore."""
