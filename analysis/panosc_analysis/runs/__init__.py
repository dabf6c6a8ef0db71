"""Reading and writing of runs; no physics."""
