# SPDX-License-Identifier: Apache-2.0
"""Bit-plane kernels of every instruction set against NumPy, and against each other bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from residua._core import kernels

ISAS = kernels.available()
BLOCK = 32


def make_bits(rng, groups, top):
    bits = np.sort(rng.integers(1, top + 1, groups))[::-1].astype(np.uint8)
    bits[0] = top
    return bits


LAYOUTS = [
    [1],
    [8],
    [2, 1],
    [3, 2, 2, 1, 1, 1, 1, 1, 0, 0, 0, 0],
    [4, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 0],
]
LAYOUTS += [[6, 5, 5, 5, 4, 4, 4, 4, 3, 3, 3, 2], [8] * 12, [8] * 5 + [1] * 20]
LAYOUTS += [list(make_bits(np.random.default_rng(g), g, 1 + g % 8)) for g in range(1, 41)]


def random_levels(rng, n, bits):
    """Unsigned code of every coded dim, (n, 32 * coded groups)."""
    per_dim = np.repeat(np.asarray(bits), 32)
    per_dim = per_dim[per_dim > 0]
    return rng.integers(0, 256, (n, len(per_dim))) >> (8 - per_dim), per_dim


def row_codes(levels, per_dim):
    """The documented row code: planes from the top, dims in np.packbits order."""
    planes = []
    for t in range(int(per_dim.max()) - 1, -1, -1):
        planes.append(np.packbits((levels[:, per_dim > t] >> t) & 1, axis=1))
    return np.ascontiguousarray(np.concatenate(planes, axis=1))


def make_case(seed, bits, n, scale_range=(0.5, 2.0)):
    rng = np.random.default_rng(seed)
    levels, per_dim = random_levels(rng, n, bits)
    add = rng.normal(size=n).astype(np.float32)
    scale = rng.uniform(*scale_range, n).astype(np.float16)
    codes = row_codes(levels, per_dim)
    blocks = kernels.plane_pack(ISAS[0], bits, codes, add, scale.view(np.uint16))
    return rng, levels, per_dim, codes, add, scale, blocks


def make_weights(rng, per_dim, nq):
    return rng.normal(size=(nq, len(per_dim))).astype(np.float32)


def exact_estimates(bits, levels, per_dim, add, scale, weights):
    q = kernels.plane_query(bits, weights)
    w = q["weights"].astype(np.int64)
    numerator = (2 * levels - (2 ** per_dim.astype(np.int64) - 1)) @ w
    inner = np.float32(0.5) * np.float32(q["unit"]) * numerator.astype(np.float32)
    return scale.astype(np.float32) * inner + add


def coarse_bounds(bits, levels, per_dim, add, scale, weights, plane):
    q = kernels.plane_query(bits, weights)
    table = q["coarse"].reshape(-1, 16).astype(np.int64)
    total = np.zeros(len(levels), np.int64)
    for t in range(int(per_dim.max()) - 1, plane - 1, -1):
        nibbles = ((levels[:, per_dim > t] >> t) & 1).reshape(len(levels), -1, 4) @ np.array([8, 4, 2, 1])
        total = 2 * total + table[np.arange(nibbles.shape[1]), nibbles].sum(1)
    inner = q["bound_unit"][plane] * total.astype(np.float32) + q["bound_upper"][plane]
    return scale.astype(np.float32) * inner + add


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 31, 32, 33, 95])
def test_pack_round_trips_and_follows_the_layout(isa, n):
    for seed, bits in enumerate(LAYOUTS):
        _, levels, per_dim, codes, add, scale, _ = make_case(seed, bits, n)
        unaligned = np.frombuffer(bytearray(codes.nbytes + 1), np.uint8)[1:].reshape(codes.shape)
        unaligned[:] = codes
        blocks = kernels.plane_pack(isa, bits, unaligned, add, scale.view(np.uint16))
        np.testing.assert_array_equal(kernels.plane_unpack(isa, bits, blocks, n), codes)

        padded = np.zeros((-(-n // BLOCK) * BLOCK, levels.shape[1]), np.int64)
        padded[:n] = levels
        for b, block in enumerate(blocks.reshape(len(padded) // BLOCK, -1)):
            rows = padded[b * BLOCK : (b + 1) * BLOCK]
            strips = []
            for t in range(int(per_dim.max()) - 1, -1, -1):
                plane = (rows[:, per_dim > t] >> t) & 1
                nibbles = plane.reshape(BLOCK, -1, 4) @ np.array([8, 4, 2, 1])
                strips.append(nibbles[:16].T + 16 * nibbles[16:].T)
            strips = np.concatenate(strips).ravel()
            np.testing.assert_array_equal(block[: len(strips)], strips)
            tail = block[len(strips) :].tobytes()
            here = min(BLOCK, n - b * BLOCK)
            first = b * BLOCK
            np.testing.assert_array_equal(np.frombuffer(tail[:128], np.float32)[:here], add[first:][:here])
            np.testing.assert_array_equal(np.frombuffer(tail[128:], np.float16)[:here], scale[first:][:here])


@pytest.mark.parametrize("isa", ISAS)
def test_exact_equals_integer_arithmetic(isa):
    for seed, bits in enumerate(LAYOUTS):
        rng, levels, per_dim, _, add, scale, blocks = make_case(seed, bits, 64)
        weights = make_weights(rng, per_dim, 1)[0]
        q = kernels.plane_query(bits, weights)
        assert np.abs(q["weights"]).max() == 2047
        np.testing.assert_allclose(q["weights"] * q["unit"], weights, atol=0.51 * q["unit"])
        sums, scores = kernels.plane_exact(isa, bits, blocks, weights)
        numerator = (2 * levels - (2 ** per_dim.astype(np.int64) - 1)) @ q["weights"].astype(np.int64)
        np.testing.assert_array_equal(2 * sums - q["offset"], numerator)
        np.testing.assert_array_equal(scores, exact_estimates(bits, levels, per_dim, add, scale, weights))


@pytest.mark.parametrize("isa", ISAS)
def test_exact_and_scan_cannot_overflow(isa):
    """2,048 groups of 8 bits, all bits set, all weights at their largest."""
    bits = [8] * 2048
    n, dims = 3, 2048 * 32
    levels, per_dim = np.full((n, dims), 255), np.full(dims, 8)
    add, scale = np.zeros(n, np.float32), np.ones(n, np.float16)
    blocks = kernels.plane_pack(isa, bits, row_codes(levels, per_dim), add, scale.view(np.uint16))
    weights = np.ones(dims, np.float32)
    sums, scores = kernels.plane_exact(isa, bits, blocks, weights)
    assert (sums[:n] == 2047 * 255 * dims).all()
    assert (sums[n:] == 0).all()
    np.testing.assert_allclose(scores[:n], dims * 127.5, rtol=1e-6)
    # No other rows share this tail, so the finer bits are no fair coins here: only the last bound counts.
    at, mask = kernels.plane_scan(isa, bits, blocks, weights[None], [0.99 * scores[0]], check_planes=1)
    assert (at, mask[0]) == (0, 7)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("nq", range(1, kernels.plane_tile + 1))
def test_scan_stops_where_the_oracle_does(isa, nq):
    for seed, bits in enumerate(LAYOUTS):
        n = 200
        rng, levels, per_dim, _, add, scale, blocks = make_case(seed, bits, n)
        weights = make_weights(rng, per_dim, nq)
        planes = int(per_dim.max())
        bounds = np.full((planes, nq, -(-n // BLOCK) * BLOCK), -np.inf, np.float32)
        for t in range(planes):
            for i in range(nq):
                bounds[t, i, :n] = coarse_bounds(bits, levels, per_dim, add, scale, weights[i], t)
        for quantile in (0.5, 0.97, 0.995, 1.0):
            thresholds = [float(np.quantile(bounds[0, i, :n], quantile)) for i in range(nq)]
            reached = bounds >= np.array(thresholds, np.float32)[None, :, None]
            reached = reached.reshape(planes, nq, -1, BLOCK)
            for checks in {1, (1 << planes) - 1, 1 | (1 << (planes - 1))}:
                stops = np.ones(reached.shape[2], bool)
                for t in range(planes):
                    if checks >> t & 1:
                        stops &= reached[t].any(axis=(0, 2))
                expected = np.flatnonzero(stops)
                at, seen = -1, []
                while True:
                    at, mask = kernels.plane_scan(isa, bits, blocks, weights, thresholds, at + 1, checks)
                    # Rows past the end are the caller's to ignore; here they are zero codes.
                    real = min(BLOCK, n - at * BLOCK)
                    if at == reached.shape[2]:
                        break
                    alive = [m & ((1 << real) - 1) for m in mask]
                    hits = [np.flatnonzero(reached[0, i, at, :real]) for i in range(nq)]
                    want = [sum(1 << int(r) for r in h) for h in hits]
                    assert alive == want
                    if real == BLOCK:
                        seen.append(at)
                assert seen == [b for b in expected if (b + 1) * BLOCK <= n]


def test_scan_is_equal_on_all_instruction_sets():
    for seed, bits in enumerate(LAYOUTS[:20]):
        rng, _, per_dim, _, _, _, blocks = make_case(seed, bits, 320)
        weights = make_weights(rng, per_dim, kernels.plane_tile)
        _, scores = kernels.plane_exact(ISAS[0], bits, blocks, weights[0])
        thresholds = [float(np.quantile(scores, 0.99))] * kernels.plane_tile
        results = {isa: kernels.plane_scan(isa, bits, blocks, weights, thresholds) for isa in ISAS}
        assert len({repr(r) for r in results.values()}) == 1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("nq", "tile"), [(5, 0), (5, 1), (19, 0)])  # from 16 on maybe in cells
def test_topk_is_the_exact_topk(isa, nq, tile):
    for seed, bits in enumerate(LAYOUTS):
        n, k = 333, 10
        rng, levels, per_dim, _codes, add, scale, _blocks = make_case(seed, bits, n)
        levels[100:140], add[100:140], scale[100:140] = (
            levels[7],
            add[7],
            scale[7],
        )  # ties
        blocks = kernels.plane_pack(isa, bits, row_codes(levels, per_dim), add, scale.view(np.uint16))
        weights = make_weights(rng, per_dim, nq)
        allowed = rng.random(n) < 0.3
        allowed[32:64] = False
        for mask, first_row in (
            (None, 0),
            (None, 77),
            (allowed, 64),
            (allowed, 77),
            (np.zeros(n, bool), 0),
        ):
            scores, rows = kernels.plane_topk(isa, bits, blocks, n, weights, k, tile, first_row, mask)
            for i in range(nq):
                exact = exact_estimates(bits, levels, per_dim, add, scale, weights[i])
                candidates = np.flatnonzero(mask) if mask is not None else np.arange(n)
                order = candidates[np.lexsort((candidates, -exact[candidates]))][:k]
                found = rows[i][rows[i] >= 0]
                np.testing.assert_array_equal(found, order + first_row)
                np.testing.assert_array_equal(scores[i][: len(found)], exact[order])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("nq", [12, 19])
def test_topk_on_correlated_codes(isa, nq):
    """Quantised Gaussian data with a decaying spectrum, as embeddings have it."""
    bits = np.array([4, 3, 3, 2, 2, 1, 1, 0], np.uint8)
    rng = np.random.default_rng(0)
    n, k = 20_000, 10
    per_dim = np.repeat(bits, 32)
    per_dim = per_dim[per_dim > 0].astype(np.int64)
    sigma = 2.0 ** np.repeat(bits, 32)[: len(per_dim)]
    x = rng.normal(size=(n, len(per_dim))) * sigma
    step = 1.6 / 2.0 ** (per_dim - 1) * sigma
    levels = np.clip(np.floor(x / step) + 2 ** (per_dim - 1), 0, 2**per_dim - 1).astype(np.int64)
    add, scale = (
        (rng.normal(size=n) * 5).astype(np.float32),
        rng.uniform(0.9, 1.2, n).astype(np.float16),
    )
    blocks = kernels.plane_pack(isa, bits, row_codes(levels, per_dim), add, scale.view(np.uint16))
    weights = ((x[:nq] + rng.normal(size=(nq, len(per_dim))) * sigma) * step).astype(np.float32)
    scores, rows = kernels.plane_topk(isa, bits, blocks, n, weights, k)
    for i in range(nq):
        exact = exact_estimates(bits, levels, per_dim, add, scale, weights[i])
        order = np.lexsort((np.arange(n), -exact))[:k]
        np.testing.assert_array_equal(rows[i], order)
        np.testing.assert_array_equal(scores[i], exact[order])


@pytest.mark.parametrize("weight", [0.0, 1e-44, 1e-30, 1e30])
def test_extreme_weights(weight):
    bits = [2, 1]
    _, levels, per_dim, _, add, scale, blocks = make_case(0, bits, 50)
    weights = np.full((1, len(per_dim)), weight, np.float32)
    scores, rows = kernels.plane_topk(ISAS[0], bits, blocks, 50, weights, 5)
    exact = exact_estimates(bits, levels, per_dim, add, scale, weights[0])
    order = np.lexsort((np.arange(50), -exact))[:5]
    np.testing.assert_array_equal(rows[0], order)
    np.testing.assert_array_equal(scores[0], exact[order])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="group 1 has 2"):
        kernels.plane_query([1, 2], np.zeros(64, np.float32))
    with pytest.raises(ValueError, match="at least one group"):
        kernels.plane_query([0], np.zeros(0, np.float32))
    with pytest.raises(ValueError, match="32 dims got 33"):
        kernels.plane_query([1], np.zeros(33, np.float32))
    with pytest.raises(ValueError, match="infinite or NaN"):
        kernels.plane_query([1], np.full(32, np.nan, np.float32))
