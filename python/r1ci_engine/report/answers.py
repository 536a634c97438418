"""The report's section of answers: a few groups of the held-out items and of training steps."""

from collections.abc import Iterator

from r1ci_engine.report.cards import group_row
from r1ci_engine.report.curves import MOMENT_NAMES, MOMENT_WORDS, stage_colour
from r1ci_engine.report.folder import RunFolder
from r1ci_engine.report.selection import heldout_answers, pick_groups, pick_steps

TRAJECTORY_BYTES = 2_000_000
"""Groups beyond this much HTML are left out, and the page says so."""
WRITERS_KNOWN = (
    "The colour says who wrote a passage, which is also the training mask: only the model's own"
    " words are trained on."
)
WRITERS_UNKNOWN = (
    "The run has no checkpoint yet, hence no tokenizer to tell the model's words from the tool's."
)


def answers_section(run: RunFolder) -> str:
    """The section's HTML without its heading; "" if the run has no answers yet."""
    shown: list[str] = []
    size = groups = left_out = 0
    for heading, rows in _answer_parts(run):
        placed: list[str] = []
        for row in rows:
            if size + len(row) > TRAJECTORY_BYTES:
                left_out += 1
                continue
            size += len(row)
            placed.append(row)
        if placed:
            shown.append(f'<section class="part">{heading}{"".join(placed)}</section>')
            groups += len(placed)
    if not shown:
        return ""
    cut = f" {left_out} more were left out to keep the page small." if left_out else ""
    return (
        "<p>A few groups of answers, side by side, as they were sampled and run."
        f" {WRITERS_KNOWN if run.writers.known else WRITERS_UNKNOWN}{cut}"
        " All of them: <code>r1ci-engine view</code>.</p>"
        '<div class="tools"><input id="filter" type="search" placeholder="Filter by any words:'
        ' task, item, wrong, timeout …" aria-label="Filter answers">'
        f'<span id="told">{groups} groups</span><span class="legend">'
        '<span style="--c:var(--before)">prompt</span><span style="--c:var(--rl)">model</span>'
        f'<span style="--c:var(--tool)">tool</span></span></div>{"".join(shown)}'
    )


def _answer_parts(run: RunFolder) -> Iterator[tuple[str, list[str]]]:
    """(heading, group rows) for the held-out answers, then for each picked training step."""
    heldout, changes = heldout_answers(run)
    if heldout:
        told = ""
        if changes:
            told = (
                f" · from {MOMENT_WORDS[changes.first]} to {MOMENT_WORDS[changes.last]}:"
                f" {changes.gained} items gained, {changes.lost} lost,"
                f" {changes.stayed_right} stayed right, {changes.stayed_wrong} stayed wrong"
            )
        rows = [
            group_row(
                members[0][1].task,
                [(MOMENT_NAMES[moment], t) for moment, t in members],
                run.writers,
                open_=not index,
            )
            for index, members in enumerate(heldout)
        ]
        yield f'<h3 class="when" style="--c:var(--before)">Held-out questions{told}</h3>', rows
    steps = pick_steps(run.steps, run.stages)
    for step in steps:
        stage = next(
            (s["stage"] for s in run.stages if s["first_step"] <= step <= s["last_step"]), None
        )
        rows = []
        for group in pick_groups(run.step_trajectories(step)):
            right = sum(t.correct for t in group)
            chips = [f"{right} of {len(group)} right"]
            if measure := run.measures.get(group[0].item_id):
                chips.append(f"potential {measure.potential:.2f}, group {measure.group}")
            rows.append(
                group_row(
                    group[0].task,
                    [(f"sample {t.sample_index + 1}", t) for t in group],
                    run.writers,
                    chips=chips,
                    open_=step in (steps[0], steps[-1]) and not rows,
                )
            )
        colour = stage_colour(stage) if stage else "var(--rl)"
        where = f", stage {stage}" if stage else ""
        yield f'<h3 class="when" style="--c:{colour}">GRPO step {step}{where}</h3>', rows
