"""MNIST: train a net that reads handwritten digits, test it, save it, and look at what it misread.

MNIST comes from the folder that $LAYERWISE_DATA names, else it is downloaded once. Where it cannot be had, the
smaller set of digits that scikit-learn carries takes its place.
"""

import argparse

import numpy as np

import layers
import loss
import optim
from layerwise import datasets


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["mnist", "digits"], default="mnist", help="what to train on (default mnist)")
    parser.add_argument("--epochs", type=int, help="rounds of training (default: 8 for mnist, 30 for digits)")
    parser.add_argument("--seed", type=int, default=0, help="decides the weights and the order (default 0)")
    parser.add_argument("--save", default="mnist.npz", help="file for the trained net (default mnist.npz)")
    parser.add_argument(
        "--plot", metavar="PICTURE", help="draw the curves and the misread digits here, as in mnist.png"
    )
    arguments = parser.parse_args()

    data = arguments.data
    if data == "mnist":
        print("Reading MNIST, which is downloaded the first time", flush=True)
        try:
            (x, y), (x_test, y_test) = datasets.mnist(flat=True)
        except FileNotFoundError as error:
            print(f"Training on the small digits instead of MNIST: {error}")
            data = "digits"
    if data == "digits":
        x, y = datasets.digits()
        order = np.random.default_rng(arguments.seed).permutation(len(x))
        x, y = x[order], y[order]
        x, y, x_test, y_test = x[450:], y[450:], x[:450], y[:450]

    epochs, batch_size, lr = (8, 128, 0.001) if data == "mnist" else (30, 32, 0.003)

    net = layers.Model(
        [
            layers.Linear(128),
            layers.ReLU(),
            layers.Linear(10),
            layers.Softmax(),
        ],
        seed=arguments.seed,
    )
    history = net.train(
        x,
        y,
        optim=optim.Adam(lr),
        loss=loss.CrossEntropy(),
        epochs=epochs if arguments.epochs is None else arguments.epochs,
        batch_size=batch_size,
        validation=(x_test, y_test),  # watched, and not used to choose anything
        metrics="accuracy",
    )
    net.save(arguments.save)

    read = net.predict(x_test).argmax(1)
    if arguments.plot:
        picture(history, x_test, y_test, read).savefig(arguments.plot)
        print(f"the curves and the misread digits are in {arguments.plot}")
    print(f"the net is in {arguments.save}")
    print(f"{data}: {np.mean(read == y_test):.2%} of the {len(y_test):,} test digits are read right")


def picture(history, x, y, read):
    """The curves of the training, and beside them the first 15 of the images that are misread."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[4, 5])

    for axes, name in zip(left.subplots(2, 1, sharex=True), ["loss", "accuracy"], strict=True):
        epochs = range(1, len(history[name]) + 1)
        axes.plot(epochs, history[name], "o-", color="#0072b2", markersize=3, label="training")
        axes.plot(epochs, history["val_" + name], "s--", color="#d55e00", markersize=3, label="test")
        axes.set_ylabel(name)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False)

    wrong = np.flatnonzero(read != y)
    right.suptitle(f"{len(wrong):,} of {len(y):,} test digits are misread" + (", such as" if len(wrong) > 15 else ""))
    side = int(np.sqrt(x.shape[1]))  # pixels
    grid = right.subplots(3, 5).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, place in zip(grid, wrong, strict=False):
        axes.imshow(x[place].reshape(side, side), cmap="gray_r")
        axes.set_title(f"read as {read[place]}, is {y[place]}", fontsize=8)
    return figure


if __name__ == "__main__":
    main()
