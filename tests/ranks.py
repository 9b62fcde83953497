"""What tests/test_distributed.py looks at, run in several processes: `mpiexec -n 2 python -m mpi4py ranks.py folder`.

Every check is a function of the rank and the folder, and returns what was found, as JSON holds it; found.json in the
folder gets, of each, a list with what each rank found. Checks may be named: `ranks.py folder frozen masks`.
"""

import contextlib
import copy
import io
import json
import os
import pickle
import signal
import sys
import time
import zlib
from pathlib import Path

import numpy as np
from mpi4py import MPI

import layers
import loss
import model
import optim
from layerwise import distributed, schedules
from layerwise.callbacks import Checkpoint, CSVLogger, EarlyStopping, UpdateStats
from layerwise.core import threads
from layerwise.distributed import Distributed

RNG = np.random.default_rng(8)
X = RNG.standard_normal((130, 6))
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > X[:, 2])  # 3 classes
TARGETS = np.stack([X[:, 0] * X[:, 1], np.sin(X[:, 2])], 1)
CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


def classifier(seed=1, dtype="float64", *within):
    return layers.Model(
        [layers.Linear(8), layers.Tanh(), *within, layers.Linear(3), layers.Softmax()], seed=seed, dtype=dtype
    )


def fit(net, rule, x=X, y=Y, **kwargs):
    """15 epochs of 4 steps, the last of them of 31 rows: no number of ranks divides it."""
    settings = dict(loss=loss.CrossEntropy(), epochs=15, batch_size=33, verbose=False) | kwargs
    return net.train(x, y, optim=rule, **settings)


def bits(net):
    return zlib.crc32(net.vector.tobytes())


def apart(net, other):
    return float(np.abs(net.vector - other.vector).max())


def histories_apart(one, other):
    assert one.keys() == other.keys()
    return max(abs(a - b) for name in one if name != "seconds" for a, b in zip(one[name], other[name], strict=True))


@check
def same_weights(rank, folder):
    """Net after net, beside the same training in one process; their seeds are the same on all ranks."""
    found = {}
    for dtype in ("float64", "float32"):
        for rule in (optim.SGD, optim.Momentum, optim.RMSProp, optim.Adam):
            one, several = classifier(dtype=dtype), classifier(dtype=dtype)
            fit(one, rule(0.01))
            fit(several, Distributed(rule(0.01)))
            found[f"{dtype} {rule.__name__}"] = [apart(one, several), bits(several), several.optim.t]
    one, alone = classifier(), classifier()
    fit(one, optim.Adam(0.01), epochs=3)
    fit(alone, Distributed(optim.Adam(0.01), MPI.COMM_SELF), epochs=3)
    found["by itself"] = [apart(one, alone), bits(alone), alone.optim.t]
    return found


@check
def reductions(rank, folder):
    """Every reduction, weighted too; the last batch has one row, and the validation two."""
    found = {}
    weight = np.random.default_rng(2).random(129) * (np.arange(129) % 3 > 0)
    for reduction in ("mean", "sum", "batch_sum"):
        for weights in ({}, {"sample_weight": weight}, {"class_weight": {0: 1, 1: 0.5, 2: 3}, "sample_weight": weight}):
            for kind, y in ((loss.CrossEntropy, Y), (loss.MSE, np.eye(3)[Y])):
                settings = dict(x=X[:129], y=y[:129], batch_size=32, epochs=1, metrics="accuracy", **weights)
                settings |= dict(validation=(X[:2], y[:2]))
                one, several = classifier(), classifier()
                history = fit(one, optim.SGD(0.01), **settings, loss=kind(reduction=reduction))
                others = fit(several, Distributed(optim.SGD(0.01)), **settings, loss=kind(reduction=reduction))
                name = f"{kind.__name__} {reduction} {sorted(weights)}"
                found[name] = [apart(one, several), histories_apart(history, others), dict(others, seconds=None)]
    return found


def by_place(pred, real, sample_weight):
    """A number that tells whether all rows are there at once, each in its place."""
    return float((np.arange(len(pred)) * pred[:, 0] * (real + 1) * sample_weight).sum())


