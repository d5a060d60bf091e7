"""The part of a pack that some of its sequences need: what KTO computes with a gradient, and what without.

Knows arrays only.

Legend: t positions, s segments, r rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from espalier.tokens.pack import Int32, Int64, Pack


def take_sequences(pack: Pack, wanted: npt.NDArray[np.bool_]) -> Pack:
    """The pack with the rows of the `wanted` sequences (one flag for each) and only what these rows are computed from.

    Sequences are numbered anew, in order; extras are left behind. A prompt stays when an answer to it does.
    """
    rows = wanted[pack.sequences]
    kept = _segments_of(pack.segments, pack.rows[rows])
    inside = np.zeros(pack.tokens, np.bool_)
    for start, end, _, _ in pack.segments[kept]:
        inside[start:end] = True
    moved: Int64 = np.cumsum(inside) - inside  # where each position stands afterwards
    bounds = np.append(moved, np.sum(inside))  # an end may be the pack's
    return Pack(
        pack.ids[inside],
        pack.positions[inside],
        bounds[pack.segments[kept]].astype(np.int32),
        moved[pack.rows[rows]],
        pack.targets[rows],
        pack.weights[rows],
        (np.cumsum(wanted) - wanted)[pack.sequences[rows]],
        pack.documents,
        {},
        pack.seed,
    )


def _segments_of(segments: Int32, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which segments hold one of `rows`, or are the prefix of one that does."""
    starts = segments[:, 0]  # ascending, and every position is in a segment
    kept = np.zeros(len(segments), np.bool_)
    kept[np.searchsorted(starts, rows, side="right") - 1] = True
    prefixed = kept & (segments[:, 3] > segments[:, 2])
    kept[np.searchsorted(starts, segments[prefixed, 2], side="right") - 1] = True
    return kept
