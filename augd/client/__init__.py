"""The client: what a training process imports to start daemons, connect and receive batches."""
