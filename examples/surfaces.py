"""Paths of optimizers over a test surface: a picture, and the same as an animation."""

import argparse
from pathlib import Path

import numpy as np

import optim
from layerwise import pictures, problems

# Rates that do well on most of the surfaces; none is the best one everywhere.
RULES = {
    "SGD": lambda: optim.SGD(lr=1e-3),
    "Momentum": lambda: optim.Momentum(lr=3e-4, beta=0.9),
    "RMSProp": lambda: optim.RMSProp(lr=0.01),
    "Adam": lambda: optim.Adam(lr=0.05),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--surface", choices=list(problems.SURFACES), default="rosenbrock", help="what to walk on (default rosenbrock)"
    )
    parser.add_argument("--steps", type=int, default=500, help="length of every path (default 500)")
    parser.add_argument("--seed", type=int, help="begin at another point nearby, which this number decides")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the pictures (default: here)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps, a sixth of the frames")
    arguments = parser.parse_args()
    steps = max(1, arguments.steps // 10) if arguments.quick else arguments.steps

    surface = problems.named(arguments.surface)
    start = surface.start if arguments.seed is None else surface.start_of(arguments.seed)
    paths = {name: optim.minimize(surface, start, make(), steps) for name, make in RULES.items()}

    arguments.out.mkdir(parents=True, exist_ok=True)
    picture, animation = (arguments.out / f"{surface.name}{suffix}" for suffix in (".png", ".gif"))
    pictures.save(pictures.paths(surface, paths), picture)
    pictures.animate(surface, paths, animation, frames=10 if arguments.quick else 60)

    values = {name: float(surface(path[-1])[0]) for name, path in paths.items()}
    for name, path in paths.items():
        near = np.linalg.norm(surface.minima - path[-1], axis=1).min()
        print(f"{name:<10} ends {near:.2g} from a minimum, at a height of {values[name]:.2g}")
    print(f"the pictures are {picture} and {animation}")
    lowest = min(values, key=values.get)
    print(f"{lowest} is the lowest on {surface.name} after {steps} steps, at {values[lowest]:.2g}")


if __name__ == "__main__":
    main()
