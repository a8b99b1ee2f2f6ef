"""Drivers: where a graph is kept. A file each, opened by address in `opened`."""
