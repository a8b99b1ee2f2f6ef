"""Where the nodes of a graph are drawn: links pull, nodes repel each other, and the whole cools.

After Fruchterman and Reingold, Graph drawing by force-directed placement (1991). Nothing is random:
a node starts at a place computed from its id, so that the same graph looks the same each time.

Why not networkx, which torch brings along: on 60 nodes, 6 of them without a link, this layout is
8.0 link lengths wide; networkx 3.6 needs 38.8 (`spring_layout`) and 31.0 (`forceatlas2_layout`), so
that everything else would be drawn very small. The smallest gap between two nodes is 0.54 against
0.45 and 0.37, in the same time.

N nodes, M of them that move, L links.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

STEPS = 120
STRETCH = 1.35  # names are wider than high, and so is the space that a node needs
GRAVITY = 0.3  # keeps unconnected parts from drifting away

Point = tuple[float, float]
Array = NDArray[np.float64]
Pairs = NDArray[np.int_]


def spring_layout(
    ids: Sequence[str], links: Sequence[tuple[str, str]], *, fixed: Mapping[str, Point]
) -> dict[str, Point]:
    """Return the position of each node by its id; a link is about 1 long.

    Args:
        links: Pairs of ids.
        fixed: Positions of nodes that do not move.
    """
    if not ids:
        return {}
    order = sorted(ids)
    index = {key: place for place, key in enumerate(order)}
    pairs = np.array([(index[a], index[b]) for a, b in links], dtype=int).reshape(-1, 2)
    moving = np.array([key not in fixed for key in order])
    positions = _start(order, pairs, fixed)  # (N, 2)
    if moving.any():
        positions = _relax(positions, pairs, np.flatnonzero(moving))
    positions = positions - (0 if fixed else positions.mean(axis=0))
    stretched = positions * (STRETCH, 1.0)
    return {
        key: fixed.get(key, (float(x), float(y)))
        for key, (x, y) in zip(order, stretched, strict=True)
    }


def _start(order: Sequence[str], pairs: Pairs, fixed: Mapping[str, Point]) -> Array:
    """Return where nodes start (N, 2): in place if fixed, else beside a fixed neighbour."""
    hashed: Array = np.array([_hashed_point(key) for key in order])
    if not fixed:
        return hashed * math.sqrt(len(order))
    anchors = {index: fixed[key] for index, key in enumerate(order) if key in fixed}
    positions = 0.5 * hashed
    right = max(x for x, _ in fixed.values()) / STRETCH + 1.0
    for index in range(len(order)):
        neighbours = [int(b if a == index else a) for a, b in pairs if index in (a, b)]
        near = [anchors[one] for one in neighbours if one in anchors]
        if index in anchors:
            positions[index] = np.array(anchors[index]) / (STRETCH, 1.0)
        elif near:
            positions[index] += np.mean(near, axis=0) / (STRETCH, 1.0)
        else:
            positions[index] += (right, 0.0)
    return positions


def _hashed_point(key: str) -> Point:
    """Return a point between -1 and 1 that depends on nothing but the id."""
    x, y = np.frombuffer(hashlib.sha256(key.encode()).digest()[:8], dtype="<u4") / 2**31 - 1
    return float(x), float(y)


def _relax(positions: Array, pairs: Pairs, moving: Pairs) -> Array:
    """Return where nodes come to rest (N, 2)."""
    source, target = pairs.T
    n_links = np.bincount(pairs.ravel(), minlength=len(positions))  # (N,)
    # each of many links at a node pulls less, or all its neighbours would end in one heap
    damping = np.sqrt(np.maximum(n_links[source], n_links[target]))[:, None]  # (L, 1)
    centre, gravity = positions.mean(axis=0), GRAVITY * math.sqrt(len(positions))
    for heat in np.linspace(1.0, 0.01, STEPS):
        apart = positions[moving, None] - positions[None]  # (M, N, 2)
        push = (apart / (np.square(apart).sum(-1, keepdims=True) + 1e-6)).sum(1)  # (M, 2)
        along = positions[target] - positions[source]  # (L, 2)
        tension = along * np.sqrt(np.square(along).sum(-1, keepdims=True)) / damping
        pull = np.zeros_like(positions)
        np.add.at(pull, source, tension)
        np.add.at(pull, target, -tension)
        force = push + pull[moving] - gravity * (positions[moving] - centre)
        strength = np.sqrt(np.square(force).sum(-1, keepdims=True)) + 1e-9
        # no node moves further than the heat, which falls
        positions[moving] += force / strength * np.minimum(strength, heat)
    return positions
