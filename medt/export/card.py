"""The model card of an exported network: what it is, learned from, scores, and is not for.

Mitchell et al. 2019, "Model cards for model reporting", https://arxiv.org/abs/1810.03993
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from medt.checkpoint import Checkpoint
from medt.data.intensity import DEVIATIONS, Intensity
from medt.data.preprocessing import Preprocessing
from medt.evaluation.recorded import Recorded, read_recorded
from medt.evaluation.tables import METRICS_FILE
from medt.inference.instances import parting_rule
from medt.io.files import natural_key
from medt.io.text import for_markdown, for_markdown_code
from medt.metrics.family import between

SAID_OF_OBJECTS = {
    "borders": "none: its sigmoid is the probability of an object's border",
    "distance": "none: its sigmoid is the distance to the object's edge, relative to its greatest",
}
LIMITS = """\
- It has learned from the images named above. Other scanners, stains, organs, magnifications or \
patients may give it images unlike these, and then its masks are wrong without a sign of it. Score \
it on labelled images of your own before you rely on it.
- It knows its classes only: whatever else an image shows is given one of them.
- Its probabilities are as right as the calibration in report.html says, no more.
- It is no medical device and has been through no clinical validation."""


def model_card(
    checkpoint: Checkpoint, file: Path, difference: float, scores: Sequence[str], version: str
) -> str:
    """The card, as Markdown.

    Args:
        checkpoint: of the network.
        file: that was exported.
        difference: the largest of its logits to the checkpoint's.
        scores: what `recorded_scores` found.
        version: of medt.
    """
    steps = Preprocessing.from_dict(checkpoint.preprocessing)
    names = [for_markdown(c["name"]) for c in checkpoint.classes]
    parameters = sum(value.numel() for value in checkpoint.build_model().parameters())
    config = checkpoint.config.get("model")
    title = config.get("name", "network") if isinstance(config, dict) else "network"
    parts = [
        f"# {for_markdown(str(title))}: {', '.join(names[1:])}",
        f"{for_markdown_code(file.name)} holds {for_markdown_code(checkpoint.model['_target_'])} "
        f"with {parameters:,} parameters, exported by medt {version} from "
        f"{for_markdown_code(Path(checkpoint.file).name)}. Its logits "
        f"differ from the checkpoint's by at most {difference:.3g} on random images.",
        "## Input and output",
        "\n".join(_interface(steps, names, checkpoint)),
        "## Training data",
        _training(checkpoint),
        "## Scores",
        "\n".join(scores) or "None is recorded: evaluate the checkpoint first.",
        "## Limits",
        LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def _interface(steps: Preprocessing, names: Sequence[str], checkpoint: Checkpoint) -> Iterator[str]:
    height, width = steps.image_size
    objects = checkpoint.objects
    yield f"- Input: float32 (N, {steps.channels}, {height}, {width}), any N, made of an image so:"
    yield f"  1. {_scaling(steps.intensity)}"
    if steps.sampling == "resize":
        yield f"  2. resize to {height} x {width}: area average where it shrinks, else linear"
    else:
        yield (
            f"  2. cut windows of {height} x {width}, which overlap by half; average their logits, "
            "weighted by a Gaussian"
        )
    order = "RGB" if steps.order == "rgb" else "BGR"
    what = f" in {order} order" if steps.channels == 3 else ""
    mean, std = ([round(x, 6) for x in values] for values in (steps.mean, steps.std))
    yield f"  3. (value - mean) / std{what}, mean {mean}, std {std}"
    channels = len(names) + (objects is not None)
    yield f"- Output: float32 logits (N, {channels}, {height}, {width}), one channel a class:"
    yield from (f"  {i}. {name}" for i, name in enumerate(names))
    if objects is not None:
        yield f"  {len(names)}. {SAID_OF_OBJECTS[objects]}"
    which = "the channels of the classes" if objects is not None else "the channels"
    yield f"- Mask: softmax over {which}, resized to the image (bilinear), then the largest."
    if objects is not None:
        depth = "1 - sigmoid" if objects == "borders" else "sigmoid"
        rule = parting_rule(checkpoint.object_area)
        yield (
            f"- Objects: within the mask, whose holes of at most {rule.largest_hole} pixels are "
            f"filled, grown by a watershed from the maxima of the {depth} of the last channel, "
            f"smoothed by a Gaussian of {rule.smoothing:g} pixel, that rise by {rule.depth} above "
            f"what parts them; those of fewer than {rule.smallest} pixels are left out."
        )


def _scaling(rule: Intensity) -> str:
    """How values become the scale 0..1."""
    bits = ", rounded to 8 bit" if rule.eight_bit else ""
    if rule.zscore:
        return (
            f"(value - mean of its channel) / ({2 * DEVIATIONS:g} x its deviation) + 0.5, "
            "clipped to 0..1"
        )
    if rule.window is not None:
        low, high = rule.window
        clipped = ", clipped to 0..1" if rule.clip else ""
        return f"its values from {low:.7g} to {high:.7g} become 0 to 1{clipped}"
    if rule.percentile is not None:
        return (
            f"stretch it so that its percentiles {rule.percentile:g} and "
            f"{100 - rule.percentile:g} (over all channels) become 0 and 1{bits}"
        )
    return f"divide by the largest number of its type; floating point is 0..1{bits}"


def _training(checkpoint: Checkpoint) -> str:
    if not checkpoint.dataset:
        return "Imported weights: what they were trained on is not recorded."
    seed, dataset = (
        for_markdown(str(value))
        for value in (checkpoint.config.get("seed"), checkpoint.dataset["name"])
    )
    return (
        f"{len(checkpoint.training_cases)} cases of dataset {dataset} "
        f"(split train), {checkpoint.epoch} epochs, seed {seed}. The weights are those of the "
        f"{'best validation' if checkpoint.training is None else 'last epoch'}; the whole config "
        "stands in config.yaml and report.html."
    )


def recorded_scores(checkpoint: Checkpoint, evaluations: Path) -> list[str]:
    """The validation that chose the weights, and what was evaluated since, a line each.

    Results of other weights of the run are left out.

    Args:
        checkpoint: of the network.
        evaluations: the folder where `evaluate.py` wrote its results, if it did.

    Raises:
        UserError: a result there is damaged.
    """
    lines = []
    chosen = checkpoint.scores.get("val_dice")
    if chosen is not None:
        on = "validation cases"
        if checkpoint.training is None:
            on += " that the weights were chosen on, so it flatters"
        lines.append(f"- Foreground Dice {chosen:.4f} on the {on}.")
    files = sorted(evaluations.glob(f"*/{METRICS_FILE}"), key=lambda f: natural_key(str(f)))
    for file in files:
        recorded = read_recorded(file)
        ours = recorded.is_of(checkpoint.digest)
        if ours is not False:
            name = file.parent.name + (" (external)" if recorded.external else "")
            unsaid = "" if ours else " (of which weights is not recorded)"
            lines += _evaluation(name + unsaid, recorded)
    return lines


def _evaluation(name: str, recorded: Recorded) -> Iterator[str]:
    texts = []
    for key, title in (("dice", "Dice"), ("iou", "IoU")):
        if key not in recorded.scores:
            return
        text = f"{title} {recorded.scores[key]:.4f}"
        if interval := recorded.intervals.get(key):
            text += f" ({between(interval)})"
        texts.append(text)
    yield (
        f"- {for_markdown(name)}, {recorded.cases} cases, "
        f"protocol {for_markdown(recorded.protocol)}: foreground {', '.join(texts)}"
        f"{_empty_cases(recorded)}."
    )


def _empty_cases(recorded: Recorded) -> str:
    """What a score says of cases without foreground, where there are any; older ones do not say."""
    if not recorded.without:
        return ""
    return (
        f" (empty={for_markdown(recorded.empty)}; of {recorded.without} cases without "
        f"foreground {recorded.alarms} have false alarms)"
    )
