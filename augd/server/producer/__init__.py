"""The producer: takes leases, makes rows in shared memory, and reports them."""
