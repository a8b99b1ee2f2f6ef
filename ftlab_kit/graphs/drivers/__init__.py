"""Drivers: where a graph is stored. One package each, opened by its address in `open_graph`."""
