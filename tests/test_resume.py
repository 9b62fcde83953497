"""A training that was stopped, or killed, goes on from its file to the same bits as one that never was."""

import copy
import functools
import itertools
import subprocess
import sys
import textwrap
from pathlib import Path

import golden
import numpy as np
import pytest

import layers
import loss
import model
import optim
from layerwise import augment, callbacks, schedules
from layerwise.callbacks import Checkpoint, CSVLogger, EarlyStopping, StopOnTarget, TimeLimit

ROOT = Path(__file__).resolve().parent.parent
RNG = np.random.default_rng(5)
X = RNG.standard_normal((37, 3)).astype(np.float32)
Y = np.stack([X[:, 0] * X[:, 1], np.sin(X[:, 2])], 1)
EPOCHS = 4


class Stop(Exception):
    """What stands in for a kill: nothing that comes after it is done."""


def make(seed=3, **kwargs):
    return layers.Model(
        [layers.Linear(6), layers.BatchNorm(), layers.Tanh(), layers.Dropout(0.3), layers.Linear(2)], seed, **kwargs
    )


def train(net, rule, path, epochs=EPOCHS, callbacks=(), **kwargs):
    watchers = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    settings = dict(loss=loss.MSE(), epochs=epochs, batch_size=8, validation=(X[:9], Y[:9]), verbose=False)
    return net.train(X, Y, optim=rule, callbacks=[Checkpoint(path, every=kwargs.pop("every", None)), *watchers],
                     **settings | kwargs)  # fmt: skip


def same(net, history, other, others_history):
    np.testing.assert_array_equal(net.vector, other.vector)
    for leaf, twin in zip(net.leaf_layers(), other.leaf_layers(), strict=True):
        for name, value in leaf.buffers.items():
            np.testing.assert_array_equal(value, twin.buffers[name])
    assert history.keys() == others_history.keys()
    for name in set(history) - {"seconds"}:
        np.testing.assert_array_equal(history[name], others_history[name], err_msg=name)


def rules():
    named = {name: lambda name=name: getattr(optim, name)() for name in golden.NAMES if name not in WRAPPED}
    return named | WRAPPED


WRAPPED = {
    "Clip": lambda: optim.Clip(optim.Momentum(0.05), norm=0.5),
    "Accumulate": lambda: optim.Accumulate(optim.Adam(), 3),
    "Average": lambda: optim.Average(optim.Clip(optim.Adam(), norm=1.0), decay=0.9),
    "Lookahead": lambda: optim.Lookahead(optim.SGD(0.1, 0.9)),
    "SAM": lambda: optim.SAM(optim.SGD(0.1)),
    "PerLayer": lambda: optim.PerLayer({"layers.0*": optim.SGD(0.1, 0.9), "*": optim.Adam()}),
    "LBFGS": lambda: optim.LBFGS(steps=4, history=10),  # 20 steps of training fill the history several times
    "of a schedule": lambda: optim.AdamW(schedules.Warmup(schedules.Cosine(0.1, 0.0, steps=30), steps=5)),
}


@pytest.fixture(params=rules(), scope="module")
def rule(request):
    return rules()[request.param]


@pytest.fixture(scope="module")
def unbroken(rule, tmp_path_factory):
    """By how often it writes its file and the file's suffix: a net that was trained in one piece, and its history."""

    @functools.cache
    def trained(every, suffix):
        net = make()
        return net, train(net, rule(), tmp_path_factory.mktemp("whole") / f"whole.{suffix}", every=every)

    return trained


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_it_goes_on_from_an_epochs_end(rule, unbroken, tmp_path, suffix):
    parted, repeated = make(), make(seed=77)
    whole, history = unbroken(None, suffix)
    path = tmp_path / f"parted.{suffix}"
    train(parted, rule(), path, epochs=2)
    same(whole, history, repeated, train(repeated, rule(), path, resume=path))


@pytest.mark.parametrize("stop", [3, 5, 8, 19])
def test_it_goes_on_from_within_an_epoch(rule, unbroken, stop, tmp_path):
    def kill(run):
        if run.step == stop:
            raise Stop

    class Kill:
        def step(self, run):
            pass

    killer, bystander = Kill(), Kill()
    killer.step = kill
    parted, repeated = make(), make(seed=77)
    whole, history = unbroken(2, "npz")
    path = tmp_path / "parted.npz"
    with pytest.raises(Stop):
        train(parted, rule(), path, callbacks=[killer], every=2)
    same(whole, history, repeated, train(repeated, rule(), path, callbacks=[bystander], every=2, resume=path))


