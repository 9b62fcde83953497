"""Whether memory grows: a net is trained, evaluated, saved, loaded and resumed in a loop, and the process is weighed.

    python benchmarks/soak.py --minutes 30

Prints a line a minute, and the growth from the first quarter's median to the last quarter's.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import layers
import loss
import model
import optim
from layerwise import schedules
from layerwise.callbacks import Checkpoint, EarlyStopping


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    minutes = parser.parse_args().minutes

    weights, rounds, began, printed = [], 0, time.monotonic(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() - began < 60 * minutes:
            once(Path(folder), rounds)
            rounds += 1
            weights.append(megabytes())
            if time.monotonic() - printed > 60:
                printed = time.monotonic()
                print(f"{(printed - began) / 60:5.1f} min  round {rounds:6,}  {weights[-1]:.1f} MB", flush=True)
    quarter = max(len(weights) // 4, 1)
    first, last = statistics.median(weights[:quarter]), statistics.median(weights[-quarter:])
    print(f"{rounds:,} rounds; {first:.1f} MB in the first quarter, {last:.1f} in the last: {last / first - 1:+.2%}")


def once(folder, seed):
    """One round: a net with convolution, batch normalisation and dropout; shuffling, a schedule, callbacks, files."""
    rng = np.random.default_rng(seed)
    x, y = rng.random((256, 12, 12, 1), np.float32), rng.integers(0, 10, 256)
    path = folder / f"run{'.npz' if seed % 2 else '.safetensors'}"
    path.unlink(missing_ok=True)

    def train(epochs):
        net = layers.Model(
            [
                layers.Conv2D(8, 3),
                layers.BatchNorm(),
                layers.ReLU(),
                layers.MaxPool2D(2),
                layers.Flatten(),
                layers.Dropout(0.2),
                layers.Linear(10),
                layers.Softmax(),
            ],
            seed=seed,
        )
        net.train(
            x,
            y,
            optim.Average(optim.AdamW(schedules.Cosine(0.01, 0.0, 32)), 0.9),
            loss.CrossEntropy(),
            epochs=epochs,
            validation=0.25,
            callbacks=[Checkpoint(path, every=3), EarlyStopping(patience=5, restore_best=False)],
            resume=path,
            verbose=False,
        )
        return net

    train(2)
    net = train(4)
    net.evaluate(x, y)
    same = model.load(path)
    if not np.array_equal(same.predict(x), net.predict(x)):
        raise SystemExit(f"round {seed}: the file holds another net than the one that was trained")


def megabytes():
    """What the process holds in memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
