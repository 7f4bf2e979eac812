"""Measures pyvirtd and, where it is installed, Debian's libvirtd with the same client work in one run."""