def test_the_file_makes_the_optimizer_and_the_loss(tmp_path):
    path = tmp_path / "net.npz"
    rule = optim.Average(optim.AdamW(schedules.Cosine(0.1, 0.0, steps=30), weight_decay=0.1), decay=0.9)
    whole, repeated = make(), make()
    history = train(whole, copy.deepcopy(rule), tmp_path / "whole.npz", loss=loss.Huber(0.7))
    train(make(), rule, path, epochs=1, loss=loss.Huber(0.7))
    same(whole, history, repeated, train(repeated, None, path, loss=None, resume=path))
    assert repr(repeated.loss) == repr(loss.Huber(0.7))


def test_a_stack_of_nets_goes_on(tmp_path):
    rates = np.array([0.01, 0.1, 1e30])  # the last one diverges
    whole, repeated = make_stack(), make_stack()
    with np.errstate(all="ignore"):
        history = train(whole, optim.SGD(rates), tmp_path / "whole.npz")
        train(make_stack(), optim.SGD(rates), tmp_path / "net.npz", epochs=2)
        others = train(repeated, optim.SGD(rates), tmp_path / "net.npz", resume=tmp_path / "net.npz")
    assert others.diverged.tolist() == [False, False, True]
    same(whole, history, repeated, others)


def make_stack():
    return layers.Model([layers.Linear(4), layers.Tanh(), layers.Dropout(0.2), layers.Linear(2)], seed=3, copies=3)


def test_the_callbacks_go_on(tmp_path):
    """An EarlyStopping counts on, stops where it would have, and a training that it ended stays ended, and says so."""
    path = tmp_path / "net.npz"

    def early():
        return [EarlyStopping("loss", patience=2, min_delta=10)]

    whole, repeated, ended = make(), make(), make()
    history = train(whole, optim.SGD(), tmp_path / "whole.npz", callbacks=early())
    assert history.epochs == 3
    train(make(), optim.SGD(), path, epochs=2, callbacks=early())
    same(whole, history, repeated, train(repeated, optim.SGD(), path, callbacks=early(), resume=path))
    with pytest.warns(UserWarning, match="not go on after epoch 3. EarlyStopping has ended it: give it a patience of"):
        assert train(ended, optim.SGD(), path, callbacks=early(), resume=path).epochs == 3
    same(whole, history, ended, history)


ENDING = [  # what ends it, after which epoch, and with what it goes on
    ([EarlyStopping("loss", patience=1, min_delta=10)], 2, [EarlyStopping("loss", patience=9, min_delta=10)]),
    ([StopOnTarget("loss", 1e9)], 1, [StopOnTarget("loss", 0)]),
    ([StopOnTarget("loss", 1e9)], 1, []),
    ([lambda net, logs: True], 1, []),
    ([TimeLimit(1e-9)], 1, [TimeLimit(1e9)]),
]


@pytest.mark.parametrize(("ends", "epochs", "goes_on"), ENDING)
def test_what_a_callback_ended_goes_on(ends, epochs, goes_on, tmp_path):
    """To the bits of a training that nothing ended; from the step of a TimeLimit, here the first."""
    path, whole, parted, repeated = tmp_path / "net.npz", make(), make(), make(77)
    history = train(whole, optim.Adam(), tmp_path / "whole.npz", callbacks=goes_on)
    assert train(parted, optim.Adam(), path, callbacks=ends).epochs == epochs
    same(whole, history, repeated, train(repeated, optim.Adam(), path, callbacks=goes_on, resume=path))


def test_a_time_limit_after_another_is_one_long_training(tmp_path, monkeypatch):
    """By a clock that goes on by a second a step: five steps an epoch, jobs of seven."""
    clock = itertools.count(1000)
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(clock))
    path, whole, net = tmp_path / "net.npz", make(), make(77)
    history = train(whole, optim.Adam(), tmp_path / "whole.npz", metrics="mae")
    train(make(), optim.Adam(), path, callbacks=TimeLimit(7), metrics="mae")
    for _ in range(2):  # jobs, after the first, for twenty steps
        others = train(net, optim.Adam(), path, callbacks=TimeLimit(7), metrics="mae", resume=path)
    same(whole, history, net, others)


