"""Train 24 nets and write a hash of what came of each: two versions that compute the same write the same file.

    python benchmarks/bits.py OUT.json

Every kind of layer, losses of each kind, rules and wrappers, schedules, copies, dropout, weights of samples and of
classes, float32 and float64, a training that is resumed. Only the public interface is used. The bits depend on the
machine, its BLAS and the number of BLAS threads, so both files must come from one machine; one thread is set here.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import layers
import loss
import optim
from layerwise import callbacks, schedules

ROWS = 48


def numbers(*shape):
    return np.random.default_rng(len(shape)).standard_normal((ROWS, *shape))


def classes(count):
    return np.random.default_rng(9).integers(0, count, ROWS)


def dense():
    return [layers.Linear(12), layers.Tanh(), layers.Dropout(0.2), layers.Linear(3), layers.Softmax()]


def activations(*kinds):
    return [each for kind in kinds for each in (layers.Linear(9), kind)] + [layers.Linear(2)]


# Each: the layers, x, y, the optimizer, and the rest of what `train` is given; "model" is what Model is given.
NETS = {
    "SGD": lambda: (
        dense(), numbers(5), classes(3), optim.SGD(0.1, nesterov=True, momentum=0.9, weight_decay=1e-3), {},
    ),
    "Momentum, sample weights": lambda: (
        dense(), numbers(5), classes(3), optim.Momentum(0.05),
        {"sample_weight": np.linspace(0.1, 3, ROWS), "validation": 0.25, "metrics": "accuracy"},
    ),
    "RMSProp, class weights": lambda: (
        dense(), numbers(5), classes(3), optim.RMSProp(0.01, centered=True, momentum=0.5),
        {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}, "model": {"dtype": "float64"}},
    ),
    "Adam, schedule": lambda: (
        dense(), numbers(5), classes(3),
        optim.Adam(schedules.Cosine(0.05, 0.001, 20), amsgrad=True, weight_decay=1e-3), {},
    ),
    "AdamW, copies": lambda: (
        dense(), numbers(5), classes(3), optim.AdamW(0.01), {"model": {"copies": 3}, "sample_weight": np.ones(ROWS)},
    ),
    "a rate for each copy": lambda: (
        dense(), numbers(5), classes(3), optim.NAdam(np.array([0.001, 0.01, 0.1])),
        {"model": {"copies": 3, "dtype": "float64"}, "validation": 0.25},
    ),
    "smooth activations": lambda: (
        activations(layers.Sigmoid(), layers.GELU(), layers.GELU("tanh"), layers.SiLU(), layers.Softplus(),
                    layers.Softsign(), layers.Mish()),
        numbers(5), numbers(2), optim.Adam(0.01), {"loss": loss.Huber()},
    ),
    "activations with kinks": lambda: (
        activations(layers.ReLU(), layers.LeakyReLU(), layers.PReLU(), layers.ELU(), layers.SELU(),
                    layers.HardSigmoid(), layers.HardSwish()),
        numbers(5), numbers(2), optim.Rprop(0.01), {"loss": loss.MAE(), "batch_size": ROWS},
    ),
    "norms": lambda: (
        [layers.Linear(8), layers.BatchNorm(), layers.ReLU(), layers.Linear(8), layers.LayerNorm(), layers.Linear(8),
         layers.RMSNorm(), layers.GroupNorm(2), layers.GaussianNoise(0.1), layers.Linear(2)],
        numbers(5), numbers(2), optim.LAMB(0.01, weight_decay=0.01), {"loss": loss.LogCosh()},
    ),
    "activations, copies": lambda: (
        activations(layers.ReLU(), layers.LeakyReLU(), layers.GELU(), layers.SiLU()),
        numbers(5), numbers(2), optim.Adamax(0.01), {"model": {"copies": 2}},
    ),
    "containers": lambda: (
        [layers.Linear(6), layers.Residual([layers.Linear(6), layers.Tanh()]),
         layers.Parallel([[layers.Linear(3)], layers.Chain([layers.Linear(4), layers.ReLU()])]),
         layers.Reshape((7, 1)), layers.Flatten(), layers.Lambda(np.negative, lambda x, grad: -grad), layers.Linear(2)],
        numbers(5), numbers(2), optim.RAdam(0.01), {},
    ),
    "words": lambda: (
        [layers.Embedding(7, 4), layers.Linear(5), layers.Tanh(), layers.GlobalAveragePool1D(), layers.Linear(3),
         layers.LogSoftmax()],
        np.random.default_rng(3).integers(0, 7, (ROWS, 6)), classes(3), optim.Adagrad(0.1, lr_decay=0.01),
        {"loss": loss.CrossEntropy(from_logits=True)},
    ),
    "images": lambda: (
        [layers.Conv2D(4, 3, padding="same"), layers.ReLU(), layers.MaxPool2D(2), layers.DepthwiseConv2D(3),
         layers.BatchNorm(), layers.SpatialDropout(0.2), layers.AveragePool2D(2), layers.Flatten(), layers.Linear(3)],
        numbers(12, 12, 2), classes(3), optim.Adam(0.01), {"loss": loss.CrossEntropy(from_logits=True)},
    ),
    "larger images": lambda: (
        [layers.ConvTranspose2D(3, 3, 2), layers.GlobalMaxPool2D(), layers.Linear(2)],
        numbers(4, 4, 2), numbers(2), optim.Muon(0.02), {},
    ),
    "padded images": lambda: (
        [layers.ZeroPad2D(1), layers.Conv2D(4, 3, 2, groups=2), layers.UpSample2D(2), layers.GlobalAveragePool2D()],
        numbers(6, 6, 4), numbers(4), optim.Adafactor(0.01), {},
    ),
    "series": lambda: (
        [layers.Conv1D(6, 3, dilation=2), layers.Tanh(), layers.MaxPool1D(2), layers.AveragePool1D(2),
         layers.GlobalMaxPool1D(), layers.Linear(2)],
        numbers(16, 3), numbers(2), optim.Yogi(0.01), {"model": {"dtype": "float64"}},
    ),
    "two classes": lambda: (
        [layers.Linear(8), layers.ReLU(), layers.Linear(1), layers.Sigmoid()],
        numbers(5), classes(2)[:, None], optim.Adadelta(), {"loss": loss.BinaryCrossEntropy(), "metrics": "accuracy"},
    ),
    "hinge": lambda: (
        [layers.Linear(8), layers.ReLU(), layers.Linear(1)], numbers(5), classes(2)[:, None] * 2 - 1, optim.Lion(0.01),
        {"loss": loss.Hinge()},
    ),
    "counts": lambda: (
        [layers.Linear(8), layers.Tanh(), layers.Linear(2), layers.Softplus()],
        numbers(5), np.random.default_rng(4).poisson(2.0, (ROWS, 2)), optim.AdaBelief(0.01),
        {"loss": loss.PoissonNLL()},
    ),
    "wrappers": lambda: (
        dense(), numbers(5), classes(3), optim.Average(optim.Clip(optim.Adam(0.02), norm=0.5), 0.9),
        {"validation": 0.25},
    ),
    "a rule for each layer": lambda: (
        dense(), numbers(5), classes(3),
        optim.PerLayer({
            "0": optim.Lookahead(optim.Momentum(0.1)),
            "*": optim.Signum(schedules.Warmup(schedules.Constant(0.01), 10)),
        }), {},
    ),
    "evaluated again": lambda: (
        dense(), numbers(5), classes(3), optim.Accumulate(optim.SAM(optim.SGD(0.1, momentum=0.9)), 2), {},
    ),
    "schedule-free": lambda: (
        dense(), numbers(5), classes(3), optim.ScheduleFreeAdamW(0.02),
        {"validation": 0.25, "callbacks": callbacks.EarlyStopping(patience=2)},
    ),
    "line search": lambda: (
        [layers.Linear(6), layers.Tanh(), layers.Linear(2)], numbers(5), numbers(2), optim.LBFGS(steps=4),
        {"batch_size": ROWS},
    ),
}  # fmt: skip


def trained(name, epochs, **resume):
    members, x, y, optimizer, arguments = NETS[name]()
    arguments = {"epochs": epochs, "batch_size": 16, "verbose": False} | arguments | resume
    net = layers.Model(members, seed=7, **arguments.pop("model", {}))
    return net, optimizer, net.train(x, y, optim=optimizer, **arguments)


def resumed(name, epochs):
    """The same, by way of a checkpoint in the middle."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "half.npz"
        kept = NETS[name]()[4].get("callbacks", [])
        kept = [*kept, callbacks.Checkpoint(path)] if isinstance(kept, list) else [kept, callbacks.Checkpoint(path)]
        trained(name, epochs // 2, callbacks=kept)
        return trained(name, epochs, callbacks=kept, resume=path)


def as_text(value):
    """`value` as text that shows every bit."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = np.asarray(value)
        return f"{value.dtype}{value.shape}{hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {as_text(each)}" for name, each in sorted(value.items(), key=str)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(as_text, value)) + "]"
    return repr(value)


def digest(value):
    return hashlib.sha256(as_text(value).encode()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    found = {}
    for name in NETS:
        for way, train in {"in one go": trained, "resumed": resumed}.items():
            net, optimizer, history = train(name, 6)
            found[f"{name}, {way}"] = {
                "parameters": digest(net.state_dict()),
                "optimizer": digest(optimizer.state_dict()),
                "history": digest({key: history[key] for key in history if key != "seconds"}),
                "prediction": digest(net.predict(NETS[name]()[1])),
            }
        print(f"{name}: {found[f'{name}, in one go']['parameters'][:12]}")
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(NETS)} nets: {out}")


if __name__ == "__main__":
    main()
