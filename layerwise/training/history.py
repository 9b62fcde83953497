"""What a training leaves behind: one number for each quantity and epoch."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerwise.core import display

Array = np.ndarray


class History(dict[str, list[float]]):
    """Name -> one number per epoch: "loss", every metric, the same with "val_" before it, "seconds".

    `interrupted` is True when Ctrl-C ended the training.
    """

    interrupted = False
    diverged: Any = None  # of a stack of copies: which of them stopped, (S,)

    @property
    def epochs(self) -> int:
        return len(self.get("seconds", ()))

    def _single_words(self) -> list[str]:
        """The quantities without those of telemetry, whose names are of several words: a dozen for each layer."""
        return [name for name in self if " " not in name]

    def _repr_html_(self) -> str:
        names = self._single_words()
        rows = [[name, *_extremes(np.asarray(self[name]))] for name in names if len(self[name])]
        notes = [f"{self.epochs} epochs" + ", interrupted" * self.interrupted]
        if len(names) < len(self):
            notes.append("Telemetry is not shown here: history.to_frame() has all.")
        return display.table(["", "first", "last", "lowest", "highest"], rows, 1, notes)

    def to_frame(self) -> Any:
        """A pandas DataFrame: a row for each epoch, from 1 on, a column for each quantity; of a stack of copies one for
        each copy, "loss 0", "loss 1", ..."""
        try:
            from pandas import DataFrame, RangeIndex
        except ImportError:
            raise ImportError('to_frame needs a package: pip install "layerwise[pandas]"') from None
        columns: dict[str, Any] = {}
        for name, values in self.items():
            if np.ndim(values) == 1:
                columns[name] = values
            else:
                columns |= {f"{name} {copy}": each for copy, each in enumerate(np.transpose(values))}
        return DataFrame(columns, index=RangeIndex(1, self.epochs + 1, name="epoch"))

    def plot(self) -> Any:
        """The curves as a matplotlib Figure: the loss, and beside it the metrics; training and validation. A notebook
        shows it as a cell's last line, a script by its `show()`."""
        names = [name for name in self._single_words() if name != "seconds" and not name.startswith("val_")]
        figure = display.figure(figsize=(5 * len(names), 3.6), layout="constrained")
        for place, name in enumerate(names):
            axes = figure.add_subplot(1, len(names), place + 1)
            for key, label, colour in ((name, "training", "#0072b2"), ("val_" + name, "validation", "#d55e00")):
                if key in self:
                    axes.plot(range(1, len(self[key]) + 1), self[key], label=label, color=colour, marker=".")
            axes.set(xlabel="epoch", ylabel=name.replace("_", " "))
            axes.spines[["top", "right"]].set_visible(False)
            axes.locator_params(axis="x", integer=True)
            axes.legend(frameon=False)
        return figure


def _extremes(values: Array) -> list[str]:
    """First, last, lowest and highest of a quantity (epochs,), or of copies (epochs, S), as text."""
    if values.dtype.kind not in "biuf":
        return [str(values[0]), str(values[-1]), "", ""]
    ends = [np.unique([np.fmin.reduce(each), np.fmax.reduce(each)]) for each in (values[0].ravel(), values[-1].ravel())]
    texts = [" to ".join(f"{number:.4g}" for number in end) for end in ends]
    for place in (
        np.where(np.isnan(values), np.inf, values).argmin(),
        np.where(np.isnan(values), -np.inf, values).argmax(),
    ):
        epoch, *copy = np.unravel_index(place, values.shape)
        texts.append(f"{values.flat[place]:.4g} (epoch {epoch + 1}{f', copy {copy[0]}' if copy else ''})")
    return texts


__all__ = ["History"]
