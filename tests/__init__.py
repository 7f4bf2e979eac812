"""Tests; they mirror the tree of pyvirtd/ and drivers/."""
