"""``orthocond measure``: conditioning of runs and layers, time of a step, reproduction of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .measure_spellings import WHICH, MeasureGroup

app = typer.Typer(cls=MeasureGroup)

# Options that several sub-commands share.
Size = Annotated[
    int | None,
    typer.Option(min=1, help="Pixels of the square images. Default: the size of the data set."),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images in a batch.")]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print JSON, with inf and nan as strings."),
]

# Options of ``measure runs``.
Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN", help="Runs, studies, or folders of studies."),
]

Csv = Annotated[
    Path | None,
    typer.Option(
        "--csv", help="Write the final figures of the complete runs to this file, one row a run."
    ),
]

# Options of ``measure layer``.
Model = Annotated[
    str,
    typer.Option(
        help="A torchvision model such as resnet18, or timm:NAME for a timm model (needs timm)."
    ),
]
Layer = Annotated[
    str, typer.Option(help="Name of the layer to measure, such as conv1 or layer1.0.bn1.")
]
Side = Annotated[
    str,
    typer.Option(
        help="Which features to measure: output or input of the layer. A normalization or spectral "
        "layer is judged by its input, which is the output of the layer before it: in resnet18, "
        "the output of conv1 is the input of bn1.",
    ),
]
PerSample = Annotated[
    bool,
    typer.Option(
        "--per-sample",
        help="Compute one covariance per image, as covariance pooling does, instead of one per "
        "batch.",
    ),
]
ChannelDim = Annotated[
    int | None,
    typer.Option(
        help="Dimension of the channels in the layer's features: 1 for (B, C, H, W), -1 for "
        "(B, H, W, C). Required if the layer's type does not determine it.",
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="leaves, cifar10, cifar100, fashion-mnist, folder:PATH or imagenet:PATH. Its training "
        "images are used in a random order, cropped and mirrored as in training.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="File with the model's weights: safetensors, or a state dict saved by torch.save. A "
        "file that would run code is refused. Default: random weights.",
    ),
]
Batches = Annotated[int, typer.Option(min=1, help="Number of batches to measure.")]

# Options of ``measure time``.
OwnModel = Annotated[str | None, typer.Option(help="A model of orthocond, such as small.")]
Task = Annotated[
    str, typer.Option(help="dbn (decorrelated batch norm) or gcp (covariance pooling).")
]
Methods = Annotated[
    list[str] | None,
    typer.Option(help="Method to time; may be repeated. Default: all methods of Table 6."),
]
Repeats = Annotated[int, typer.Option(help="Timed steps of each method, at least 20.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the network, as key=value; may be repeated."),
]
Out = Annotated[
    Path | None, typer.Option(help="Folder in which to store one timing.json per method.")
]

# Options of ``measure against``.
Recorded = Annotated[Path, typer.Argument(metavar="RUN", help="A complete run.")]
DataAgain = Annotated[
    str | None,
    typer.Option(
        help="The data of the run, as for orthocond train. Required if they are in a folder: "
        "folder:PATH or imagenet:PATH.",
    ),
]
Epochs = Annotated[
    float | None,
    typer.Option(
        help="Epochs to train, from the first; a fraction such as 0.5 stops within an epoch. "
        "Default: all.",
    ),
]
OutAgain = Annotated[
    Path | None,
    typer.Option(
        help="Folder in which to keep the retrained run; an interrupted one is resumed there. "
        "Default: a temporary folder.",
    ),
]
Receipt = Annotated[
    Path | None, typer.Option(help="File to which to write the receipt too, as Markdown.")
]


@app.callback(invoke_without_command=True)
def measure(
    context: typer.Context,
    _timing: Annotated[bool, typer.Option("--timing", hidden=True)] = False,
    _against: Annotated[Path | None, typer.Option("--against", hidden=True)] = None,
) -> None:
    """Measure the conditioning of covariances, the time of a step, or how a run reproduces.

    Conditioning that runs recorded: orthocond measure runs runs/first

    Conditioning of a layer of any model: orthocond measure layer --model resnet18 --layer conv1

    Time of a training step: orthocond measure time --method svd --method nog+ow+olr

    Reproduction of a run: orthocond measure against runs/STUDY/RUN --data folder:PATH --epochs 1

    The spellings without a sub-command also work: orthocond measure runs/first, orthocond measure
    --model resnet18 --layer conv1, orthocond measure --timing, and orthocond measure --against RUN.
    A folder that is named like a sub-command needs its path: ./runs.
    """
    if context.invoked_subcommand is None:
        from orthocond.errors import UserError

        raise UserError(WHICH)


@app.command("runs")
def runs_(runs: Runs, csv: Csv = None, as_json: AsJson = False) -> int:
    """Verify runs and print the conditioning that they recorded.

    For one run, print the median and the range of each field, in training and in evaluation. For
    several runs, print one line each. A run that is not complete is measured by its newest
    checkpoint.

    With --csv, write the final figures of the runs (accuracies, generalisation gap, conditioning)
    to a file instead.

    Examples: orthocond measure runs runs/first; orthocond measure runs runs --csv runs/results.csv
    """
    from .measure_runs import measure_runs, write_results

    if csv is not None and as_json:
        from orthocond.errors import UserError

        raise UserError("--csv writes a file and --json prints: give one of them")
    if csv is not None:
        write_results(runs, csv)
    else:
        measure_runs(runs, as_json)
    return 0


@app.command("layer")
def layer_(
    model: Model,
    layer: Layer,
    size: Size = None,
    batch_size: BatchSize = 128,
    side: Side = "output",
    per_sample: PerSample = False,
    channel_dim: ChannelDim = None,
    data: Data = "leaves",
    weights: Weights = None,
    batches: Batches = 10,
    as_json: AsJson = False,
) -> int:
    """Measure the conditioning of a layer's features, for any torchvision or timm model.

    Example: orthocond measure layer --model resnet18 --layer conv1 --data folder:PATH
    --weights FILE
    """
    from .measure_layer import measure_model

    measure_model(
        model, layer, side, per_sample, data, size, weights, batches, batch_size, as_json,
        channel_dim,
    )  # fmt: skip
    return 0


@app.command("time")
def time_(
    model: OwnModel = None,
    size: Size = None,
    batch_size: BatchSize = 128,
    task: Task = "dbn",
    method: Methods = None,
    repeats: Repeats = 20,
    set_: Settings = None,
    out: Out = None,
    as_json: AsJson = False,
) -> int:
    """Time a training step of each method, compared with plain batch norm.

    The methods take turns in one process, as in Table 6.

    Example: orthocond measure time --method svd --method nog+ow+olr --out runs/timing
    """
    from .measure_time import measure_time

    flags: dict[str, Any] = {"task": task, "model": model, "batch_size": batch_size}
    flags = {name: value for name, value in flags.items() if value is not None}
    if size is not None:
        flags["data"] = {"size": size}
    measure_time(flags, method, set_ or [], repeats, out, as_json)
    return 0


@app.command("against")
def against_(
    run: Recorded,
    data: DataAgain = None,
    epochs: Epochs = None,
    out: OutAgain = None,
    receipt: Receipt = None,
    as_json: AsJson = False,
) -> int:
    """Train a recorded run again, or its first epochs, and say whether it reproduces.

    Print a receipt in Markdown: versions, commits, each figure with its difference and tolerance,
    and the verdict. On the same machine with the same number of threads all rows must be equal.
    Elsewhere the tolerance comes from the spread of the other seeds beside the run; three are
    needed. The exit code is 1 if the run does not reproduce, or if that can't be decided. The
    files of the run are verified and not changed.

    Example: orthocond measure against runs/cifar10-cpu/dbn-cifar10-jpeg-small-svd-s0
    --data folder:PATH --epochs 1
    """
    from .measure_against import measure_against

    return measure_against(run, data, epochs, out, receipt, as_json)
