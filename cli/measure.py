"""``orthocond measure``: conditioning of runs, of a layer of any model, and the time of a step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

BOTH, MODEL, TIMING = "With --model or --timing", "With --model", "With --timing"
PANELS = {"RUNS": (), "--model": (BOTH, MODEL), "--timing": (BOTH, TIMING)}
"""What is measured: the groups of options that say how."""


def measure(
    context: typer.Context,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs, studies, or folders of studies.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=BOTH,
            help="A torchvision model such as resnet18, or timm:NAME for one of timm where that is "
            "installed; with --timing one of our own.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=BOTH, min=1, help="Pixels of the square images; the data's own if not."
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(rich_help_panel=BOTH, min=1, help="Images in a batch.")
    ] = 128,
    layer: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=MODEL, help="The layer to measure, such as conv1 or layer1.0.bn1."
        ),
    ] = None,
    side: Annotated[
        str,
        typer.Option(
            rich_help_panel=MODEL,
            help="output: the covariance of what the layer puts out, for the layer before a "
            "normalization or a spectral layer. input: of what comes into it, for that layer "
            "itself. In resnet18 the output of conv1 is the input of bn1.",
        ),
    ] = "output",
    per_sample: Annotated[
        bool,
        typer.Option(
            "--per-sample",
            rich_help_panel=MODEL,
            help="One covariance an image, as covariance pooling takes it, not one a batch.",
        ),
    ] = False,
    channel_dim: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=MODEL,
            help="The dimension of the channels in the layer's features: 1 in (B, C, H, W), -1 in "
            "(B, H, W, C). Needed where the layer's type does not tell it.",
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            rich_help_panel=MODEL,
            help="leaves, cifar10, cifar100, fashion-mnist, folder:PATH or imagenet:PATH; its "
            "training images, in a random order, cropped and mirrored as in training.",
        ),
    ] = "leaves",
    weights: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=MODEL,
            help="Weights of the model: safetensors, or a state dict of torch.save. A file that "
            "would run code is refused. Without it the weights are random.",
        ),
    ] = None,
    batches: Annotated[
        int, typer.Option(rich_help_panel=MODEL, min=1, help="Measure so many batches.")
    ] = 10,
    timing: Annotated[
        bool,
        typer.Option(
            "--timing",
            rich_help_panel=TIMING,
            help="Milliseconds of a training step of each method beside plain BN.",
        ),
    ] = False,
    task: Annotated[str, typer.Option(rich_help_panel=TIMING, help="dbn or gcp.")] = "dbn",
    method: Annotated[
        list[str] | None,
        typer.Option(rich_help_panel=TIMING, help="Repeat for more; all of Table 6 if not."),
    ] = None,
    repeats: Annotated[
        int, typer.Option(rich_help_panel=TIMING, help="Steps of each method, 20 at least.")
    ] = 20,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", rich_help_panel=TIMING, help="A setting of the network, as key=value."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(rich_help_panel=TIMING, help="A folder that gets one timing.json a method."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; inf and nan are strings in it.")
    ] = False,
) -> int:
    """Measure how well conditioned covariances are, or how long a training step takes.

    Of RUNS it verifies every file and prints their conditioning: of one run the median and the
    range of each field, in training and in evaluation; of several a line each. A run that is not
    complete is measured by its newest checkpoint. With --model and --layer it measures a layer of
    any model of torchvision or timm over images. With --timing it times methods in turns, as
    Table 6 does.

    Examples: orthocond measure runs/demo;
    orthocond measure --model resnet18 --layer conv1 --data folder:PATH --weights FILE;
    orthocond measure --timing --method svd --method nog+ow+olr --out runs/timing
    """
    from orthocond.errors import UserError

    asked = {"RUNS": bool(runs), "--model": model is not None and not timing, "--timing": timing}
    if sum(asked.values()) != 1:
        raise UserError(
            "name one of: RUNS, --model with --layer, or --timing; see orthocond measure --help"
        )
    _refuse_strays(context, next(kind for kind in asked if asked[kind]))
    if runs:
        from .measure_runs import measure_runs

        measure_runs(runs, as_json)
    elif timing:
        from .measure_time import measure_time

        flags: dict[str, Any] = {"task": task, "model": model, "batch_size": batch_size}
        flags = {name: value for name, value in flags.items() if value is not None}
        if size is not None:
            flags["data"] = {"size": size}
        measure_time(flags, method, set_ or [], repeats, out, as_json)
    else:
        from .measure_layer import measure_model

        if model is None or layer is None:
            raise UserError("--model needs --layer: which layer is measured?")
        measure_model(
            model, layer, side, per_sample, data, size, weights, batches, batch_size, as_json,
            channel_dim,
        )  # fmt: skip
    return 0


def _refuse_strays(context: typer.Context, kind: str) -> None:
    """An option that would do nothing is a mistake: say where it belongs."""
    from orthocond.errors import UserError

    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        panel = getattr(option, "rich_help_panel", None)
        given = source is not None and source.name == "COMMANDLINE"
        if given and panel in (BOTH, MODEL, TIMING) and panel not in PANELS[kind]:
            raise UserError(f"{option.opts[0]} goes {panel.lower()}, not with {kind}")
