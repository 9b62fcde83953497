"""One net trained by several processes: what the ranks of tests/ranks.py found, and what needs none."""

import copy
import importlib.util
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import layers
import loss
import optim
from layerwise import distributed
from layerwise.core import threads
from layerwise.distributed import Distributed

ROOT = Path(__file__).resolve().parent.parent
BESIDE = Path(sys.executable).with_name("mpiexec")
MPIEXEC = str(BESIDE) if BESIDE.exists() else shutil.which("mpiexec")

needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
    reason='needs mpi4py and mpiexec: pip install "layerwise[mpi]"',
)

# Where ranks outnumber the cores, those that wait are to sleep for a moment instead of looking again and again, as
# MPICH's do: it takes half the time.
QUIET = {"OMP_NUM_THREADS": "1", "MPIR_CVAR_ENABLE_HEAVY_YIELD": "1", "MPIR_CVAR_POLLS_BEFORE_YIELD": "50"}


def mpi(ranks, *arguments, **environment):
    return subprocess.run(
        [MPIEXEC, "-n", str(ranks), sys.executable, "-W", "error", "-m", "mpi4py", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | QUIET | environment,
        capture_output=True,
        text=True,
        timeout=90,
    )


def run(ranks, folder, *checks):
    """Of each check what each rank found."""
    done = mpi(ranks, ROOT / "tests" / "ranks.py", folder, *checks)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return run(2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    checks = ("same_weights", "reductions", "counting", "statistics", "stops", "divergence", "files", "own_loop")
    return run(4, tmp_path_factory.mktemp("four"), *checks)


@pytest.fixture(params=["two", "four"])
def found(request):
    return request.getfixturevalue(request.param)


def alike(of_ranks):
    """What every rank found, the same."""
    assert all(each == of_ranks[0] for each in of_ranks)
    return of_ranks[0]


@needs_mpi
def test_the_weights_are_those_of_one_process(found):
    same = alike(found["same_weights"])
    assert same.pop("by itself")[0] == 0  # one rank is one process, to the bit
    for name, (apart, _, steps) in same.items():
        assert steps == 60
        # In float32 a gradient that is almost 0 may get another sign, which rules that divide by its size show.
        limit = 1e-9 if "float64" in name else 1e-6 if name.endswith(("SGD", "Momentum")) else 1e-5
        assert apart < limit, name


@needs_mpi
def test_unequal_parts_weigh_what_they_are_worth(found):
    for name, (weights, history, _) in alike(found["reductions"]).items():
        assert weights < 1e-12, name
        assert history < 1e-12, name


@needs_mpi
def test_rows_count_as_in_one_process_where_the_loss_weighs_or_ignores_some(found):
    for name, (weights, history, _) in alike(found["counting"]).items():
        assert weights < 1e-12, name
        assert history < 1e-12, name


@needs_mpi
def test_metrics_of_a_validation_see_the_rows_of_all_ranks(two):
    for one, several in alike(two["validation"]).values():
        np.testing.assert_allclose(several, one, rtol=1e-10)


@needs_mpi
def test_what_stands_within(two):
    for name, (apart, _) in alike(two["wrapped"]).items():
        assert apart < 1e-12, name


@needs_mpi
def test_all_start_as_rank_0(two):
    first = alike(two["rank_0_gives"])
    _, buffers, seed, steps, lr = first["before"]
    assert (buffers, seed, steps, lr) == ([0, 8], 1, 0, 0.01)
    assert first["apart"] < 1e-12


@needs_mpi
def test_running_statistics_are_averaged(found):
    statistics = alike(found["statistics"])
    assert statistics["apart"] < 1e-12
    assert statistics["finite"]


@needs_mpi
def test_each_rank_draws_dropout_of_its_own(two):
    one, other = two["masks"]
    assert not set(one["masks"]) & set(other["masks"])
    assert one["bits"] == other["bits"]


@needs_mpi
def test_all_ranks_end_in_the_same_step(found):
    stops = alike(found["stops"])
    assert stops["first"][:2] == [2, False]
    assert stops["last"][:2] == [8, False]  # what another than rank 0 says does not count
    assert stops["epoch"][:2] == [4, False]
    assert stops["ctrl-c"][:2] == [3, True]  # it came after step 2, and is told in the next


@needs_mpi
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_divergence_on_one_rank_is_that_of_all(found, what):
    message, apart, _, epochs = alike([each[what] for each in found["divergence"]])
    assert message == "training diverged in epoch 2, step 6"
    assert apart < 1e-12  # as at the end of epoch 1
    assert epochs == 1


@needs_mpi
def test_rank_0_alone_writes_and_its_file_is_gone_on_from(found):
    files = found["files"]
    weights, history, _, steps = alike([each["apart"] for each in files])
    assert (weights, history, steps) == (0, 0, 16)
    assert files[0]["files"] == ["half.csv", "half.npz", "whole.csv", "whole.npz"]
    assert all(each["files"] == [] for each in files[1:])


@needs_mpi
def test_one_process_goes_on_with_what_several_began(two):
    one = alike(two["one_goes_on"])
    assert one["apart"] < 1e-12
    assert one["rule"].startswith("Adam(")


@needs_mpi
def test_a_loop_of_ones_own(found):
    for apart, _ in alike(found["own_loop"]).values():
        assert apart < 1e-12


@needs_mpi
def test_iterables(two):
    found = alike(two["iterables"])
    assert found["apart"] < 1e-12
    assert found["short"].startswith("the batches of 1 of the 2 ranks came to an end before those of the others")


@needs_mpi
def test_a_memory_map(two):
    assert alike(two["memory_map"]) < 1e-12


@needs_mpi
def test_what_differs_between_the_ranks_is_refused(two):
    for what, message in alike(two["refused"]).items():
        assert f"different {what.split(',')[0]}" in message


@needs_mpi
def test_what_differs_is_named(two):
    said = alike(two["refused"])
    for what, told in {
        "nets, in a layer": "net.layers[2] is class layers.ReLU on rank 0, class layers.SiLU on rank 1",
        "nets, in an argument": "net.layers[2].rate is 0.25 on rank 0, 0.5 on rank 1",
        "nets, in a function": "net.layers[2].function is",
        "optimizers, within PerLayer": "optimizer.optimizers['*.b'].lr is schedule",
        "callbacks": "callbacks[0] is nothing on rank 0, class layerwise.callbacks.EarlyStopping on rank 1",
        "callbacks, in a setting": "callbacks[0].patience is 5 on rank 0, 6 on rank 1",
        "loss, in an argument": "loss.delta is 1.0 on rank 0, 2.0 on rank 1",
        "epochs": "epochs is 1 on rank 0, 2 on rank 1",
    }.items():
        assert told in said[what]


@needs_mpi
def test_ranks_that_part_are_refused(two):
    parted = alike(two["parted"])
    told = r"parted: at step 8 .*\['lr'\] is 0\.1 on rank 0, 0\.5 on rank 1 and layers\.0\.w is"
    assert re.search(told, parted["rate"])
    assert "parted: at step 12 layers.0.w is" in parted["end"]


@needs_mpi
def test_ctrl_c_in_what_callbacks_do_last(two):
    late = alike(two["late"])
    assert late["1"][:2] == [True, 1]
    assert late["2"][:2] == [True, 2]
    assert late["end"][:2] == [True, 2]


@needs_mpi
def test_a_rank_without_rows_has_the_same_history(two):
    assert alike(two["no_rows"]) < 1e-12


@needs_mpi
def test_dead_units_are_those_of_all_ranks_after_a_resume_within_an_epoch(two):
    assert alike(two["fires_once"]) == [0.5]


@needs_mpi
def test_dropout_with_ragged_batches_goes_on_to_the_same_bits(two):
    weights, _, steps = alike(two["ragged"])
    assert (weights, steps) == (0, 12)


@needs_mpi
def test_a_rank_that_waits_says_so(two):
    first, other = two["waits"]
    assert first.startswith("rank 0 of 2 has waited 0.2 seconds for the others to call train")
    assert other == ""


@needs_mpi
def test_one_thread_for_each_rank(two):
    assert alike(two["one_thread"]) == [[1, 1]]


@needs_mpi
def test_copies(two):
    assert alike(two["copies"]) == [[2, 8, 0.25], [2, 8, 0.25], [1, 8, 0.25]]


@needs_mpi
def test_frozen_layers(two):
    assert alike(two["frozen"]) < 1e-12


@needs_mpi
def test_a_killed_rank_ends_the_job_and_its_checkpoint_goes_on(tmp_path):
    began = time.monotonic()
    done = mpi(2, ROOT / "tests" / "ranks.py", tmp_path, "killed")
    assert time.monotonic() - began < 10
    assert done.returncode != 0
    assert "signal 9" in (done.stdout + done.stderr).lower() or "EXIT CODE: 9" in done.stdout
    found = alike(run(2, tmp_path, "goes_on")["goes_on"])
    assert found["began"][0] in (30, 31)
    assert found["apart"] < 1e-9


@needs_mpi
def test_a_rank_that_fails_ends_the_others(tmp_path):
    done = mpi(2, ROOT / "tests" / "ranks.py", tmp_path, "fails")
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr


@needs_mpi
def test_the_example(tmp_path):
    path = tmp_path / "net.npz"
    arguments = (ROOT / "examples" / "mnist_distributed.py", "--epochs", 8, "--checkpoint", path)
    done = mpi(2, *arguments, LAYERWISE_DATA=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert path.exists()
    lines = done.stdout.splitlines()
    assert sum(line.startswith("digits: ") for line in lines) == 1  # of two ranks one speaks
    found = re.match(r"digits: ([\d.]+)% of the 450", lines[-1])
    assert found, lines[-1]
    assert float(found[1]) >= 95


# What needs no MPI.


class Alone:
    """A communicator of one."""

    def Get_rank(self):
        return 0

    def Get_size(self):
        return 1

    def bcast(self, value):
        return value

    def allgather(self, value):
        return [value]


def test_what_goes_around_it_is_refused_with_the_order():
    rule = Distributed(optim.SGD(0.1), Alone())
    with pytest.raises(ValueError, match=r"write Distributed\(Clip\(SGD\(lr=0.1.*\), \.\.\.\)\)"):
        optim.Clip(rule, norm=1.0)
    with pytest.raises(ValueError, match="a Distributed already: leave out the outer one"):
        Distributed(rule, Alone())
    with pytest.raises(ValueError, match="needs the whole net"):
        optim.PerLayer({"*": rule})


@pytest.mark.parametrize("make", [optim.LBFGS, lambda: optim.Clip(optim.SAM(optim.SGD()), norm=1), optim.PolyakSGD])
def test_rules_that_evaluate_again_are_refused(make):
    with pytest.raises(ValueError, match=r"no rank has the whole batch.*Distributed\(Accumulate\(Clip\(rule\)\)\)"):
        Distributed(make(), Alone())


def test_a_plain_function_is_refused():
    with pytest.raises(TypeError, match="Distributed goes around an Optimizer"):
        Distributed(lambda net, loss: None, Alone())


def test_a_stack_of_copies_is_refused():
    net = layers.Model([layers.Linear(2)], copies=2)
    with pytest.raises(ValueError, match="Distributed can't train a stack of copies"):
        net.train(np.ones((4, 3)), np.ones((4, 2)), Distributed(optim.SGD(), Alone()), verbose=False)


def test_a_loop_of_ones_own_needs_a_loss_that_tells_its_rows():
    net = layers.Model([layers.Linear(2)])
    rule = Distributed(optim.SGD(), Alone())
    with pytest.raises(TypeError, match="a loss of ours"):
        rule(net, loss.MSE())


@pytest.mark.parametrize("missing", ["mpi4py", "mpi4py.MPI"])
def test_a_missing_package_is_named(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    distributed._mpi.cache_clear()
    with pytest.raises(ImportError, match=r'pip install "layerwise\[mpi\]"'):
        Distributed(optim.SGD())


def test_an_mpiexec_of_another_mpi_is_noticed(monkeypatch):
    mpi = SimpleNamespace(COMM_WORLD=Alone(), Get_library_version=lambda: "MPICH Version: 5\nmore")
    monkeypatch.setattr(distributed, "_mpi", lambda: mpi)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
    with pytest.raises(RuntimeError, match=r"3 processes were started and each finds itself alone.*'MPICH Version: 5'"):
        Distributed(optim.SGD())
    monkeypatch.delenv("OMPI_COMM_WORLD_SIZE")
    assert Distributed(optim.SGD()).size == 1


def test_several_blas_threads_for_each_rank_are_refused(monkeypatch):
    monkeypatch.setattr(threads, "_blas", lambda: None)
    monkeypatch.setattr(threads, "_cores", lambda: 2)
    net = layers.Model([layers.Linear(2)])
    with pytest.raises(ImportError, match=r'pip install "layerwise\[mpi\]"; or set OMP_NUM_THREADS=1'):
        net.train(np.ones((4, 3)), np.ones((4, 2)), Distributed(optim.SGD(), Alone()), verbose=False)


def test_what_within_reads_and_sets_and_survives_a_copy():
    x, y = np.ones((4, 3)), np.ones((4, 2))
    rule = Distributed(optim.Adam(0.5), Alone())
    layers.Model([layers.Linear(2)]).train(x, y, rule, epochs=3, verbose=False)
    rule.lr = 0.25
    other = copy.deepcopy(rule)
    assert (other.lr, other.t, other.comm) == (0.25, 3, rule.comm)
    state = pickle.loads(pickle.dumps(rule.state_dict()))
    repeated = Distributed(optim.Adam(), Alone())
    repeated.load_state_dict(state)
    assert (repeated.lr, repeated.t) == (0.25, 3)
