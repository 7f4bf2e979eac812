"""The in-memory driver, test:///default: shows how a driver plugs in, and tests the daemon without QEMU."""

from pyvirtd.drivers.test.driver import TestDriver

__all__ = ["TestDriver"]