@check
def validation(rank, folder):
    """Its metrics see all rows at once, those of a single row too, which other ranks have nothing of."""
    found = {}
    for rows in (1, 37):
        stored = X[:rows], Y[:rows], np.linspace(1, 2, rows)
        settings = dict(epochs=2, validation=stored, metrics=[by_place, "f1"], sample_weight=np.linspace(1, 2, 130))
        histories = [fit(classifier(), rule, **settings) for rule in (optim.SGD(0.1), Distributed(optim.SGD(0.1)))]
        found[rows] = [[history[f"val_{name}"] for name in ("by_place", "f1")] for history in histories]
    return found


@check
def wrapped(rank, folder):
    """The order around a rule; evaluation weights; a second call of train goes on."""
    found = {}
    for name, make in {
        "accumulate": lambda: optim.Accumulate(optim.Clip(optim.Adam(0.01), norm=0.1), 3),
        "average": lambda: optim.Average(optim.Clip(optim.Adam(0.01), value=0.01), 0.9),
        "by layer": lambda: optim.PerLayer({"*.b": optim.SGD(0.1), "*": optim.ScheduleFreeAdamW(0.01)}),
        "muon": lambda: optim.PerLayer({"*.w": optim.Muon(0.01), "*": optim.Adam(0.01)}),
    }.items():
        one, several, rule = classifier(), classifier(), Distributed(make())
        alone = make()
        for _ in range(2):
            fit(one, alone, epochs=2, validation=0.1)
            fit(several, rule, epochs=2, validation=0.1)
        found[name] = [apart(one, several), bits(several)]
    return found


@check
def rank_0_gives(rank, folder):
    """Ranks that differ in everything but the net's form are as rank 0: weights, statistics, state, seed, order."""
    net = classifier(1 + rank, "float64", layers.BatchNorm())
    rule = optim.Adam(0.01 * (rank + 1))
    for _ in range(2 * rank):
        pred = net(X[rank::5], training=True)
        error = loss.CrossEntropy()
        error(pred, Y[rank::5])
        rule(net, error)
    net.build((6,))
    group = Distributed(rule)
    group.prepare(net)
    buffers = [float(each.sum()) for leaf in net.leaf_layers() for each in leaf.buffers.values()]
    before = [bits(net), buffers, net.seed, group.t, group.lr]
    net, rule = classifier(1 + rank), optim.Momentum(0.05)
    fit(net, Distributed(rule))
    one = classifier(1)
    fit(one, optim.Momentum(0.05))
    return {"before": before, "apart": apart(one, net), "bits": bits(net)}


@check
def statistics(rank, folder):
    """One step of batch norm: the running statistics are the mean of those of the ranks' rows, by their number."""
    net = classifier(1, "float64", layers.BatchNorm())
    fit(net, Distributed(optim.SGD(0.1)), x=X[:33], y=Y[:33], batch_size=33, shuffle=False, epochs=1)
    size = MPI.COMM_WORLD.size
    sums = 0
    for k in range(size):
        part = classifier(1, "float64", layers.BatchNorm())
        part(X[k:33:size], training=True)
        buffers = np.concatenate([each for leaf in part.leaf_layers() for each in leaf.buffers.values()])
        sums = sums + buffers * len(X[k:33:size]) / 33
    found = np.concatenate([each for leaf in net.leaf_layers() for each in leaf.buffers.values()])
    # A batch of 5 rows: two of them at least for each rank that takes part.
    fit(net, net.optim, x=X[:5], y=Y[:5], batch_size=5, epochs=2)
    return {
        "apart": float(np.abs(found - sums).max()),
        "bits": bits(net),
        "finite": bool(np.isfinite(net.vector).all()),
    }


@check
def masks(rank, folder):
    """Dropout draws other masks on each rank; all the same the nets stay one."""
    net = classifier(1, "float64", layers.Dropout(0.5))
    drawn = []

    class Look:
        def step(self, run):
            drawn.append(
                int((run.net[2].kept != 0).sum()) + zlib.crc32(np.ascontiguousarray(run.net[2].kept).tobytes())
            )

    fit(net, Distributed(optim.SGD(0.1)), callbacks=[Look()], epochs=2)
    return {"masks": drawn, "bits": bits(net)}


class At:
    """Something to do after a step."""

    def __init__(self, step, action):
        self.at, self.action = step, action

    def step(self, run):
        return self.action() if run.step == self.at else False


