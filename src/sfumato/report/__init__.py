"""Answering for what was done: one page, every figure of which names where it came from."""
