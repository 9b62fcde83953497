"""Every example runs, as a person would run it, and its last line states a good result. No MNIST, no network."""

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import model
from layerwise import datasets

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def run(folder, name, *arguments, **environment):
    """What the example prints, line by line; run in another folder than its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / name, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "LAYERWISE_DATA": str(folder)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def number(pattern, line):
    found = re.search(pattern, line)
    assert found, line
    return float(found[1])


def test_every_example_is_tested():
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in EXAMPLES if f'"{name}"' not in source] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_names_the_seed(tmp_path, name):
    text = "\n".join(run(tmp_path, name, "--help"))
    assert "--seed" in text
    assert "default" in text


def test_xor(tmp_path):
    *rows, last = run(tmp_path, "xor.py")
    assert [row[:11] for row in rows] == ["0 xor 1 = 1", "0 xor 0 = 0", "1 xor 1 = 0", "1 xor 0 = 1"]
    assert last == "all four are right"


def test_a_failure_is_stated_too(tmp_path):
    assert run(tmp_path, "xor.py", "--epochs", "1")[-1].startswith("2 of four are right")


def test_linear_regression_recovers_the_weights(tmp_path):
    assert number(r"recovered to ([\d.]+)$", run(tmp_path, "linear_regression.py")[-1]) < 0.02


def test_fizzbuzz(tmp_path):
    *_, answers, last = run(tmp_path, "fizzbuzz.py", "--epochs", "150")
    wanted = ["fizz" * (n % 3 == 0) + "buzz" * (n % 5 == 0) or str(n) for n in range(1, 101)]
    right = sum(came == expected for came, expected in zip(answers.split(), wanted, strict=True))
    assert number(r"^(\d+) of the 100", last) == right >= 75


def test_digits(tmp_path):
    assert number(r"^([\d.]+)% of the 450", run(tmp_path, "digits.py", "--epochs", "15")[-1]) >= 96


def test_sklearn_pipeline(tmp_path):
    *_, chosen, last = run(tmp_path, "sklearn_pipeline.py", "--epochs", "10")
    assert "optim__lr" in chosen
    assert number(r"^([\d.]+)% of the 450", last) >= 94


def test_custom_layer_and_optimizer(tmp_path):
    check, last = run(tmp_path, "custom_layer_and_optimizer.py")
    assert number(r"by ([\d.e-]+)", check) < 1e-6
    assert number(r"to ([\d.e-]+)$", last) < 0.01


def test_mnist_on_digits_saves_the_net_and_draws(tmp_path):
    lines = run(tmp_path, "mnist.py", "--data", "digits", "--epochs", "15", "--save", "net.npz", "--plot", "net.png")
    assert number(r"^digits: ([\d.]+)% of the 450", lines[-1]) >= 95
    assert model.load(tmp_path / "net.npz").predict(np.zeros((1, 64))).shape == (1, 10)
    assert (tmp_path / "net.png").read_bytes().startswith(b"\x89PNG")


def test_mnist_without_its_files_says_so_in_one_line(tmp_path):
    _, told, *_, last = run(tmp_path, "mnist.py", "--epochs", "1")
    assert told.startswith("Training on the small digits instead of MNIST: ")
    assert "$LAYERWISE_DATA" in told
    assert last.startswith("digits: ")
    assert (tmp_path / "mnist.npz").exists()


def test_the_same_seed_gives_the_same_output(tmp_path):
    first, repeated = (run(tmp_path, "xor.py", "--epochs", "20", "--seed", "3") for _ in range(2))
    assert first == repeated
    assert first != run(tmp_path, "xor.py", "--epochs", "20", "--seed", "4")


@pytest.fixture
def digits_as_mnist(tmp_path):
    """The small digits from 0 to 4, enlarged to 28 x 28, in files like those of MNIST: few images teach them."""
    images, classes = datasets.digits()
    images, classes = images[classes < 5], classes[classes < 5]
    images = np.kron((images.reshape(-1, 8, 8) * 255).astype(np.uint8), np.ones((1, 3, 3), np.uint8))
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    for name, part in (("train", slice(200, None)), ("t10k", slice(200))):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte", images[part])
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte", classes[part].astype(np.uint8))
    return tmp_path


def write_idx(path, array):
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.mark.parametrize("name", ["mnist_cnn.py", "mnist_best.py"])
def test_convolutional_nets_read_digits(digits_as_mnist, name):
    quick = ["--epochs", "3", "--rows", "384", "--batch-size", "32"]
    lines = run(digits_as_mnist, name, *quick, "--save", "net.npz", "--plot", "net.png")
    assert number(r"^([\d.]+)% of the 200", lines[-1]) >= 85
    assert model.load(digits_as_mnist / "net.npz").predict(np.zeros((1, 28, 28, 1))).shape == (1, 10)
    assert (digits_as_mnist / "net.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_net_can_be_tested_on_training_images_held_out(digits_as_mnist):
    quick = ["--epochs", "1", "--rows", "300", "--batch-size", "32"]
    last = run(digits_as_mnist, "mnist_best.py", *quick, "--holdout", "100")[-1]
    assert number(r"of the (\d+) test", last) == 100
