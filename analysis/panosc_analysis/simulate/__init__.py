"""Forward models that write runs with known truth, for tests, demonstrations and benchmarks."""
