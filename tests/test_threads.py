"""Work shared among threads: every piece done once, the same bits, and errors that come out."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import threadpoolctl

import layers
import optim
from layerwise.core import blocks, threads


@pytest.fixture(autouse=True)
def two_workers(monkeypatch):
    """Two threads, whatever the machine has."""
    monkeypatch.setattr(threads, "workers", lambda: 2)


def test_every_piece_is_done_once():
    done = np.zeros(11, int)

    def mark(place, by):
        done[place] += by

    threads.parallel_for(mark, [(place, place + 1) for place in range(11)])
    np.testing.assert_array_equal(done, np.arange(1, 12))
    threads.parallel_for(mark, [])


@pytest.mark.parametrize("bad", [0, 5, 9])
def test_an_error_in_any_thread_comes_out_when_all_are_done(bad):
    done = []

    def work(place):
        if place == bad:
            raise ValueError(f"piece {place}")
        done.append(place)

    with pytest.raises(ValueError, match=f"piece {bad}"):
        threads.parallel_for(work, [(place,) for place in range(10)])
    other = range(5) if bad >= 5 else range(5, 10)  # the half of the other thread
    assert set(other) <= set(done)


def test_numpy_warns_in_no_thread():
    out = np.ones(2)
    with np.errstate(all="ignore"):
        threads.parallel_for(lambda place: np.divide(1.0, np.zeros(1), out=out[place : place + 1]), [(0,), (1,)])
    assert np.isinf(out).all()


def test_blas_is_in_one_thread_within_and_as_before_after():
    def numbers():
        return [each["num_threads"] for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"]

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        assert set(numbers()) == {2}
        with threads.single_blas() as single, threads.single_blas():
            assert single
            assert set(numbers()) == {1}
        assert set(numbers()) == {2}


@pytest.mark.parametrize(("variable", "said", "expected"), [("OMP_NUM_THREADS", "1", 1), ("OMP_NUM_THREADS", "", None)])
def test_the_number_of_threads_follows_the_environment(variable, said, expected):
    script = "from layerwise.core import threads; print(threads.workers())"
    environment = {k: v for k, v in os.environ.items() if not k.endswith("NUM_THREADS")} | {variable: said}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == (expected or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("make", [optim.Adam, lambda: optim.AdamW(weight_decay=0.1), lambda: optim.SGD(0.1, 0.9)])
def test_a_rule_gives_the_same_bits_in_threads(make, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 100)
    alone, shared = (layers.Model([layers.Linear(30), layers.Linear(40)], seed=0) for _ in range(2))
    for net, wide in ((alone, 10**9), (shared, 0)):
        monkeypatch.setattr(blocks, "WIDE", wide)
        net.build((20,))
        rule = make()
        for step in range(3):
            net.gradient[...] = np.random.default_rng(step).standard_normal(net.parameter_count)
            rule.update(net)
        assert (rule._parallel_for is None) == (net is alone)
        rule = copy.deepcopy(rule)  # goes on after a copy
    np.testing.assert_array_equal(alone.vector, shared.vector)


def test_what_fades_away_leaves_the_state():
    """A gradient that stays at 0 leaves no numbers below the normal ones behind, which are slow to compute with."""
    w, rule = np.ones(5, np.float32), optim.Adam()
    rule.step([w], [np.full(5, 1e-3, np.float32)])
    smallest = np.finfo(np.float32).tiny
    for _ in range(1100):
        rule.step([w], [np.zeros(5, np.float32)])
    mean = rule.state_dict()["state"][0]["m"]
    assert (np.abs(mean) < smallest).all()
    for _ in range(64):
        rule.step([w], [np.zeros(5, np.float32)])
    assert (rule.state_dict()["state"][0]["m"] == 0).all()
