"""What run.py measured, as Markdown tables, as a page, and as pictures."""

from peers import PEERS

HEAD = """# Speed

layerwise beside PyTorch, JAX and scikit-learn: the same work in each, in its usual idiom, in one run on one machine.
This page, its tables and its pictures are made by

    pip install -e . -r benchmarks/requirements.txt
    python benchmarks/run.py --json speed.json --page docs/speed.md --chart docs/images/speed.png

The times are this machine's. The ratios, ours over theirs, carry further: below 1 layerwise takes less.

## How it is measured

- Every number comes from a process of its own, which runs one piece of work in one framework. The frameworks take
  turns, {rounds} times (at the import at least 7 times). A ratio is of the two times of one turn.
- All have the same number of threads, {threads}: `OMP_NUM_THREADS`, `OPENBLAS_NUM_THREADS`, `MKL_NUM_THREADS`,
  `torch.set_num_threads`, and for JAX `NPROC` and `XLA_FLAGS`. Data are `float32` and in memory, in the form that the
  framework has for them.
- layerwise is `net.train(...)`, checks included. PyTorch is the usual eager loop, with Adam as it comes and with
  `fused=True`. JAX is a jitted step that takes its rows itself, called in a Python loop; compiling is not counted.
  scikit-learn is `MLPClassifier`; it does not tell when an epoch ends, so the time is that of `fit` over the epochs.
- Of epochs the median of those after the first counts. What takes less than a second is repeated in the process: the
  median of the repeats counts, and the first does not.
- "Of the limit" is the least time over the time taken. The least time is that of the matrix products at the rate of a
  large one in NumPy; for Adam, that of reading four arrays and writing three at the rate of a copy, although what stays
  in a cache may be faster. The rates are the best of this run, {gflops} and {gbytes}: where the two lie
  far apart, something else was using the machine.
- Memory is the most that the process held at once, interpreter and data included.
- A floor is the ratio that layerwise must not exceed. {verdict}
"""


def table(head, rows):
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def number(value):
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def percent(value):
    return f"{100 * value:.2g} %" if value < 0.0995 else f"{100 * value:.0f} %"


def side_by_side(each):
    """The table of one workload."""
    head = [
        "",
        f"median, {each['unit']}",
        "ours / theirs",
        "smallest to largest",
        "every turn",
        "floor",
        "of the limit",
    ]
    head += ["accuracy", "memory, MB"]
    rows = []
    for peer, result in each["results"].items():
        ratio = each["ratios"].get(peer)
        cells = [PEERS[peer].title, number(result["median"] * each["scale"])]
        if ratio is None:
            cells += [""] * 4
        else:
            cells += [f"**{ratio['median']:.2f}**", f"{ratio['min']:.2f} to {ratio['max']:.2f}"]
            cells.append(" ".join(f"{value:.2f}" for value in ratio["rounds"]))
            met = "met" if ratio["met"] else "**not met**"
            cells.append("" if ratio["floor"] is None else f"{ratio['floor']:g}: {met}")
        cells.append("" if result["share"] is None else percent(result["share"]))
        cells.append(f"{result['accuracy']:.4f}" if "accuracy" in result else "")
        cells.append(f"{result['peak_bytes'] / 1e6:.0f}" if "peak_bytes" in result and each["unit"] != "MB" else "")
        rows.append(cells)
    filled = [place for place in range(len(head)) if place < 2 or any(row[place] for row in rows)]
    return table([head[place] for place in filled], [[row[place] for place in filled] for row in rows])


def verdict(result):
    floors = {
        f"{name} against {PEERS[peer].title}": ratio["met"]
        for name, each in result["workloads"].items()
        for peer, ratio in each["ratios"].items()
        if ratio["floor"] is not None
    }
    missed = [name for name, met in floors.items() if not met]
    text = f"Of the {len(floors)} floors of this run {len(floors) - len(missed)} are met"
    return f"{text}; not met: {', '.join(missed)}." if missed else f"{text}."


def parts(where):
    """How one step of each net divides."""
    names = [name for name in next(iter(where.values())) if name not in ("step", "wrapping")]
    rows = []
    for net, found in where.items():
        cells = [f"{found[name] * 1e6:.1f} ({100 * found[name] / found['step']:.0f} %)" for name in names]
        rows.append([net, f"{found['step'] * 1e6:.1f}", *cells, f"{found['wrapping'] * 1e6:.1f}"])
    return table(["net", "step, µs", *names, "cost of looking"], rows)


def kinds(axis, result):
    """Shares of one axis of growth, and in words which part is the largest from where on."""
    rate, bandwidth = (result["machine"][name]["max"] for name in ("flops", "bandwidth"))
    names = list(result["growth"][axis]["points"][0]["parts"])
    rows, largest = [], []
    for point in result["growth"][axis]["points"]:
        each = point["parts"]
        total = sum(each.values())
        best = point["flops"] / rate + point["bytes"] / bandwidth
        cells = [f"{100 * each[name] / total:.0f} %" for name in names]
        rows.append([str(point["value"]), number(point["seconds"] * 1e6), *cells, percent(best / point["seconds"])])
        first = max(each, key=each.get)
        if not largest or largest[-1][1] != first:
            largest.append((point["value"], first))
    words = "; ".join(f"from {value} on {name}" for value, name in largest)
    return table([axis, "step, µs", *names, "of the limit"], rows) + f"\n\nThe largest part: {words}."


def tables(result):
    """All tables, as Markdown."""
    lines = []
    for name, each in result["workloads"].items():
        lines += [f"## {name}", f"{each['title']}.", side_by_side(each)]
    if "where" in result:
        lines += ["## Where the time of a step goes", WHERE, parts(result["where"])]
    if "growth" in result:
        lines += ["## How a step grows", GROWTH]
        lines += [text for axis in result["growth"] for text in (f"### {axis}", kinds(axis, result))]
    return "\n\n".join(lines)


