"""The page that explains a supervised study: what was run, how, and what it is compared with."""

from __future__ import annotations

import json

from relagent.looks import title
from relagent.runs.config import names_of
from relagent.study.supervised.grid import GRIDS
from relagent.study.supervised.peak import LIMIT, Peaks
from relagent.study.supervised.tables import (
    SETTINGS,
    main_table,
    run_table,
    settings_table,
    transfer_table,
)
from relagent.study.supervised.view import (
    TITLES,
    View,
    planned,
    variant_title,
    with_forms,
)
from relagent.study.words import commits, listed, machines, untold_sessions, versions
from relagent.table import NOTHING, markdown
from relagent.tasks.defaults import TASKS

WHAT = {
    "copy": """\
Ten symbols of eight, T − 1 blanks, a marker, ten blanks, at which the ten symbols are due
(Hochreiter & Schmidhuber 1997). The loss is the mean over all T + 20 steps, accuracy that of the
last ten; guessing gives 12.5%.""",
    "denoise": """\
Ten symbols of eight at random places among the first T + 9 steps, a marker, ten blanks, at which
the ten symbols are due (Jing et al. 2017). The loss is the mean over all T + 20 steps, accuracy
that of the last ten; guessing gives 12.5%.""",
    "mnist": """\
A digit is named after its 784 pixels were read in reading order, or in one fixed random order
(permuted), some at each step. Of the 60,000 training images the last 10,000 are for validation;
the test score is that of the weights with the best validation.""",
    "ptb": """\
The next character of the Penn Treebank is said at each step; gradients cross a window of steps,
attention sees the window only, the recurrent state is carried over. The test score is that of the
weights with the best validation.""",
}

HOW_SCORED = {
    "generated": """\
A run is *solved at* the update of the first evaluation (every {every} updates, {sequences} fresh
sequences, {symbols} symbols) without one mistake, where training ends. A run that is not solved
within its budget of updates shows its last evaluation. Each line is a seed, smallest first; a cell
that is empty, or holds nothing but the paper's number, was not run.""",
    "dataset": """\
A cell is the score on the test data with the weights of the epoch that did best on the validation
data (*epoch 5 of 6*: the fifth of six). Each line is a seed, smallest first; empty: not run.""",
}

DIVERGED = """\
A run *diverged at* the update whose loss or gradient was no finite number, in training or in the
evaluation behind it: training ended, and the score is of {score}."""

SCORE_OF_DIVERGED = {
    "generated": "the last evaluation before, with the best\n"
    "of all evaluations where that was higher",
    "dataset": "the best epoch before",
}

PAPER = {
    "copy": """\
*paper*: Table 5 of the appendix of Kerg et al. (2020, arXiv 2006.09471), which gives no number of
seeds, no number of updates and no criterion of the end.""",
    "denoise": """\
The paper shows training curves of this task (its figures 4 to 6 and 11), no table.""",
    "mnist": """\
The paper shows validation curves of permuted MNIST (its figure 8). Published test accuracies
of single pixels: expRNN 98.0% in reading order and 94.9% permuted with 170 units, 98.7% and 96.6%
with 512, LSTM 81.9% and 79.5% with 128 (Lezcano & Martínez-Rubio 2019).""",
    "ptb": """\
Published test scores of single layers of 1024 units with windows of 150: RNN 2.89, orth-RNN
1.62, expRNN 1.45, nnRNN 1.40 bpc (nnRNN repository).""",
}

DEVIATIONS = """\
Where a run was given no other settings:

- The macro-state of attentive memories is h + c as in the paper's equations; with modReLU, whose
  states have no bound, and on MNIST's single pixels it is (h + c) / 2 as in the authors' code: as a
  sum, RelRNN's diverged on denoise, and RelLSTM's gradient explodes over 784 steps; as a mean too
  RelRNN's loss has spikes, and may diverge.
- The paper gives learning rate, optimiser, nonlinearity and ν, ρ of orth-RNN, expRNN, LSTM, GORU
  and RelRNN (its tables 6 to 9). Chosen here: RelLSTM and MemLSTM take Adam and 0.001
  ([why](../../docs/learning_rates.md)), on PTB RelRNN's line, as MemRNN does
  everywhere; SAB takes the LSTM's; GORU, which table 7 (denoise) alone has, that line on all tasks;
  where a table names one learning rate for expRNN, that of its
  rotation is a tenth; where it names no optimiser for the LSTM, Adam.
- Hidden sizes and the clipping of gradients are those of the authors' code, but for MNIST by 7
  pixels, whose settings the paper does not tell (its figure 9): there all memories have 100 units,
  the same batches and step size.
"""


