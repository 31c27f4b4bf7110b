"""Runs a Python program from standard input and reports the charts that it shows.

This file runs on the *sandbox's* Python (3.8 or later), alone: its text goes with ``-c``, so it imports
nothing of this package. ``plt.show()`` writes one line per figure: a marker and the chart as JSON with a PNG.
The daemon takes these lines out of the output again.
"""

from __future__ import annotations

import sys
from typing import Any

MARKER = "dtn_artifact_k39fd2:"


def finite(values: Any) -> list[float]:
    """Give plain numbers; what JSON has no number for becomes 0."""
    import math

    numbers = [float(value) for value in values]
    return [number if math.isfinite(number) else 0.0 for number in numbers]


def points_of(pairs: Any) -> list[list[float]]:
    """Give the points of a curve, without those that have no place (gaps)."""
    import math

    points = [[float(x), float(y)] for x, y in pairs]
    return [point for point in points if all(map(math.isfinite, point))]


def label_of(artist: Any) -> str:
    """Give the label that the user gave, not the one that matplotlib made up."""
    label = str(artist.get_label())
    return "" if label.startswith("_") else label


def line_elements(axes: Any) -> list[dict[str, Any]]:
    """Describe the curves of a line chart."""
    return [
        {
            "label": label_of(line),
            "points": points_of(line.get_xydata()),
        }
        for line in axes.lines
    ]


def scatter_elements(axes: Any) -> list[dict[str, Any]]:
    """Describe the clouds of a scatter chart."""
    from matplotlib.collections import PathCollection

    return [
        {"label": label_of(cloud), "points": points_of(cloud.get_offsets())}
        for cloud in axes.collections
        if isinstance(cloud, PathCollection)
    ]


def enumerate_ticks(axis: Any) -> list[tuple[float, str]]:
    """List the ticks of an axis: (place, text)."""
    texts = [str(label.get_text()) for label in axis.get_ticklabels()]
    return list(zip(map(float, axis.get_ticklocs()), texts))  # noqa: B905 (strict needs Python 3.10)


def tick_text(axis: Any, position: float) -> str:
    """Give the text of the tick at ``position``, or the number itself where no tick is."""
    for place, label in enumerate_ticks(axis):
        if abs(place - position) < 1e-9 and label:
            return label
    return f"{position:g}"


def bar_elements(axes: Any) -> list[dict[str, Any]]:
    """Describe the bars of a bar chart, group by group."""
    found = []
    for group in bar_groups(axes):
        sideways = getattr(group, "orientation", "vertical") == "horizontal"
        for bar in group.patches:
            if sideways:
                label, value = tick_text(axes.yaxis, bar.get_y() + bar.get_height() / 2), bar.get_width()
            else:
                label, value = tick_text(axes.xaxis, bar.get_x() + bar.get_width() / 2), bar.get_height()
            found.append({"label": label, "value": f"{float(value):g}", "group": label_of(group)})
    return found


def bar_groups(axes: Any) -> list[Any]:
    """List the groups of bars."""
    from matplotlib.container import BarContainer

    return [group for group in axes.containers if isinstance(group, BarContainer)]


def wedges(axes: Any) -> list[Any]:
    """List the wedges of a pie."""
    from matplotlib.patches import Wedge

    return [patch for patch in axes.patches if isinstance(patch, Wedge)]


def pie_elements(axes: Any) -> list[dict[str, Any]]:
    """Describe the wedges of a pie; angles in degrees."""
    return [
        {"label": label_of(wedge), "angle": float(wedge.theta2 - wedge.theta1), "radius": float(wedge.r)}
        for wedge in wedges(axes)
    ]


def box_elements(axes: Any) -> list[dict[str, Any]]:
    """Describe the boxes of a box plot, from the statistics that it was drawn from."""
    return [
        {
            "label": str(box.get("label") or tick_text(axes.yaxis if sideways else axes.xaxis, place)),
            "min": float(box["whislo"]),
            "first_quartile": float(box["q1"]),
            "median": float(box["med"]),
            "third_quartile": float(box["q3"]),
            "max": float(box["whishi"]),
            "outliers": finite(box.get("fliers", ())),
        }
        for box, place, sideways in axes._shown_boxes
    ]


