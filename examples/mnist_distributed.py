"""MNIST by several processes, over MPI: the net of mnist.py, each batch shared out among the ranks.

    mpiexec -n 2 python -m mpi4py examples/mnist_distributed.py

The weights are those that one process comes to, but for rounding. Only rank 0 prints, draws the bar and writes. MNIST
comes from the folder that $LAYERWISE_DATA names, else it is downloaded once; where it cannot be had, the smaller set
of digits that scikit-learn carries takes its place.
"""

import argparse

import numpy as np

import layers
import loss
import optim
from layerwise import callbacks, datasets
from layerwise.distributed import Distributed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, help="rounds of training (default: 3 for mnist, 30 for digits)")
    parser.add_argument("--seed", type=int, default=0, help="decides the weights and the order (default 0)")
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="save the training here after each epoch, as in net.npz, and go on from there",
    )
    arguments = parser.parse_args()

    rule = Distributed(optim.Adam())
    data, problem = "mnist", None
    if rule.rank == 0:  # the first to look downloads it; the others wait and find it
        problem = read()
    problem = rule.comm.bcast(problem)
    data, epochs, batch_size, lr, (x, y), (x_test, y_test) = problem
    rule.lr = lr

    net = layers.Model([layers.Linear(128), layers.ReLU(), layers.Linear(10), layers.Softmax()], seed=arguments.seed)
    history = net.train(
        x,
        y,
        optim=rule,
        loss=loss.CrossEntropy(),
        epochs=epochs if arguments.epochs is None else arguments.epochs,
        batch_size=batch_size,  # of all ranks together
        validation=(x_test, y_test),  # watched, and not used to choose anything
        metrics="accuracy",
        callbacks=[callbacks.Checkpoint(arguments.checkpoint)] if arguments.checkpoint else [],
        resume=arguments.checkpoint,
    )
    if rule.rank == 0:
        steps = history.epochs * -(-len(x) // batch_size)
        print(
            f"{rule.size} ranks: {1000 * sum(history['seconds']) / steps:.2f} ms a step, looking at the test included"
        )
        print(f"{data}: {history['val_accuracy'][-1]:.2%} of the {len(y_test):,} test digits are read right")


def read():
    """The data, and how to train on it."""
    try:
        print("Reading MNIST, which is downloaded the first time", flush=True)
        train, test = datasets.mnist(flat=True)
        return "mnist", 3, 128, 0.001, train, test
    except FileNotFoundError as error:
        print(f"Training on the small digits instead of MNIST: {error}", flush=True)
        x, y = datasets.digits()
        order = np.random.default_rng(0).permutation(len(x))
        x, y = x[order], y[order]
        return "digits", 30, 32, 0.003, (x[450:], y[450:]), (x[:450], y[:450])


if __name__ == "__main__":
    main()