WHERE = """layerwise alone, in µs. The parts are timed by wrapping methods of the net, the loss and the rule in every
other epoch of a training, less what the wrapping adds to each. The step is that of the epochs that are not watched,
"rest" is what the parts leave of it, and "cost of looking" by how much the watched step takes longer."""

GROWTH = """layerwise alone, with Adam, against width (784-W-W-10, batches of 128), depth (hidden layers of 128 units,
batches of 128) and batch (784-128-10). "Calls" is the time of the same net with one unit in a layer and one row in a
batch: what Python takes, and next to nothing else. "Products" is that of the bare matrix products, "update" and
"gather" are timed in the training, less their part of the calls, and "elementwise" is what is left. The limit is the
least time of the products and of the least traffic together, as if everything went through memory once."""


def page(result, charts):
    about = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    rates = {
        name: f"{about[kind]['max'] / 1e9:.3g} {unit} (the worst {about[kind]['min'] / 1e9:.3g})"
        for name, kind, unit in (("gflops", "flops", "GFLOP/s"), ("gbytes", "bandwidth", "GB/s"))
    }
    lines = [HEAD.format(rounds=result["rounds"], threads=about["threads"], verdict=verdict(result), **rates).rstrip()]
    lines.append(
        f"This run: {about['date']}, {about['processor']}, {about['cores']} cores; Python {about['python']}, {versions}"
        f"{'; ' + about['blas'] if about['blas'] else ''}. Data: {result['data']}."
    )
    lines += [f"![{shows}]({chart})" for shows, chart in charts.items()]
    return "\n\n".join([*lines, tables(result)]) + "\n"


# Pictures ----------------------------------------------------------------------------------------------------

COLOURS = {"torch": "#0072b2", "torch_fused": "#56b4e9", "jax": "#009e73", "sklearn": "#d55e00"}
KINDS = {"calls": "#000000", "products": "#0072b2", "elementwise": "#009e73", "update": "#d55e00", "gather": "#cc79a7"}


def draw(result, path):
    """Write the pictures that there is something for; what each shows -> its path."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("--chart needs a package: pip install matplotlib") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    created = {}
    named = {}
    for name, each in result["workloads"].items():
        shown = {peer: ratio for peer, ratio in each["ratios"].items() if peer in COLOURS}
        if shown:
            named[name] = shown
    if named:
        ratios(Figure, named).savefig(path, dpi=160)
        created["Ratios, ours over theirs, for each piece of work"] = path
    if "growth" in result:
        beside = path.with_stem(f"{path.stem}_growth")
        growth(Figure, result).savefig(beside, dpi=160)
        created["The time of a step against width, depth and batch"] = beside
    return created


def ratios(figure_class, named):
    """A row for each workload, a dot for each framework with its smallest and largest, a bar for the floor."""
    figure = figure_class(figsize=(7, 1.6 + 0.62 * len(named)), layout="constrained")
    axes = figure.add_subplot()
    told = set()
    for row, shown in enumerate(named.values()):
        for place, (peer, ratio) in enumerate(shown.items()):
            y = row + 0.17 * (place - (len(shown) - 1) / 2)
            middle = ratio["median"]
            label = None if peer in told else PEERS[peer].title
            told.add(peer)
            ends = [[middle - ratio["min"]], [ratio["max"] - middle]]
            axes.errorbar(middle, y, xerr=ends, fmt="o", markersize=4.5, color=COLOURS[peer], label=label)
            if ratio["floor"] is not None:
                axes.plot(ratio["floor"], y, "|", markersize=9, markeredgewidth=2, color=COLOURS[peer])
    axes.plot([], [], "|", markersize=9, markeredgewidth=2, color="#555555", label="floor: not to be exceeded")
    axes.axvline(1, color="#888888", linewidth=1)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [digit * 10.0**power for power in range(-4, 4) for digit in (1, 2, 5)]
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")
    for row in range(1, len(named), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#f6f6f6", zorder=0)
    axes.set_yticks(range(len(named)), [name.replace("adam1m", "adam, 1 M").replace("adam10m", "adam, 10 M")
                                        for name in named])  # fmt: skip
    axes.set_ylim(len(named) - 0.5, -0.5)
    axes.set_xlabel("ours / theirs: left of 1 layerwise takes less")
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    return figure


def growth(figure_class, result):
    """Three panels, log-log: the time of a step, its parts, and the machine's limit."""
    rate, bandwidth = (result["machine"][name]["max"] for name in ("flops", "bandwidth"))
    figure = figure_class(figsize=(11, 4), layout="constrained")
    all_axes = figure.subplots(1, len(result["growth"]), sharey=True, squeeze=False)[0]
    for axes, (name, found) in zip(all_axes, result["growth"].items(), strict=True):
        points = found["points"]
        x = [point["value"] for point in points]
        axes.plot(x, [point["seconds"] * 1e6 for point in points], "o-", color="#000000", linewidth=2, label="a step")
        limit = [(point["flops"] / rate + point["bytes"] / bandwidth) * 1e6 for point in points]
        axes.plot(x, limit, "--", color="#888888", label="the machine's limit")
        for kind, colour in KINDS.items():
            y = [point["parts"][kind] * 1e6 or None for point in points]
            axes.plot(x, y, ":" if kind == "calls" else "-", color=colour, linewidth=1, label=kind)
        axes.set(xscale="log", yscale="log", xlabel=name)
        axes.set_xticks(x, [str(value) for value in x], minor=False)
        axes.minorticks_off()
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_ylabel("µs")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=7, frameon=False)
    return figure
