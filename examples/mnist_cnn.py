"""MNIST with a convolutional net: the two convolutions of the Keras example.

MNIST comes from the folder that $LAYERWISE_DATA names, else it is downloaded once.
"""

import argparse

import numpy as np

import layers
import loss
import optim
from layerwise import datasets


def main():
    arguments = options(__doc__, epochs=6).parse_args()

    (x, y), (x_test, y_test) = images()
    x, y = x[: arguments.rows], y[: arguments.rows]

    net = layers.Model(
        [
            layers.Conv2D(32, 3),
            layers.ReLU(),
            layers.Conv2D(64, 3),
            layers.ReLU(),
            layers.MaxPool2D(2),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Linear(128),
            layers.ReLU(),
            layers.Dropout(0.5),
            layers.Linear(10),
            layers.Softmax(),
        ],
        seed=arguments.seed,
    )
    net.train(
        x,
        y,
        optim=optim.Adam(0.001),
        loss=loss.CrossEntropy(),
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        validation=(x_test, y_test),  # watched, and not used to choose anything
        metrics="accuracy",
    )
    report(net, x_test, y_test, arguments)


def options(description, epochs):
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=epochs, help=f"rounds of training (default {epochs})")
    parser.add_argument("--rows", type=int, default=60_000, help="how many of the training images (default all)")
    parser.add_argument("--batch-size", type=int, default=128, help="images in one step (default 128)")
    parser.add_argument("--seed", type=int, default=0, help="decides the weights and the order (default 0)")
    parser.add_argument("--save", metavar="FILE", help="where the trained net goes, .npz or .safetensors")
    parser.add_argument("--plot", metavar="PICTURE", help="draw the filters and the misread digits here")
    return parser


def images():
    """MNIST as images with one channel, (N, 28, 28, 1), float32 in [0, 1]."""
    (x, y), (x_test, y_test) = datasets.mnist(flat=True)
    return (x.reshape(-1, 28, 28, 1), y), (x_test.reshape(-1, 28, 28, 1), y_test)


def report(net, x, y, arguments):
    """Say how the net reads images that it has not seen; save and draw it where asked."""
    likely = net.predict(x)
    if arguments.save:
        net.save(arguments.save)
        print(f"the net is in {arguments.save}")
    if arguments.plot:
        picture(net[0].w, x, y, likely).savefig(arguments.plot)
        print(f"the filters and the misread digits are in {arguments.plot}")
    print(f"{np.mean(likely.argmax(1) == y):.2%} of the {len(y):,} test digits are read right")


def picture(w, x, y, likely):
    """The filters of the first layer, and those of the misread images of which the net was surest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[4, 6])

    left.suptitle(f"the {w.shape[-1]} filters of the first layer", fontsize=11)
    most = np.abs(w).max()
    columns = 6
    for axes in left.subplots(-(-w.shape[-1] // columns), columns).ravel():
        axes.axis("off")
    for axes, number in zip(left.axes, range(w.shape[-1]), strict=False):
        axes.imshow(w[:, :, 0, number], cmap="RdBu_r", vmin=-most, vmax=most)

    read = likely.argmax(1)
    wrong = np.flatnonzero(read != y)
    wrong = wrong[np.argsort(-likely[wrong, read[wrong]])]  # the surest first
    right.suptitle(
        f"{len(wrong):,} of {len(y):,} test digits are misread" + (", the surest first" if len(wrong) > 1 else ""),
        fontsize=11,
    )
    for axes in right.subplots(3, 7).ravel():
        axes.axis("off")
    for axes, place in zip(right.axes, wrong, strict=False):
        axes.imshow(x[place, :, :, 0], cmap="gray_r")
        axes.set_title(f"read {read[place]}, is {y[place]}", fontsize=8)
    return figure


if __name__ == "__main__":
    main()
