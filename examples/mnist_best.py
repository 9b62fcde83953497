"""MNIST with all that helps: four convolutions with batch normalisation, and images that are new in every epoch.

They are turned, moved and stretched at random; the learning rate rises and falls once (one cycle); the labels are
smoothed. `--holdout 5000` tests on images held out of the training set: whoever changes something chooses by these.
"""

from mnist_cnn import images, options, report

import layers
import loss
import optim
from layerwise import augment, schedules


def convolution(filters, kernel_size, padding, pool=False):
    """A convolution, normalised. What is pooled is so first: the rest has a quarter of the work then."""
    pooling = [layers.MaxPool2D(2)] if pool else []
    return [
        layers.Conv2D(filters, kernel_size, padding=padding, bias=False),
        *pooling,
        layers.BatchNorm(),
        layers.ReLU(),
    ]


def main():
    parser = options(__doc__, epochs=10)
    parser.add_argument("--holdout", type=int, default=0, help="test on so many of the training images instead")
    arguments = parser.parse_args()

    (x, y), (x_test, y_test) = images()
    x, y = x[: arguments.rows], y[: arguments.rows]
    if arguments.holdout:
        x, x_test = x[: -arguments.holdout], x[-arguments.holdout :]
        y, y_test = y[: -arguments.holdout], y[-arguments.holdout :]

    net = layers.Model(
        [
            *convolution(32, 5, "valid", pool=True),
            *convolution(64, 3, "same"),
            *convolution(64, 3, "same", pool=True),
            *convolution(128, 3, "valid"),
            layers.Flatten(),
            layers.Linear(10),
        ],
        seed=arguments.seed,
    )
    changed = augment.Affine(rotation=12, shift=2, scale=0.12, shear=8)
    data = augment.batches(x, y, changed, batch_size=arguments.batch_size, seed=arguments.seed)
    rate = schedules.OneCycle(0.01, steps=arguments.epochs * len(data))
    net.train(
        data,
        optim=optim.AdamW(rate, weight_decay=0.01),
        loss=loss.CrossEntropy(from_logits=True, label_smoothing=0.05),
        epochs=arguments.epochs,
        metrics="accuracy",
    )
    report(net, x_test, y_test, arguments)


if __name__ == "__main__":
    main()