def kind_of(axes: Any) -> str:
    """Decide what a pair of axes shows."""
    if getattr(axes, "_shown_boxes", None):
        return "box_and_whisker"
    if wedges(axes):
        return "pie"
    if bar_groups(axes):
        return "bar"
    if scatter_elements(axes):
        return "scatter"
    return "line" if axes.lines else "unknown"


ELEMENTS = {
    "line": line_elements,
    "scatter": scatter_elements,
    "bar": bar_elements,
    "pie": pie_elements,
    "box_and_whisker": box_elements,
}


def describe_axes(axes: Any) -> dict[str, Any]:
    """Describe one chart."""
    kind = kind_of(axes)
    chart = {"type": kind, "title": axes.get_title(), "elements": []}
    if kind in ELEMENTS:
        chart["elements"] = ELEMENTS[kind](axes)
    if kind != "pie":
        for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
            chart[name + "_label"] = axis.get_label_text()
            chart[name + "_ticks"] = finite(axis.get_ticklocs())
            chart[name + "_tick_labels"] = [label.get_text() for label in axis.get_ticklabels()]
            chart[name + "_scale"] = axis.get_scale()
    return chart


def describe(figure: Any) -> dict[str, Any]:
    """Describe a figure: its chart, or several as one composite chart."""
    figure.canvas.draw()  # only then ticks have their labels
    charts = [describe_axes(axes) for axes in figure.axes if axes.get_label() != "<colorbar>"]
    if len(charts) == 1:
        return charts[0]
    heading = figure._suptitle.get_text() if getattr(figure, "_suptitle", None) else ""
    return {"type": "composite_chart" if charts else "unknown", "title": heading, "elements": charts}


def report(figure: Any) -> None:
    """Write the line that describes a figure."""
    import base64
    import io
    import json

    try:
        chart = describe(figure)
    except Exception:  # a figure of a kind that nobody foresaw must not break the user's program
        chart = {"type": "unknown", "title": "", "elements": []}
    image = io.BytesIO()
    figure.savefig(image, format="png")
    chart["png"] = base64.b64encode(image.getvalue()).decode()
    print(MARKER + json.dumps({"type": "chart", "value": chart}), flush=True)


def hook_matplotlib() -> None:
    """Make ``plt.show()`` report and close the open figures; without matplotlib the program will say so."""
    import os

    os.environ.setdefault("MPLBACKEND", "agg")
    try:
        from matplotlib import pyplot
        from matplotlib.axes import Axes
    except ImportError:
        return
    draw_boxes = Axes.bxp

    def bxp(self: Any, bxpstats: Any, *args: Any, **options: Any) -> Any:
        bxpstats = list(bxpstats)
        places = options.get("positions")
        places = range(1, len(bxpstats) + 1) if places is None else places
        sideways = options.get("vert") is False or options.get("orientation") == "horizontal"
        shown = [(box, place, sideways) for box, place in zip(bxpstats, places)]  # noqa: B905 (Python 3.8)
        self._shown_boxes = getattr(self, "_shown_boxes", []) + shown
        return draw_boxes(self, bxpstats, *args, **options)

    def show(*args: Any, **options: Any) -> None:
        for number in pyplot.get_fignums():
            figure = pyplot.figure(number)
            report(figure)
            pyplot.close(figure)

    Axes.bxp = bxp  # type: ignore[method-assign]
    pyplot.show = show


def main() -> int:
    """Run the program on standard input as ``python3 -`` would; give the exit code."""
    import types

    source = sys.stdin.read()
    hook_matplotlib()
    sys.argv[0] = "-"
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    try:
        exec(compile(source, "<stdin>", "exec"), module.__dict__)  # noqa: S102 (that is what it is for)
    except SystemExit:
        raise
    except BaseException as exc:
        trace = exc.__traceback__.tb_next if exc.__traceback__ else None  # without this frame
        sys.excepthook(type(exc), exc.with_traceback(trace), trace)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
