"""What a notebook shows for the last line of a cell: tables, and pictures that need no `%matplotlib inline`.

Imports no other module of ours.
"""

from __future__ import annotations

import functools
import io
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

WITHOUT_WINDOW = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")  # the backends of matplotlib that only write


class Text(str):
    """A str that a notebook shows as HTML, and a console as it prints, without quotes."""

    _html = ""

    def __new__(cls, text: str, html: str = "") -> Text:
        self = super().__new__(cls, text)
        self._html = html
        return self

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self._html


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int, notes: Iterable[str] = ()) -> str:
    """Rows of text as HTML, the first `left` columns aligned left, with paragraphs below it; all of it escaped."""
    from html import escape  # here, as it takes longer to import than this file

    def line(kind: str, cells: Sequence[str]) -> str:
        sides = ["left"] * left + ["right"] * (len(cells) - left)
        written = (f'<{kind} style="text-align: {s}">{escape(c)}</{kind}>' for s, c in zip(sides, cells, strict=True))
        return f"<tr>{''.join(written)}</tr>"

    body = "".join(line("td", row) for row in rows)
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f"<table><thead>{line('th', header)}</thead><tbody>{body}</tbody></table>{below}"


# Pictures ----------------------------------------------------------------------------------------------------


def figure(extra: str = "demo", **settings: Any) -> Any:
    """An empty matplotlib Figure that a notebook shows and whose `show` works in a script; ImportError without
    matplotlib, with the pip command for that extra."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(f'pictures need a package: pip install "layerwise[{extra}]"') from None
    return _shown(Figure)(**settings)


@functools.cache
def _shown(figure_class: type) -> Any:
    return type("Figure", (_Shown, figure_class), {})


class _Shown:
    """What a Figure of matplotlib lacks when pyplot did not make it. pyplot learns of it at `show`: a notebook shows
    every figure of pyplot once more at the end of the cell."""

    def __reduce__(self) -> Any:  # the class has no name of its own to be found by
        return figure, (), self.__getstate__()

    def _repr_png_(self: Any) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=100)
        return content.getvalue()

    def show(self: Any, warn: bool = True) -> None:
        """Open a window and wait until it is closed; in a notebook, show the picture there. Where neither is possible,
        one line, a warning, says so, unless `warn` is False."""
        from matplotlib import pyplot

        reason = f"matplotlib's backend is {pyplot.get_backend()}"
        if pyplot.get_backend().lower() not in WITHOUT_WINDOW:
            pyplot.close(self)  # of an earlier call
            try:
                pyplot.figure(FigureClass=lambda *_, **__: self)  # type: ignore[arg-type]
            except ImportError as error:  # a backend that was asked for, without a screen
                reason = str(error)
            else:
                pyplot.show()
                return
        ipython = sys.modules.get("IPython")
        if ipython and hasattr(ipython.get_ipython(), "kernel"):
            ipython.display.display(self)
        elif warn:
            message = f"there is no window to show the picture in ({reason}): write it, figure.savefig('picture.png')."
            warnings.warn(message, stacklevel=2)
