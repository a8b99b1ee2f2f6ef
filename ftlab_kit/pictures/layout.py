"""Where the nodes of a graph stand: links pull, nodes push each other away, and all cool down.

After Fruchterman and Reingold, Graph drawing by force-directed placement (1991). Nothing is drawn
by lot: where a node begins is reckoned from its id, so that the same graph looks the same.

N nodes, M of them that move, L links.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

STEPS = 120
STRETCH = 1.35  # names are wider than high, and so is the place for them
GRAVITY = 0.3  # keeps parts that no link holds from drifting away

Point = tuple[float, float]
Array = NDArray[np.float64]
Pairs = NDArray[np.int_]


def settled(
    ids: Sequence[str], links: Sequence[tuple[str, str]], *, before: Mapping[str, Point]
) -> dict[str, Point]:
    """Return where each node stands, a link about 1 long.

    Args:
        links: Pairs of ids.
        before: Nodes that stay where they are.
    """
    if not ids:
        return {}
    order = sorted(ids)
    index = {key: at for at, key in enumerate(order)}
    pairs = np.array([(index[a], index[b]) for a, b in links], dtype=int).reshape(-1, 2)
    moving = np.array([key not in before for key in order])
    spots = _begin(order, pairs, before)  # (N, 2)
    if moving.any():
        spots = _cooled(spots, pairs, np.flatnonzero(moving))
    spots = spots - (0 if before else spots.mean(axis=0))
    wide = spots * (STRETCH, 1.0)
    return {
        key: before.get(key, (float(x), float(y))) for key, (x, y) in zip(order, wide, strict=True)
    }


def _begin(order: Sequence[str], pairs: Pairs, before: Mapping[str, Point]) -> Array:
    """Return where nodes begin (N, 2): as before, else beside a neighbour that was there before."""
    chances: Array = np.array([_chance(key) for key in order])
    if not before:
        return chances * math.sqrt(len(order))
    known = {at: before[key] for at, key in enumerate(order) if key in before}
    spots = 0.5 * chances
    right = max(x for x, _ in before.values()) / STRETCH + 1.0
    for at in range(len(order)):
        beside = [int(b if a == at else a) for a, b in pairs if at in (a, b)]
        near = [known[at]] if at in known else [known[one] for one in beside if one in known]
        start = np.mean(near, axis=0) / (STRETCH, 1.0) if near else (right, 0.0)
        spots[at] = start if at in known else spots[at] + start
    return spots


def _chance(key: str) -> Point:
    """Return a place within -1 and 1 that only depends on an id."""
    drawn = np.frombuffer(hashlib.sha256(key.encode()).digest()[:8], dtype="<u4") / 2**31 - 1
    return float(drawn[0]), float(drawn[1])


def _cooled(spots: Array, pairs: Pairs, moving: Pairs) -> Array:
    """Return where nodes come to rest (N, 2)."""
    source, target = pairs.T
    n_links = np.bincount(pairs.ravel(), minlength=len(spots))  # (N,)
    # where many links meet each pulls less, else all would lie upon each other in the middle
    weak = np.sqrt(np.maximum(n_links[source], n_links[target]))[:, None]  # (L, 1)
    centre, gravity = spots.mean(axis=0), GRAVITY * math.sqrt(len(spots))
    for heat in np.linspace(1.0, 0.01, STEPS):
        apart = spots[moving, None] - spots[None]  # (M, N, 2)
        push = (apart / (np.square(apart).sum(-1, keepdims=True) + 1e-6)).sum(1)  # (M, 2)
        along = spots[target] - spots[source]  # (L, 2)
        drawn = along * np.sqrt(np.square(along).sum(-1, keepdims=True)) / weak
        pull = np.zeros_like(spots)
        np.add.at(pull, source, drawn)
        np.add.at(pull, target, -drawn)
        force = push + pull[moving] - gravity * (spots[moving] - centre)
        strength = np.sqrt(np.square(force).sum(-1, keepdims=True)) + 1e-9
        spots[moving] += force / strength * np.minimum(strength, heat)
    return spots
