"""Random numbers that depend on seed, locus and chain alone: the same whatever the sharding, the workers or the order.

Streams are xoshiro256++ (Blackman & Vigna 2021, ACM TOMS 47), their states filled by splitmix64 from a key.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import numba as nb
import numpy as np

__all__ = ["keys", "normal", "stream", "uniform"]

type Array = np.ndarray


def keys(seed: int, names: Iterable[str]) -> Array:
    """Return the key (uint64) of each name under a seed."""
    prefix = f"{seed}\0".encode()
    digests = (hashlib.blake2b(prefix + name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(digests), dtype="<u8").copy()


@nb.njit(cache=True)
def stream(key: int, part: int) -> Array:
    """Return the state (4,) of the stream of a key and a part of it (a chain, a tier)."""
    state = np.empty(4, dtype=np.uint64)
    x = np.uint64(key) + np.uint64(0x632BE59BD9B4E019) * np.uint64(part + 1)
    for i in range(4):
        x += np.uint64(0x9E3779B97F4A7C15)
        z = x
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state[i] = z ^ (z >> np.uint64(31))
    return state


@nb.njit(cache=True)
def _rotated(x: Any, k: int) -> Any:
    return (x << np.uint64(k)) | (x >> np.uint64(64 - k))


@nb.njit(cache=True)
def uniform(state: Array) -> float:
    """Return the next number of (0, 1)."""
    result = _rotated(state[0] + state[3], 23) + state[0]
    t = state[1] << np.uint64(17)
    state[2] ^= state[0]
    state[3] ^= state[1]
    state[1] ^= state[2]
    state[0] ^= state[3]
    state[2] ^= t
    state[3] = _rotated(state[3], 45)
    return (float(result >> np.uint64(11)) + 0.5) / 9007199254740992.0


@nb.njit(cache=True)
def normal(state: Array, out: Array) -> None:
    """Fill `out` (m,) with standard normal numbers (Box & Muller)."""
    m = out.shape[0]
    for i in range(0, m, 2):
        radius = math.sqrt(-2.0 * math.log(uniform(state)))
        angle = 2.0 * math.pi * uniform(state)
        out[i] = radius * math.cos(angle)
        if i + 1 < m:
            out[i + 1] = radius * math.sin(angle)