def test_a_time_limit_over_an_iterable_goes_on_with_the_next_epoch(tmp_path):
    path, data, net = tmp_path / "net.npz", [(X[:8], Y[:8]), (X[8:], Y[8:])], make()
    told = dict(optim=optim.Adam(), verbose=False, epochs=3)
    net.train(data, callbacks=[TimeLimit(1e-9), Checkpoint(path)], **told)
    assert net.train(data, callbacks=[TimeLimit(1e9), Checkpoint(path)], resume=path, **told).epochs == 3
    assert net.optim.t == 1 + 2 * 2


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (StopOnTarget("loss", 1e9), "StopOnTarget has ended it: give it a target that is not reached yet, or leave it"),
        (lambda net, logs: True, "<lambda> has ended it: leave it out to go on"),
    ],
)
def test_what_stays_ended_says_so(ends, words, tmp_path):
    train(make(), optim.Adam(), tmp_path / "net.npz", callbacks=[ends])
    with pytest.warns(UserWarning, match=rf"net\.npz does not go on after epoch 1\. {words}"):
        history = train(make(), optim.Adam(), tmp_path / "b.npz", callbacks=[ends], resume=tmp_path / "net.npz")
    assert history.epochs == 1


@pytest.mark.parametrize(("frozen", "every"), [(True, 2), (False, None)])
def test_the_layers_that_are_frozen_are_the_files(rule, frozen, every, tmp_path):
    """A callback froze, or thawed, a layer after the first epoch; the training broke off in the third."""

    def turn(net, logs):
        net[0].frozen = net[1].frozen = frozen

    def begun():
        net = make()
        net[0].frozen = net[1].frozen = not frozen
        return net

    class Kill:
        def step(self, run):
            if run.step == 13:
                raise Stop

        def epoch(self, run, logs):
            turn(run.net, logs)

    whole, repeated = begun(), begun()
    history = train(whole, rule(), tmp_path / "whole.npz", callbacks=[turn])
    with pytest.raises(Stop):
        train(begun(), rule(), tmp_path / "net.npz", callbacks=[Kill()], every=every)
    same(
        whole,
        history,
        repeated,
        train(repeated, rule(), tmp_path / "a.npz", callbacks=[turn], resume=tmp_path / "net.npz"),
    )
    assert [leaf.frozen for leaf in repeated] == [leaf.frozen for leaf in whole]


def test_without_a_file_the_training_begins(tmp_path):
    net, other = make(), make()
    first = train(net, optim.Adam(), tmp_path / "a.npz", resume=tmp_path / "none.npz")
    same(net, first, other, train(other, optim.Adam(), tmp_path / "b.npz"))


class Own(layers.Model):
    """A subclass of one's own, with Model's arguments."""


@pytest.mark.parametrize("within", [False, True])
def test_a_subclass_of_model_needs_no_seed_to_go_on(within, tmp_path):
    def own():
        net = Own([layers.Linear(6), layers.Dropout(0.3), layers.Linear(2)])
        return Own([net, layers.Tanh()]) if within else net

    path, net, repeated = tmp_path / "net.npz", own(), own()
    train(net, optim.Adam(), path, epochs=2)
    saved = net.seed
    whole = train(net, optim.Adam(), tmp_path / "whole.npz", epochs=EPOCHS, resume=path)
    same(net, whole, repeated, train(repeated, optim.Adam(), path, resume=path))
    assert repeated.seed == saved


def test_augmented_batches_go_on(tmp_path):
    images, numbers = RNG.standard_normal((20, 4, 4, 1)), np.arange(20) % 2

    def parts(seed):
        net = layers.Model([layers.Flatten(), layers.Linear(2), layers.Softmax()], seed=3)
        return net, augment.batches(images, numbers, [augment.Flip(), augment.Shift(1)], batch_size=8, seed=seed)

    def train(net, data, name, epochs=EPOCHS, **kwargs):
        watcher = Checkpoint(tmp_path / name)
        return net.train(data, optim=optim.Adam(), epochs=epochs, callbacks=watcher, verbose=False, **kwargs)

    (whole, data), (parted, same_data), (repeated, another) = parts(0), parts(0), parts(None)
    history = train(whole, data, "whole.npz")
    train(parted, same_data, "net.npz", epochs=2)
    with pytest.raises(ValueError, match=r"batches that keep a state, as augment\.batches do"):
        train(parts(0)[0], [(images, numbers)], "net.npz", resume=tmp_path / "net.npz")
    same(whole, history, repeated, train(repeated, another, "net.npz", resume=tmp_path / "net.npz"))


def test_load_gives_the_net_of_a_checkpoint(tmp_path):
    net = make()
    train(net, optim.Average(optim.Adam(), decay=0.5), tmp_path / "net.npz")
    np.testing.assert_array_equal(model.load(tmp_path / "net.npz").predict(X), net.predict(X))