OUT_OF_MEMORY_T = 2000
FAR = 5
"""A fit says nothing beyond so many times the longest T that was measured."""


def page(view: View, peaks: Peaks | None) -> str:
    """The README.md of a report.

    Args:
        view: the results.
        peaks: measurements of peak memory, for the page of copy.
    """
    sections = [
        f"# {TITLES[view.study]}",
        _opening(view),
        _results(view),
        _transfer(view),
        _peaks(peaks) if peaks is not None else "",
        "## Every run\n\n" + markdown(*run_table(view)) + "\n" + _about_runs(),
        _settings(view),
        "## Deviations from the paper\n\n" + DEVIATIONS,
        _missing(view),
        _made_with(view),
    ]
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def _opening(view: View) -> str:
    name, budgets = _budgets(view)
    budget = f" --{name} {max(budgets)}" if max(budgets) != GRIDS[view.study].budget else ""
    return f"""\
{WHAT[view.study]}

Runs so far: {len(view.results)}. Made by

```sh
python -m relagent.study {view.study}{budget}   # trains what is not there yet
python -m relagent.study report --results results/{view.study}   # makes this page
```

Every run is one file in `runs/`, with its settings, curves, scores and the command that trains it
again.{_beside_the_grid(view, max(budgets))}"""


def _beside_the_grid(view: View, budget: int) -> str:
    """The commands of the runs that the study's command does not make."""
    commands = [" ".join(run.command) for run in view.ordered if not planned(run, budget)]
    if not commands:
        return ""
    lines = "\n".join(commands)
    return f" Beside that grid, or with less than its budget:\n\n```sh\n{lines}\n```"


def _results(view: View) -> str:
    kind = "generated" if view.generated else "dataset"
    if not view.generated:
        scored, curves = HOW_SCORED[kind], "Validation after each epoch"
    else:
        curves = "Training loss, thinned; dotted: the best loss without a memory; a dot: solved"
        configs = [run.config for run in view.results]
        sequences = [config["evaluation_batches"] * config["batch_size"] for config in configs]
        scored = HOW_SCORED[kind].format(
            every=listed(str(config["evaluate_every"]) for config in configs),
            sequences=listed(str(number) for number in sequences),
            symbols=listed(f"{10 * number:,}" for number in sequences),
        )
    if any(run.diverged is not None for run in view.results):
        scored += "\n\n" + DIVERGED.format(score=SCORE_OF_DIVERGED[kind])
        curves += "; a cross: diverged"
    seeds = listed(str(run.seed) for run in view.results)
    name, numbers = _budgets(view)
    budgets = " / ".join(f"{number:,}" for number in numbers)
    return f"""\
## Results

{markdown(*main_table(view))}
{scored}

Seeds: {seeds}. Budgets: {budgets} {name} (planned: {GRIDS[view.study].budget:,}).

{PAPER[view.study]}

![The table](./{view.study}.png)

![Training](curves.png)

{curves}."""


def _budgets(view: View) -> tuple[str, list[int]]:
    """The setting that says how long to train, and its values."""
    name = "epochs" if "epochs" in view.results[0].config else "updates"
    return name, sorted({int(run.config[name]) for run in view.results})


def _transfer(view: View) -> str:
    if not any(run.transfer for run in view.results):
        return ""
    return f"""\
## Transfer to other delays

The trained weights, unchanged, on fresh sequences of other delays; in brackets how many.

{markdown(*transfer_table(view))}
![Transfer](transfer.png)"""


