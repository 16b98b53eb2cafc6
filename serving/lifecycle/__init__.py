"""Which versions live: control, leases, failover, shadows."""