@check
def stops(rank, folder):
    """The training ends where rank 0's callbacks end it; a Ctrl-C counts on every rank."""
    found = {}
    last = MPI.COMM_WORLD.size - 1
    for name, action in {
        "first": lambda: rank == 0,
        "last": lambda: rank == last,
        "ctrl-c": lambda: rank == last and os.kill(os.getpid(), signal.SIGINT),
    }.items():
        net = classifier()
        history = fit(net, Distributed(optim.SGD(0.1)), epochs=2, callbacks=[At(2, action)])
        found[name] = [net.optim.t, history.interrupted, bits(net)]
    net = classifier()
    fit(net, Distributed(optim.SGD(0.1)), epochs=9, callbacks=lambda net, logs: rank == 0)
    found["epoch"] = [net.optim.t, False, bits(net)]
    return found


class Breaks(layers.Layer):
    """Gives infinity on the last rank, in the sixth step."""

    steps = 0

    def breaks(self):
        return self.steps == 6 and MPI.COMM_WORLD.rank == MPI.COMM_WORLD.size - 1

    def forward(self, x, training):
        self.steps += training
        return x * np.inf if self.breaks() else x

    def backward(self, grad):
        return grad


class Explodes(Breaks):
    """The same of the gradient."""

    def forward(self, x, training):
        self.steps += training
        return x

    def backward(self, grad):
        return grad * np.inf if self.breaks() else grad


@check
def divergence(rank, folder):
    found = {}
    once = classifier()
    fit(once, optim.SGD(0.1), epochs=1)
    for name, layer in {"loss": Breaks(), "gradient": Explodes()}.items():
        net = classifier(1, "float64", layer)
        try:
            fit(net, Distributed(optim.SGD(0.1)))
        except model.DivergenceError as error:
            found[name] = [str(error).split(":")[0], apart(net, once), bits(net), error.history.epochs]
    return found


@check
def files(rank, folder):
    """Rank 0 alone writes; a training goes on from its file, which the others do not have."""
    found = {}
    own = folder / f"rank {rank}"
    own.mkdir()

    def callbacks(name):
        return [
            Checkpoint(own / f"{name}.npz", every=3),
            CSVLogger(own / f"{name}.csv"),
            EarlyStopping("loss", patience=50),
        ]

    def net():
        return classifier(3 + rank, "float32", layers.BatchNorm(), layers.Dropout(0.25))

    # 128 rows in batches of 32: every rank draws as many random numbers, so that their dropout goes on as it was too.
    settings = dict(x=X[:128], y=Y[:128], batch_size=32, metrics="accuracy", validation=(X[:7], Y[:7]))
    whole, half, other = net(), net(), net()
    history = fit(whole, Distributed(optim.Adam(0.01)), epochs=4, callbacks=callbacks("whole"), **settings)
    with contextlib.suppress(ZeroDivisionError):  # it breaks off at step 10; the file is of step 9
        broken = [*callbacks("half"), At(10, lambda: 1 / 0)]
        fit(half, Distributed(optim.Adam(0.01)), epochs=4, callbacks=broken, **settings)
    resumed = fit(
        other,
        Distributed(optim.Adam(0.01)),
        epochs=4,
        callbacks=[*callbacks("half"), At(0, None)],  # the same as the file tells of
        resume=own / "half.npz",
        **settings,
    )
    found["apart"] = [apart(whole, other), histories_apart(history, resumed), bits(other), other.optim.t]
    found["files"] = sorted(each.name for each in own.iterdir())
    return found


@check
def one_goes_on(rank, folder):
    """What several began, one process takes up: the file is of the optimizer within."""
    path = folder / "begun.npz"
    group = Distributed(optim.Adam(0.01))
    fit(classifier(), group, epochs=2, callbacks=[Checkpoint(path)])
    group.comm.Barrier()
    one, whole = classifier(), classifier()
    fit(one, None, loss=None, epochs=4, resume=path)
    fit(whole, optim.Adam(0.01), epochs=4)
    return {"apart": apart(one, whole), "rule": repr(one.optim)}


@check
def own_loop(rank, folder):
    """Every rank gives rows of its own: 5, 6, 7 ..., weighted."""
    size = MPI.COMM_WORLD.size
    bounds = np.cumsum([0, *(5 + k for k in range(size))])
    weight = np.random.default_rng(4).random(bounds[-1])
    mine, found = slice(bounds[rank], bounds[rank + 1]), {}
    for name, weights in (("mean", None), ("weighted", weight), ("sum", None)):
        nets = []
        for rule, rows in ((optim.Adam(0.01), slice(0, bounds[-1])), (Distributed(optim.Adam(0.01)), mine)):
            net, error = classifier(), loss.CrossEntropy(reduction="sum" if name == "sum" else "mean")
            net.build((6,))
            rule.prepare(net)
            for _ in range(10):
                error(net(X[rows], training=True), Y[rows], None if weights is None else weights[rows])
                rule(net, error)
            nets.append(net)
        found[name] = [apart(*nets), bits(nets[1])]
    return found


