"""The loop: a store of what was seen, a work queue, the difference of wanted and seen, and its execution."""
