"""Make line_search.npz: what torch.optim.lbfgs's line search finds along curves of one variable.

    pip install torch==2.13.0 numpy
    python tests/reference/make_line_search.py

The curve of a row c is c0 t + c1 t^2 + c2 t^3 + c3 t^4 + c4 sin(c5 t), which falls at 0. The function searched is
that of u.y, y in the plane, along a direction d with u.d = 1.
"""

from pathlib import Path

import numpy as np
import torch
from torch.optim.lbfgs import _cubic_interpolate, _strong_wolfe

U = np.array([2.0, -0.5])


def curve(c, t):
    value = c[0] * t + c[1] * t**2 + c[2] * t**3 + c[3] * t**4 + c[4] * np.sin(c[5] * t)
    slope = c[0] + 2 * c[1] * t + 3 * c[2] * t**2 + 4 * c[3] * t**3 + c[4] * c[5] * np.cos(c[5] * t)
    return float(value), float(slope)


def search(c, t, tolerance, limit, d):
    """(value, t, evaluations) of torch."""
    u = torch.from_numpy(U)

    def at(x, t, d):
        value, slope = curve(c, float((x + t * d) @ u))
        return value, slope * u

    x, d = torch.zeros(2, dtype=torch.float64), torch.from_numpy(d)
    value, g = at(x, 0.0, d)
    found, _, t, evaluations = _strong_wolfe(at, x, t, d, value, g, g.dot(d), tolerance_change=tolerance, max_ls=limit)
    return float(found), float(t), evaluations


def main():
    rng = np.random.default_rng(0)
    curves, given, directions, found = [], [], [], []
    while len(curves) < 400:
        c = rng.normal(size=6) * 10.0 ** rng.integers(-2, 2, 6) * (rng.random(6) < 0.7)
        c[3] = abs(c[3])
        d = rng.normal(size=2) * 10.0 ** rng.integers(-3, 2)
        d /= U @ d
        if curve(c, 0.0)[1] >= 0:
            continue
        t, tolerance = 10.0 ** rng.integers(-3, 3), [1e-9, 1e-2, 1.0][rng.integers(3)]
        limit = [1, 2, 3, 5, 25, 25, 25][rng.integers(7)]
        result = search(c, t, tolerance, limit, d)
        # Far out along a curve that falls for ever, rounding decides where it goes: not what torch itself finds twice.
        nudged = search(c, t * (1 + 1e-13), tolerance, limit, d)
        if np.isfinite(result).all() and np.allclose(result, nudged, rtol=1e-9, atol=0):
            curves.append(c), directions.append(d), given.append((t, tolerance, limit)), found.append(result)

    # Two points (t, value, slope), bounds, and where torch places the next.
    points = rng.normal(size=(300, 6)) * 10.0 ** rng.integers(-1, 2, (300, 6))
    points[:50, 3] = points[:50, 0] + 1e-3
    bounds = np.sort(rng.normal(size=(300, 2)) * 3)
    inside = [
        float(_cubic_interpolate(*torch.from_numpy(p), bounds=tuple(b)))
        for p, b in zip(points, bounds.tolist(), strict=True)
    ]
    np.savez_compressed(
        Path(__file__).parent / "line_search.npz",
        about=np.array(f"torch {torch.__version__}, numpy {np.__version__}"),
        u=U, curves=curves, directions=directions, given=given, found=found,
        points=points, bounds=bounds, inside=inside,
    )
    evaluations = np.array(found)[:, 2].astype(int)
    print(len(curves), "searches, evaluations", np.bincount(evaluations))


if __name__ == "__main__":
    main()
