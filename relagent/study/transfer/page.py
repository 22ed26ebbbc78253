"""The page that explains a study: what was run, how, and what it is compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from relagent.looks import title
from relagent.rl.report import RESAMPLES
from relagent.study.transfer.protocol import NAMES, load_protocol
from relagent.study.transfer.results import RunResult
from relagent.study.transfer.tables import (
    improvement_rows,
    iqm_rows,
    ladder_rows,
    table_rows,
    untold_rows,
)
from relagent.study.transfer.task import TransferTask
from relagent.study.transfer.view import View, planned_steps
from relagent.study.words import backends, commits, listed, machines, untold_sessions, versions
from relagent.table import markdown

PAPER = """\
The paper's numbers are those of Table 4 of Kerg et al. (2020, arXiv 2006.09471): single numbers,
without the number of seeds and without intervals. Two faults of the authors' public code stand
behind them, so that they measured something else than full and sparse attention:

1. While acting and while evaluating, the attention memory was emptied at *every* step (`if done:`
   tested a tuple of all environments' flags, which is always true): both models acted as plain
   LSTMs.
2. In the update the memory started empty at the window's start, and was not emptied where an
   episode ended.

Neither fault is repeated here. A difference from the paper's number is therefore a difference of
methods as well as of scores.
"""

DEVIATIONS = """\
Beside those faults, these things differ from the paper in both protocols:

- Each cell of the view is read with its place, as a sum of embeddings, and each feature takes the
  cell that has most of it; the authors' network had convolutions of 2 x 2 with a max-pooling.
- Minibatches take whole worlds, and gradients reach back through the whole rollout of 128 steps;
  states remembered from before it are constants.
- The value of an episode's last observation is added where the time limit cut it off.
- Training worlds may be EnvPool's (see below), which are tested to equal minigrid's; all scores are
  made on minigrid itself, with seeds that no training run uses. The smallest worlds have few
  layouts (of 4,000 seeds, 48 in DoorKey-5x5, 16 in MemoryS7, 40 in MemoryS13): the episodes of a
  score play each several times, and in a world that was trained in none is new.
- The macro-state, `combine` above, is h + c (sum) in the paper's equations and (h + c) / 2 (mean)
  in its authors' code.

*ours* also shows the agent its direction, its previous action and, where it varies, the mission's
text, and has other settings of PPO (above).
"""

UNTOLD = """\
GoToObject, GoToDoor and Fetch draw their goal at random and name it in the mission alone, which no
agent of this protocol is shown, nor, as far as is known, any of the paper's. Who has to guess
solves at most this share of the episodes, by the rules of the worlds; the reward is lower, by the
steps that it takes. In GoToObject nothing need be guessed where one cell is next to both objects:
in gym-minigrid, which was the paper's, diagonal neighbours counted too, in minigrid they do not.
"""


def page(view: View) -> str:
    """The README.md of a report."""
    sections = [
        "# Table 4: from small worlds to larger ones",
        _opening(view),
        *(_protocol(view, name) for name in view.protocols),
        _aggregates(view),
        "## What the paper's numbers are\n\n" + PAPER,
        "## Deviations from the paper\n\n" + DEVIATIONS,
        _missing(view),
        _made_with(view),
    ]
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def _opening(view: View) -> str:
    episodes = listed(f"{n:,}" for n in {r.evaluation["episodes"] for r in view.results})
    commands = "\n".join(
        f"python -m relagent.study table4{options}   # trains and plays what is not there yet"
        for options in sorted({_evaluation_options(run) for run in view.results})
    )
    return f"""\
Agents with different memories are trained in a small world and scored there and, unchanged, in
larger ones. Runs so far: {len(view.results)}. Made by

```sh
{commands}
python -m relagent.study report   # makes this page
```

Every run is one file in `runs/`, with its settings, learning curve, scores of single episodes and
the command that makes it again. A score is the mean reward of {episodes} episodes with sampled
actions, as in the paper; a reward is 1 − 0.9 · steps / limit for success and 0 for failure. All
seeds are shown, and of each run the final checkpoint counts. In brackets: 95% percentile bootstrap
of the mean over seeds ({RESAMPLES:,} resamples), too narrow where seeds are few; below: every seed
in its order. Bold: above the paper's RelLSTM, to its two decimals."""


def _evaluation_options(run: RunResult) -> str:
    """The words of the command that makes a run by its protocol and scores it as it was."""
    usual = {"episodes": TransferTask.episodes, "precision": TransferTask.precision}
    own = ""
    if run.protocol not in NAMES:
        own = f" --protocol {run.command[run.command.index('--protocol') + 1]}"
        if "--steps" in run.command:
            own += f" --steps {run.config['steps']}"
    elif run.config["steps"] != planned_steps(run):
        own = f" --steps {run.config['steps']}"
    return own + "".join(
        f" --{name} {run.evaluation[name]}"
        for name, value in usual.items()
        if run.evaluation[name] != value
    )


def _settings_words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}` {json.dumps(value)}" for name, value in settings.items())


def _protocol(view: View, name: str) -> str:
    known = load_protocol(name) if name in NAMES else None
    runs = [run for run in view.results if run.protocol == name]
    settings = _settings(runs)
    differing = "".join(
        f"- {pair}: {_settings_words(entry['settings'])}, because {entry['reason']}\n"
        for pair, entry in (known.pairs.items() if known is not None else ())
    )
    heading, rows = improvement_rows(view, name)
    parts = [
        f"## Protocol *{name}*",
        known.description if known is not None else "",
        markdown(*table_rows(view, name)),
        f"![Learning curves](curves-{name}.png)",
        "Mean over seeds; the band reaches from the lowest to the highest seed.",
        f"![Transfer over all sizes](transfer-{name}.png)",
        "Mean over seeds and its interval; small dots are seeds, stars the paper's numbers.",
        _untold(view, name, runs),
        "### Probability that RelLSTM scores higher" if len(heading) > 1 else "",
        "Of a run of RelLSTM against a run of the other memory (Agarwal et al. 2021); 0.50 is no "
        "difference. Over all pairs it is the mean over those that both have run. An interval of "
        "no width says that all runs of one lie above all of the other (0.00 or 1.00) or that all "
        "are equal (0.50), and no more."
        if len(heading) > 1 else "",
        markdown(heading, rows) if len(heading) > 1 else "",
        "### Every size, sampled and greedy",
        markdown(*ladder_rows(view, name)),
        "### Settings",
        "The same for all memories" + (" but for the differences below." if differing else "."),
        settings,
        differing,
    ]  # fmt: skip
    return "\n\n".join(part.strip() for part in parts if part)


def _untold(view: View, name: str, runs: list[RunResult]) -> str:
    told = any("mission" in (run.config.get("parts") or ["mission"]) for run in runs)
    heading, rows = untold_rows(view, name)
    if told or not rows:
        return ""
    return f"### What can be solved without the mission\n\n{UNTOLD}\n{markdown(heading, rows)}"


def _settings(runs: list[RunResult]) -> str:
    """The settings that all runs share, and those that vary with how often."""
    skipped = ("env", "memory", "seed", "device", "threads", "backend", "checkpoint_every")
    rows = []
    for name in dict.fromkeys(name for run in runs for name in run.config):
        if name not in skipped:
            values = {json.dumps(run.config.get(name)) for run in runs}
            rows.append([f"`{name}`", listed(values)])
    seeds = {run.seed for run in runs}
    rows.append(["seeds", ", ".join(map(str, sorted(seeds)))])
    rows.append(["trained steps", listed(f"{n:,}" for n in {run.steps for run in runs})])
    return markdown(["setting", "value"], rows)


def _aggregates(view: View) -> str:
    heading, rows = iqm_rows(view)
    if not view.aggregates:
        return "## All pairs together\n\nNo seed has run all pairs that are compared yet."
    return f"""\
## All pairs together

Interquartile mean over runs and pairs: the mean of the middle half of all scores, with a stratified
bootstrap interval (Agarwal et al. 2021, arXiv 2108.13264). The pairs are those of the memory that
has run most; beside it are those that have run all of these, with the seeds that ran them all.

{markdown(heading, rows)}
![Interquartile means](aggregate.png)

![Performance profiles](profiles.png)

The share of runs that score more than τ, with pointwise 95% intervals where there are several
seeds: higher is better."""


def _missing(view: View) -> str:
    gaps = view.missing()
    if not gaps:
        return "## What is missing\n\nNothing: all runs of both protocols are here."
    lines = []
    for name, pairs in gaps.items():
        protocol, memory = name.split(" ")
        seeds: dict[str, list[str]] = {}
        for pair, missing in pairs.items():
            seeds.setdefault(", ".join(map(str, missing)), []).append(pair)
        texts = [f"{', '.join(where)}: {which}" for which, where in seeds.items()]
        count = sum(map(len, pairs.values()))
        lines.append(f"- *{protocol}*, {title(memory)}, {count} runs (seeds): {'; '.join(texts)}.")
    return "## What is missing\n\nOf the runs that the protocols plan:\n\n" + "\n".join(lines)


def _made_with(view: View) -> str:
    results = view.results
    trained, played = (
        sum(run.seconds.get(what, 0.0) for run in results) / 3600
        for what in ("training", "playing")
    )
    return f"""\
## Made with

- Machine, of a run's last part: {machines(results)}; one process a run, one thread each.
- Time of those processes: {trained:.1f} h of training, {played:.1f} h of playing. On a machine with
  several cores the wall time is shorter, on one that does something else besides, longer.
- Speed of training, steps/s of one process:

{_speed(view)}
- Training worlds: {backends(results)}.
- Versions: {versions(results, "training", "playing")}.
- Commits of training: {commits(results)}.{untold_sessions(results)}"""


def _speed(view: View) -> str:
    rows = []
    for protocol in view.protocols:
        for memory in view.memories(protocol):
            rates = [
                run.steps / run.seconds["training"]
                for run in view.results
                if (run.protocol, run.memory) == (protocol, memory) and run.seconds["training"]
            ]
            if rates:
                spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
                rows.append([protocol, title(memory), f"{np.median(rates):,.0f}", spread])
    table = markdown(["protocol", "memory", "median", "lowest to highest"], rows)
    return "".join(f"  {line}\n" for line in table.splitlines())