@check
def counting(rank, folder):
    """Losses whose rows do not count alike, and a rank all of whose rows are ignored; with weights, and by hand."""
    size, found = MPI.COMM_WORLD.size, {}
    ignored = np.where(np.arange(130) % 5 < 2, -100, Y)
    ignored[:66] = np.where(np.arange(66) % size == 0, -100, Y[:66])  # rows of rank 0 in the first two batches
    by_class = [0.2, 1.0, 5.0]
    for name, arguments, y in (
        ("weight", {"weight": by_class}, Y),
        ("ignored", {"ignore_index": -100}, ignored),
        ("both", {"weight": by_class, "ignore_index": -100}, ignored),
    ):
        for weighted in (False, True):
            settings = dict(y=y, epochs=2, shuffle=False, metrics=["accuracy"], validation=(X[:37], y[:37]))
            settings |= dict(sample_weight=np.linspace(0.5, 2, 130)) if weighted else {}
            one, several = classifier(), classifier()
            history = fit(one, optim.SGD(0.1), loss=loss.CrossEntropy(**arguments), **settings)
            others = fit(several, Distributed(optim.SGD(0.1)), loss=loss.CrossEntropy(**arguments), **settings)
            found[f"{name} {weighted}"] = [apart(one, several), histories_apart(history, others), bits(several)]
            nets = [classifier().build((6,)) for _ in "ab"]
            rows = slice(rank, 33, size)
            u = np.linspace(0.5, 2, 33) if weighted else None
            for net, rule, part in ((nets[0], optim.SGD(0.1), slice(33)), (nets[1], Distributed(optim.SGD(0.1)), rows)):
                rule.prepare(net)
                error = loss.CrossEntropy(**arguments)
                error(net(X[part], training=True), y[part], None if u is None else u[part])
                rule(net, error)
            found[f"{name} {weighted}, by hand"] = [apart(*nets), 0.0, bits(nets[1])]
    return found


@check
def iterables(rank, folder):
    batches = [(X[k : k + 10], Y[k : k + 10]) for k in range(0, 43, 10)]
    one, several = classifier(), classifier()
    fit(one, optim.SGD(0.1), x=batches, y=None, epochs=3)
    fit(several, Distributed(optim.SGD(0.1)), x=batches, y=None, epochs=3)
    short = batches[: 4 if rank == 0 else 5]
    return {"apart": apart(one, several), "short": said(x=short, y=None)}


def said(rule=None, net=None, **settings):
    """The error of a training."""
    try:
        fit(net or classifier(), Distributed(rule or optim.SGD(0.1)), **settings)
    except ValueError as error:
        return str(error)


@check
def refused(rank, folder):
    """What is not the same on all ranks; the weights of each are as before."""

    def rule(lr):
        return optim.PerLayer({"*.b": optim.SGD(lr), "*": optim.Clip(optim.Adam(0.01), norm=1.0)})

    def sets_the_rate(run, logs):
        run.optim.lr = 0.5

    def looks_on(net, logs):
        return None

    between = classifier(rank, "float64", layers.Dropout((0.25, 0.5)[rank]))
    between.build((6,))
    before = bits(between)
    argument = said(net=between)
    assert bits(between) == before
    return {
        "nets, in an argument": argument,
        "nets, in a layer": said(net=classifier(1, "float64", (layers.ReLU, layers.SiLU)[rank]())),
        "nets, in a function": said(net=classifier(1, "float64", layers.Lambda((np.tanh, np.sin)[rank]))),
        "optimizers, within PerLayer": said(rule=rule(schedules.Constant((0.1, 0.2)[rank]))),
        "optimizers, by a lambda": said(rule=optim.SGD((lambda t: 0.1 / (1 + t), lambda t: 0.1 / (2 + t))[rank])),
        "optimizers, by the order of patterns": said(
            rule=optim.PerLayer({each: optim.SGD() for each in (["0.*", "*"], ["*.b", "*"])[rank]})
        ),
        "callbacks": said(callbacks=[EarlyStopping("loss")] if rank else []),
        "callbacks, in a setting": said(callbacks=[EarlyStopping("loss", patience=5 + rank)]),
        "callbacks, in their code": said(callbacks=[(sets_the_rate, looks_on)[rank]]),
        "metrics": said(metrics=[(lambda p, r: 0.0, lambda p, r: 1.0)[rank]]),
        "loss, in an argument": said(loss=loss.Huber(1.0 + rank), y=np.eye(3)[Y]),
        "rows": said(x=X[rank:], y=Y[rank:]),
        "data": said(x=X + rank, y=Y),
        "epochs": said(epochs=1 + rank),
        "validation": said(validation=(X[rank:], Y[rank:])),
        "nets": said(net=layers.Model([layers.Linear(3 + rank), layers.Linear(3), layers.Softmax()])),
        "optimizers": said(rule=optim.Adam() if rank else optim.SGD()),
        "optimizers, by a schedule": said(rule=optim.SGD(schedules.Step(0.1, 2) if rank else 0.1)),
        "loss": said(loss=loss.Huber() if rank else loss.MSE(), y=np.eye(3)[Y]),
        "batch_size": said(batch_size=(44, 50)[rank]),
    }