def double(steps):
    return 0.01 * 2.0**-steps


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(rule=optim.SGD()), "by .'Adam'., this one is by .'SGD'."),
        (dict(rule=None), "'double', of one's own: give it"),
        (dict(callbacks=[EarlyStopping("loss")]), r"the callbacks \[\], this one has .'EarlyStopping'."),
        (
            dict(loss=loss.MSE(reduction="sum")),
            r"whose loss has .'reduction': 'mean'., this one is MSE\(reduction='sum'\)",
        ),
        (dict(loss=loss.Huber()), "by .'MSE'., this one is by .'Huber'.: give the same loss"),
        (dict(net=layers.Model([layers.Linear(2)], seed=0)), "of another net"),
        (dict(metrics="mae"), r"with the metrics .., this one has .'mae'."),
        (dict(validation=None), "of a training with validation, unlike this one"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(change, words, tmp_path):
    path = tmp_path / "net.npz"
    train(make(), optim.Adam(double), path, epochs=1)
    told = dict(rule=optim.Adam(double)) | change
    net, rule = told.pop("net", None) or make(), told.pop("rule")
    net.build((3,))
    before, seed = net.vector.copy(), net.seed
    with pytest.raises(ValueError, match=words):
        train(net, rule, path, resume=path, **told)
    np.testing.assert_array_equal(net.vector, before)
    assert net.seed == seed


def test_what_only_writes_files_may_come_and_go(tmp_path):
    def stopping():
        return EarlyStopping("loss", patience=50)

    whole, parted, path = make(), make(), tmp_path / "net.npz"
    history = train(whole, optim.Adam(), tmp_path / "whole.npz", callbacks=[stopping()])
    train(parted, optim.Adam(), path, epochs=2, callbacks=[stopping()])
    repeated, seen = make(), []
    settings = dict(loss=loss.MSE(), epochs=EPOCHS, batch_size=8, validation=(X[:9], Y[:9]), verbose=False)
    watching = [CSVLogger(tmp_path / "log.csv"), lambda net, logs: seen.append(logs["loss"]), stopping()]
    same(whole, history, repeated, repeated.train(X, Y, optim.Adam(), callbacks=watching, resume=path, **settings))
    assert seen == history["loss"][2:]


def test_the_numbers_of_an_optimizer_are_the_files(tmp_path):
    train(make(), optim.Adam(lr=0.02), tmp_path / "net.npz", epochs=2)
    rule = optim.Adam(lr=0.5)
    train(make(), rule, tmp_path / "net.npz", resume=tmp_path / "net.npz")
    assert rule.lr == 0.02


def test_a_file_of_a_net_alone_is_refused(tmp_path):
    net = make()
    net.build((3,))
    net.save(tmp_path / "net.npz")
    with pytest.raises(
        ValueError, match=r"no training: resume takes what callbacks\.Checkpoint writes without weights_only"
    ):
        train(net, optim.Adam(), tmp_path / "b.npz", resume=tmp_path / "net.npz")


def test_an_iterable_has_no_place_within_an_epoch(tmp_path):
    with pytest.raises(ValueError, match="leave out every"):
        make().train([(X, Y)], callbacks=Checkpoint(tmp_path / "net.npz", every=2), verbose=False)


KILLED = """
    import sys
    import numpy as np
    import layers, loss, optim
    from layerwise.callbacks import Checkpoint
    path, out = sys.argv[1:]
    rng = np.random.default_rng(5)
    x = rng.standard_normal((200, 8)).astype(np.float32)
    y = np.tanh(x[:, :2])
    net = layers.Model([layers.Linear(32), layers.BatchNorm(), layers.Tanh(), layers.Dropout(0.2), layers.Linear(2)], 1)

    class Tell:
        def step(self, run):
            print(run.step, flush=True)

    net.train(x, y, optim=optim.Adam(), loss=loss.MSE(), epochs=40, batch_size=8, verbose=False,
              callbacks=[Tell(), Checkpoint(path, every=3)], resume=path)
    np.save(out, net.vector)
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_bits(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(KILLED))

    def start(name):
        command = [sys.executable, script, tmp_path / f"{name}.npz", tmp_path / f"{name}.npy"]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}, text=True)

    whole = start("whole")
    assert len(whole.communicate(timeout=60)[0].splitlines()) == 1000
    reached = 0
    for steps in np.random.default_rng(0).integers(5, 60, 6):
        run = start("killed")
        told = [line for line in (run.stdout.readline() for _ in range(steps)) if line]
        run.kill()  # SIGKILL, within a step or within a save
        run.communicate(timeout=60)
        assert int(told[0]) > reached - 3  # none but the steps since the last file were lost
        reached = int(told[-1])
        assert not (tmp_path / "killed.npz").exists() or model.load(tmp_path / "killed.npz")  # always whole
    last = start("killed")
    last.communicate(timeout=60)
    assert last.returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "killed.npy"), np.load(tmp_path / "whole.npy"))
