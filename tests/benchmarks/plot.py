"""The picture of what a chunk costs each client. It needs matplotlib, and nothing else here does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .scenarios import BLOCKS, PACED, SINGLE

_PANELS = {
    BLOCKS: ("64 KiB reads", "250 chunks at a time, full speed"),
    SINGLE: ("A read a chunk", "one chunk at a time, full speed"),
    PACED: ("Paced tokens", "{streams} streams, {rate:g} tokens/s each"),
}
_COLOURS = {"httpx": "#8a97a5", "this library": "#1667c7", "openai-python": "#d9822b"}
_OTHERS = "#7a5ea8"
_TEXT, _FAINT = "#1f2933", "#66727f"
_WIDTH, _DOTS = 8.0, 200
_SPACE = 0.45
"""Before the name of each library, in bars."""


def draw(results: Mapping[str, Any], file: Path) -> None:
    """Draw the CPU time of each client, for each way of delivery, as a PNG of 1,600 pixels' width.

    Args:
        results: as ``measured`` returns them.
        file: where to.
    """
    panels = _panels(results)
    clients = results["clients"]
    places, headings = _places(clients)
    lowest = max(places.values()) + 0.6
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 8.0, "text.color": _TEXT}):
        figure = Figure(figsize=(_WIDTH, 1.4 + 0.215 * lowest), dpi=_DOTS, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.03)
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (title, subtitle, found) in zip(axes, panels, strict=True):
            _panel(axis, found, places, {name: _COLOURS.get(one["whose"], _OTHERS) for name, one in clients.items()})
            axis.set_title(f"{subtitle}\n", fontsize=7.5, loc="left", color=_FAINT, linespacing=0.4)
            axis.annotate(
                title, (0, 1), xytext=(0, 17), xycoords="axes fraction", textcoords="offset points", weight="bold"
            ).set_in_layout(False)
            axis.set_ylim(lowest, -0.6)
        axes[0].set_yticks(list(places.values()), [clients[name]["label"] for name in places], color=_TEXT)
        for whose, place in headings.items():
            axes[0].annotate(
                whose,
                (0, place),
                xytext=(-4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="center",
                weight="bold",
                color=_COLOURS.get(whose, _OTHERS),
            )
        title = "CPU time for one chunk, in microseconds (shorter is better)"
        if results["about"]["short"]:
            title = "Short form: these numbers mean nothing"
        figure.suptitle(f"{title}\n", fontsize=10.5, weight="bold", x=0.015, ha="left", linespacing=1.1)
        figure.savefig(file)


def _panels(results: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """For each way of delivery its title and subtitle, and what was measured with the fewest streams."""
    found = []
    for way, (title, subtitle) in _PANELS.items():
        scenario = next((one for one in results.get("streams", ()) if one["delivery"] == way), None)
        if scenario is not None:
            rate = 1 / scenario["interval"] if scenario["interval"] else 0
            subtitle = subtitle.format(streams=scenario["streams"], rate=rate)
            found.append((title, subtitle, scenario["clients"]))
    if not found:
        raise SystemExit("nothing was measured that could be drawn: --plot needs the part `streams`")
    return found


def _places(clients: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, float], dict[str, float]]:
    """How far down each client stands, and the name of each library above its own."""
    places: dict[str, float] = {}
    headings: dict[str, float] = {}
    place = 0.0
    for name, client in clients.items():
        if client["whose"] not in headings:
            place += _SPACE if headings else 0.0
            headings[client["whose"]] = place
            place += 0.95
        places[name] = place
        place += 1.0
    return places, headings


def _panel(axis: Axes, found: Mapping[str, Any], places: Mapping[str, float], colours: Mapping[str, str]) -> None:
    most = max(one["cpu"] for one in found.values())
    for name, one in found.items():
        axis.barh(places[name], one["cpu"], height=0.74, color=colours[name])
        text = f"{one['cpu']:.1f}" if one["cpu"] < 9.95 else f"{one['cpu']:.0f}"
        # On white, since the line of the floor may pass there.
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        axis.text(one["cpu"] + most * 0.025, places[name], text, va="center", fontsize=7.5, bbox=box, zorder=4)
    if floor := found.get("floor"):
        axis.axvline(floor["cpu"], color=_TEXT, linewidth=0.7, linestyle=(0, (3, 2)), zorder=3)
        axis.text(floor["cpu"] + most * 0.025, 0, "floor", va="center", fontsize=7.0, color=_FAINT)
    axis.set_xlim(0, most * 1.18)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.spines["left"].set_color(_FAINT)
    axis.tick_params(axis="both", length=0)
    axis.set_xticks([])