@check
def parted(rank, folder):
    """A rank that alone sets its rate, or its weights at the very end."""

    class Sets:
        def epoch(self, run, logs):
            if rank and run.epoch == 1:
                run.optim.lr = 0.5

    class Resets:
        def end(self, run):
            run.net.vector[...] += rank

    found = {}
    for name, callback in {"rate": Sets(), "end": Resets()}.items():
        try:
            fit(classifier(), Distributed(optim.Clip(optim.SGD(0.1), norm=9.0)), epochs=3, callbacks=[callback])
        except RuntimeError as error:
            found[name] = str(error)
    return found


@check
def late(rank, folder):
    """Ctrl-C in what the callbacks do last."""
    found = {}
    last = MPI.COMM_WORLD.size - 1

    class Asks:
        def __init__(self, when):
            self.when = when

        def epoch(self, run, logs):
            if rank == last and run.epoch == self.when:
                os.kill(os.getpid(), signal.SIGINT)

        def end(self, run):
            if rank == last and self.when == "end":
                os.kill(os.getpid(), signal.SIGINT)

    for when in (1, 2, "end"):
        net = classifier()
        history = fit(net, Distributed(optim.SGD(0.1)), epochs=2, callbacks=[Asks(when)])
        found[str(when)] = [history.interrupted, history.epochs, bits(net)]
    return found


@check
def no_rows(rank, folder):
    """Batches of one row: only rank 0 has any."""
    net = layers.Model([layers.Linear(9), layers.ReLU(), layers.Linear(3), layers.Softmax()], seed=1, dtype="float64")
    one = net.copy()
    settings = dict(x=X[:5], y=Y[:5], batch_size=1, epochs=2, callbacks=[UpdateStats()])
    history = fit(net, Distributed(optim.SGD(0.1)), **settings)
    return histories_apart(history, fit(one, optim.SGD(0.1), **settings))


@check
def fires_once(rank, folder):
    """Column 1 is above 0 in a single row of the first batch, of the last rank's; the second batch breaks off."""
    x = np.full((8, 2), -1.0)
    x[3, 1] = 1
    told = dict(x=x, y=Y[:8], batch_size=4, epochs=1, shuffle=False)
    net = layers.Model([layers.ReLU(), layers.Linear(3), layers.Softmax()], seed=1)
    path = folder / "fires.npz"
    with contextlib.suppress(ZeroDivisionError):
        callbacks = [UpdateStats(), Checkpoint(path, every=1), At(2, lambda: 1 / 0)]
        fit(net.copy(), Distributed(optim.SGD(0.1)), callbacks=callbacks, **told)
    history = fit(net, Distributed(optim.SGD(0.1)), callbacks=UpdateStats(), resume=path, **told)
    return history["layers.0 dead units"]


