"""Saved guests: a paused guest's state in a file, and back.

`transfer` moves the state between QEMU and a descriptor.
"""