def _peaks(peaks: Peaks) -> str:
    rows = [
        [title(point.memory), f"{point.T:,}", f"{point.definition:,.0f}", f"{point.kernel:,.0f}"]
        for point in peaks.points
    ]
    fits = [_fit(peaks, memory) for memory in peaks.memories()]
    machine = peaks.machine
    return f"""\
## Peak memory

What one pass forward and back adds to the process at its highest, in MB, with batches of
{peaks.batch_size} and {peaks.hidden_size} units, float32, each measured in a process of its own by
`python -m relagent.study peak`. *Definition*: the equations step by step, with all that automatic
differentiation keeps, as the authors' code computes. *Kernel*: the fused one, which is what trains
here.

{markdown(["memory", "T", "definition", "kernel"], rows)}
Least squares of the definition, and what they extrapolate to:

{"".join(fits)}
The paper reports MemRNN out of memory at T = 2,000, on graphics cards that it does not name.
Measured on: {machine.get("processor")}, {machine.get("cores")} cores."""


def _fit(peaks: Peaks, memory: str) -> str:
    """One line of the list of fits; nothing where there are too few points."""
    found = peaks.fit(memory)
    if found is None:
        return ""
    a, b, c = (f"{'−' if value < 0 else '+'} {abs(value):.3g}" for value in found)
    points = [point for point in peaks.points if point.memory == memory]
    error = max(abs(peaks.at(memory, point.T) - point.definition) for point in points)
    line = (
        f"- {title(memory)}: {a.removeprefix('+ ')} {b} T {c} T² MB (at most {error:,.0f} MB off); "
    )
    line += f"{peaks.at(memory, OUT_OF_MEMORY_T) / 1000:.1f} GB at T = {OUT_OF_MEMORY_T:,}"
    crossing = peaks.crossing(memory)
    if crossing is not None and crossing < FAR * max(point.T for point in points):
        line += f"; {LIMIT / 1000:.0f} GB are passed at T = {crossing:,.0f}"
    return line + ".\n"


def _about_runs() -> str:
    return """\
Minutes are those of one process, evaluations included, on a machine that did other things besides.
Peak memory is that of the whole process, Python and libraries included; on a GPU that of the
tensors there. Of a run that was resumed, it is that of its last part."""


def _settings(view: View) -> str:
    elsewhere = names_of(TASKS[view.study], "budget", "machine")
    skipped = {*SETTINGS, *elsewhere, "task", "memory", "seed", "log_every", "T"}
    common = [
        [f"`{name}`", _values(view, name)] for name in view.results[0].config if name not in skipped
    ]
    return f"""\
## Settings

{markdown(*settings_table(view))}
Whatever the memory:

{markdown(["setting", "value"], common)}"""


def _values(view: View, name: str) -> str:
    """The values of a setting; where there are several, with the forms of the task that had it."""
    found = with_forms(view.ordered, lambda run: json.dumps(run.config[name]))
    return " / ".join(map("".join, found.items()))


def _missing(view: View) -> str:
    gaps, short = view.missing(), view.cut_short()
    unplanned = view.beside_the_grid()
    if not gaps and not short and not unplanned:
        return (
            "## What is missing\n\nNothing of what the command above plans. A cell of the table "
            "that is empty is beside its grid."
        )
    parts = []
    unsolved = " and not solved before" if view.generated else ""
    for said, cells in (
        ("Planned by the grid, and not run:", gaps),
        (f"Of the grid's runs, trained for less than planned{unsolved}:", short),
        ("In the paper's Table 5, beside the grid, and not run:", unplanned),
    ):
        lines = [
            f"- {variant_title(name)}: {', '.join(map(title, memories))}."
            for name, memories in cells.items()
        ]
        if lines:
            parts.append(said + "\n\n" + "\n".join(lines))
    return "## What is missing\n\n" + "\n\n".join(parts)


def _made_with(view: View) -> str:
    hours = sum(run.seconds for run in view.results) / 3600
    sessions = max(int(run.provenance.get("sessions", 1)) for run in view.results)
    return f"""\
## Made with

- Machine, of a run's last part: {machines(view.results)}; one process a run, threads of each:
  {listed(str(run.config["threads"]) for run in view.results)}.
- Time of those processes: {hours:.2f} h of training; times that a run was begun or resumed: at most
  {sessions}.
- Versions: {versions(view.results, "training") or NOTHING}.
- Commits of training: {commits(view.results)}.{untold_sessions(view.results)}"""
