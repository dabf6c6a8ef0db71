"""The outside world: the API server, the leader's Lease, the drivers' progress, HTTP for probes and Prometheus."""
