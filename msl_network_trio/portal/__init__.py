"""Threads and Trio: calls into the loop, interruptible waits, background threads, state of the process."""