@check
def ragged(rank, folder):
    """Ranks with other numbers of rows draw other numbers; a training goes on with the masks that it would have had.
    A file of another training, where it lies on another rank, is not read."""
    path = (folder if rank == 0 else folder / "other") / "ragged.npz"
    path.parent.mkdir(exist_ok=True)
    settings = dict(epochs=4, x=X[:99], y=Y[:99], batch_size=33)
    nets = [classifier(3, "float64", layers.Dropout(0.25)) for _ in range(3)]
    fit(nets[0], Distributed(optim.Adam(0.01)), **settings)
    with contextlib.suppress(ZeroDivisionError):  # it breaks off at step 10; the file is of step 8
        callbacks = [Checkpoint(path, every=4), At(10, lambda: 1 / 0)]
        fit(nets[1], Distributed(optim.Adam(0.01)), callbacks=callbacks, **settings)
    if rank:
        fit(layers.Model([layers.Linear(3), layers.Softmax()]), optim.SGD(), callbacks=[Checkpoint(path)], epochs=1)
    fit(nets[2], Distributed(optim.Adam(0.01)), resume=path, **settings)
    return [apart(nets[0], nets[2]), bits(nets[2]), nets[2].optim.t]


@check
def waits(rank, folder):
    """Rank 1 comes to train late."""
    told, patience = io.StringIO(), distributed.PATIENCE
    distributed.PATIENCE = 0.2
    if rank:
        time.sleep(0.5)
    with contextlib.redirect_stderr(told):
        fit(classifier(), Distributed(optim.SGD(0.1)), epochs=1)
    distributed.PATIENCE = patience
    return told.getvalue()


@check
def memory_map(rank, folder):
    path = folder / f"{rank}.npy"
    np.save(path, X.astype(np.float32))
    one, several = classifier(), classifier()
    fit(one, optim.SGD(0.1), x=X.astype(np.float32), epochs=3)
    fit(several, Distributed(optim.SGD(0.1)), x=np.load(path, mmap_mode="r"), epochs=3)
    return apart(one, several)


@check
def one_thread(rank, folder):
    import threadpoolctl

    found = []

    def look(net, logs):
        blas = [each["num_threads"] for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"]
        found.append([threads.workers(), max(blas)])

    fit(classifier(), Distributed(optim.SGD(0.1)), epochs=1, callbacks=look)
    return found


@check
def frozen(rank, folder):
    """Gradients of frozen layers are not touched, whatever the reduction."""
    nets = []
    for rule in (optim.SGD(0.01), Distributed(optim.SGD(0.01))):
        net = classifier()
        net.build((6,))
        net[0].frozen = True
        fit(net, rule, loss=loss.CrossEntropy(reduction="sum"), epochs=3)
        net[0].frozen = False
        fit(net, rule, epochs=3)
        nets.append(net)
    return apart(*nets)


@check
def copies(rank, folder):
    """Size, steps and rate of what is read from a pickle, of a copy, and of one with another communicator."""
    world, single = (Distributed(optim.Adam(0.25), comm) for comm in (None, MPI.COMM_SELF))
    for rule in (world, single):
        fit(classifier(), rule, epochs=2)
    others = [pickle.loads(pickle.dumps(world)), copy.deepcopy(world), copy.deepcopy(single)]
    return [[other.size, other.t, other.lr] for other in others]


ALL = list(CHECKS)  # those below are called by name


@check
def killed(rank, folder):
    """The last rank is killed at step 31."""
    kill = At(31, lambda: rank == MPI.COMM_WORLD.size - 1 and os.kill(os.getpid(), signal.SIGKILL))
    rule = Distributed(optim.Adam(0.01))
    fit(classifier(), rule, callbacks=[Checkpoint(folder / "net.npz", every=1), kill])


@check
def goes_on(rank, folder):
    one, several = classifier(), classifier()
    fit(one, optim.Adam(0.01))
    began = []

    class Look(At):
        def begin(self, run):
            began.append(run.step)

    Look.__name__ = "At"
    callbacks = [Checkpoint(folder / "net.npz", every=1), Look(0, None)]
    fit(several, Distributed(optim.Adam(0.01)), callbacks=callbacks, resume=folder / "net.npz")
    return {"began": began, "apart": apart(one, several), "bits": bits(several)}


@check
def fails(rank, folder):
    """One rank has an error of its own; the others wait for it."""
    fit(classifier(), Distributed(optim.SGD(0.1)), callbacks=[At(3, lambda: rank and 1 / 0)])


def main():
    folder, *names = sys.argv[1:]
    rank = MPI.COMM_WORLD.rank
    found = {name: MPI.COMM_WORLD.gather(CHECKS[name](rank, Path(folder))) for name in names or ALL}
    if rank == 0:
        Path(folder, "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
