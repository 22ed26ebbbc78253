"""The analysis of a run: measured, drawn, and put on a page.

::

    RUN/analysis/
      analysis.md      what was found
      analysis.json    the same as numbers
      gradients.png    which steps the loss, or the last action, depends on
      gradients.csv    the same as numbers
      attention.png    what each step looked at           (memories that can tell)
      depth.png        dependency depth of the last step  (memories that can tell)
      choices.png      which steps each action depends on (agents)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from relagent.analysis import draw
from relagent.analysis.episode import choice_gradients, play_episode
from relagent.analysis.findings import Findings, see
from relagent.analysis.measures import attends
from relagent.analysis.sequences import take_sequences
from relagent.analysis.symbols import symbol_states
from relagent.picture import png
from relagent.rl.checkpoint import LoadedPolicy, load_policy
from relagent.runs.config import Config, ConfigError, check_folder, option, to_json
from relagent.runs.directory import RunDirectory
from relagent.runs.files import output_folder, write_atomically, writing
from relagent.runs.provenance import provenance
from relagent.table import csv_text
from relagent.tasks.defaults import TASKS
from relagent.tasks.run import LoadedModel, load_model

MOST_SEQUENCES = 10_000
"""All of a task are looked at in one batch, which has to fit into memory."""
MOST_ACTIONS = 100
"""Actions of an episode that get a row in the picture of choices."""


@dataclass(frozen=True)
class AnalysisConfig(Config):
    """What of a run is looked at."""

    sequences: int = option(8, "Sequences of a task, or episodes of an agent.")
    episode: int = option(0, "Number of an agent's first evaluation episode; it is the one shown.")
    env: str | None = option(None, "World that an agent is played in; none takes its own.")
    greedy: bool = option(False, "Let an agent take the most probable action.")
    data: str | None = option(
        None, "Folder of a task's data, should they not be where the run found them."
    )
    out: str | None = option(None, "Folder of the page; none takes RUN/analysis.")

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 1 <= self.sequences <= MOST_SEQUENCES:
            rule = f"it must be at least 1 and at most {MOST_SEQUENCES:,}"
            raise ConfigError("sequences", self.sequences, rule)
        if self.episode < 0:
            raise ConfigError("episode", self.episode, "it must not be negative")
        check_folder("out", self.out)


@dataclass
class Page:
    """What a run's page is made of."""

    title: str
    facts: dict[str, Any]
    """Of the run, by name."""
    loss: str
    """What L is, in words."""
    findings: Findings
    figures: dict[str, Figure] = field(default_factory=dict)
    """By the name of their file."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Numbers beside those of the findings."""


def analyse(run: Path, config: AnalysisConfig) -> Path:
    """Analyse a run and write its page.

    Args:
        run: folder of an agent or of a supervised task.
        config: what is looked at.

    Returns:
        The page.

    Raises:
        RunNotFoundError, RunDamagedError: no usable run there.
        ConfigError: a setting was given that only runs of another kind have.
        WriteError: the page cannot be written.
        RelagentError: the agent does not fit the world asked for.
    """
    if _is_agent(run):
        if config.data is not None:
            raise ConfigError("data", config.data, "an agent's run needs none: leave it out")
        loaded: LoadedPolicy | LoadedModel = load_policy(run)
    else:
        loaded = load_model(run, data=config.data)
    folder = Path(config.out) if config.out is not None else run / "analysis"
    with output_folder(folder):
        if isinstance(loaded, LoadedPolicy):
            page = _agent_page(loaded, config)
        else:
            page = _task_page(loaded, config)
        _add_common_figures(page)
        _write(page, run, config, folder)
    return folder / "analysis.md"


def _write(page: Page, run: Path, config: AnalysisConfig, folder: Path) -> None:
    """Write the page, its numbers and its pictures."""
    found = page.findings.numbers() | page.extra
    numbers = {
        "run": run.resolve().name,
        "facts": page.facts,
        "loss": page.loss,
        # Where it is written, or its data are, has no part in it.
        "config": {k: v for k, v in to_json(config).items() if k not in ("data", "out")},
        "findings": found,
        "provenance": provenance(),
    }
    files = {"analysis.json": json.dumps(numbers, indent=2).encode() + b"\n"}
    files["gradients.csv"] = csv_text(page.findings.curve_rows()).encode()
    files |= {name: png(figure, dpi=110) for name, figure in page.figures.items()}
    files["analysis.md"] = _markdown(page, found).encode()  # last: it names the rest
    with writing(folder):
        for name, content in files.items():
            write_atomically(folder / name, content)


def _is_agent(run: Path) -> bool:
    return str(RunDirectory.open(run).read_settings().get("task")) not in TASKS


def _task_page(loaded: LoadedModel, config: AnalysisConfig) -> Page:
    """A supervised run, on sequences that it was not trained on."""
    for name in ("env", "greedy", "episode"):
        if getattr(config, name) != getattr(AnalysisConfig, name):
            rule = "a run of a supervised task plays no episodes: leave it out"
            raise ConfigError(name, getattr(config, name), rule)
    taken = take_sequences(loaded, config.sequences)
    settings = loaded.config
    page = Page(
        title=f"{settings.memory} on {settings.task}",
        facts=_facts(settings, ("task", "memory", "hidden_size", *_OPTIONS, "T", "seed"))
        | {"updates": loaded.updates},
        loss="the mean cross-entropy of the steps that count for accuracy",
        findings=Findings((see(taken.memory, taken.x, taken.loss),), attends(taken.memory)),
    )
    outputs, _ = taken.memory.unroll(taken.x, taken.memory.initial_state(taken.x.shape[1]))
    page.extra["accuracy"] = taken.right(outputs)
    look = page.findings.sights[0].look
    if settings.task == "copy" and look is not None:
        states = symbol_states(taken, look)
        if states is not None:
            page.extra["symbols"] = {name: part.tolist() for name, part in states._asdict().items()}
    return page


def _agent_page(loaded: LoadedPolicy, config: AnalysisConfig) -> Page:
    """An agent, in episodes that it was not trained on."""
    world = config.env or loaded.config.env
    options = [name for name in _OPTIONS if name in loaded.config.memory_options]
    episodes, sights = [], []
    for i in range(config.sequences):
        number = config.episode + i
        episode = play_episode(loaded.policy, world, number, greedy=config.greedy, pictures=i == 0)
        steps = f"{len(episode.actions)} steps"
        print(f"episode {i + 1} of {config.sequences}: {steps}", file=sys.stderr, flush=True)
        episodes.append(episode)
        sights.append(see(episode.policy.memory, episode.features, episode.last_choice))
    page = Page(
        title=f"{loaded.config.memory} in {world}",
        facts=_facts(loaded.config, ("env", "memory", "hidden_size", *options, "seed"))
        | {"steps": loaded.steps, "played in": world},
        loss="the log-probability log π(a_T) of an episode's last action",
        findings=Findings(tuple(sights), attends(loaded.policy.memory)),
    )
    first = episodes[0]
    page.extra["mean_reward"] = sum(episode.reward for episode in episodes) / len(episodes)
    title = (
        f"{world}, episode {config.episode}: {len(first.actions)} steps, reward {first.reward:.3g}"
    )
    page.figures["choices.png"] = draw.choice_figure(
        first, *choice_gradients(first, MOST_ACTIONS), sights[0].paths, title
    )
    return page


_OPTIONS = ("nonlinearity", "nu", "rho", "combine")
"""Of memories; those that a run's memory does not take are no facts about it."""


def _facts(config: Config, names: tuple[str, ...]) -> dict[str, Any]:
    values = to_json(config)
    return {name: values[name] for name in names if values.get(name) is not None}


def _add_common_figures(page: Page) -> None:
    findings = page.findings
    page.figures["gradients.png"] = draw.gradient_figure(findings, page.title)
    if findings.traced:
        page.figures["attention.png"] = draw.attention_figure(findings, page.title)
        page.figures["depth.png"] = draw.depth_figure(findings, page.title)


ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("accuracy", "accuracy on these sequences", lambda x: f"{100 * x:.1f}%"),
    ("mean_reward", "mean reward of these episodes", lambda x: f"{x:.3f}"),
    ("gradient_last_tenth", "median gradient norm, last tenth of the steps", lambda x: f"{x:.3g}"),
    ("gradient_first_tenth", "median gradient norm, first tenth", lambda x: f"{x:.3g}"),
    ("steps_without_gradient", "steps with exactly no gradient", lambda x: f"{100 * x:.1f}%"),
    (
        "gradient_through_attention",
        "share of the gradient that came through attention, mean over steps",
        lambda x: f"{100 * x:.1f}%",
    ),
    ("kappa", "κ, the most states that attention ran over", str),
    ("attention_entropy", "entropy of attention (nats)", lambda x: f"{x:.3f}"),
    ("attended_age", "mean age of what is attended to (steps)", lambda x: f"{x:.2f}"),
    ("depth", "dependency depth of the last step: mean, largest", lambda x: _depth(x)),
    ("depth_noticed", "the same through attention of an equal share or more", lambda x: _depth(x)),
)
"""Lines of the table: the number's name, in words, and how it is written."""


def _depth(found: dict[str, Any]) -> str:
    return f"{found['mean']:.2f}, {found['max']}"


def _markdown(page: Page, numbers: dict[str, Any]) -> str:
    findings = page.findings
    steps = numbers["steps"]
    lengths = f"{steps[0]}" if len(set(steps)) == 1 else f"{min(steps)} to {max(steps)}"
    lines = [
        f"# {page.title}",
        "",
        ", ".join(f"{name} {value}" for name, value in page.facts.items()) + ".",
        "",
        f"{numbers['sequences']} sequences of {lengths} steps. L is {page.loss}; h_t is the hidden "
        "state that is made at step t, before attention.",
        "",
        "| | |",
        "|---|---|",
        *(
            f"| {words} | {write(numbers[name])} |"
            for name, words, write in ROWS
            if name in numbers
        ),
        "",
    ]
    if "choices.png" in page.figures:
        lines += [
            "## Which steps an action depends on",
            "",
            "![choices](choices.png)",
            "",
            "‖∇ log π(a_T)‖ at every h_t: a row is an action, a column a remembered step. Right: "
            "the last action, and what the agent does at each step. Below: the world at the steps "
            "that the last action depends on most, and at its own.",
            "",
        ]
    lines += [
        "## How far gradients reach",
        "",
        "![gradients](gradients.png)",
        "",
        "‖∇_{h_t} L‖, median and quartiles over the sequences ([as numbers](gradients.csv))."
        + (
            " The gradient is a sum over paths: those through the recurrence alone, which remain "
            "when every context is held fixed, and those that pass through attention at least "
            "once. The share is ‖A‖ / (‖A‖ + ‖R‖) of the two sums."
            if findings.attends
            else " This memory has no attention: no share of the gradient comes through it, there "
            "is no picture of it, and the dependency depth is the number of steps in between."
        ),
        "",
    ]
    if findings.traced:
        lines += [
            "## What is attended to",
            "",
            "![attention](attention.png)",
            "",
            "The first sequence: a row is a step, a column a remembered one, blank where it is "
            "forgotten.",
            "",
            "![depth](depth.png)",
            "",
            "The dependency depth of the last step on h_t is the fewest recurrent steps on any "
            "path between them; without attention it is the number of steps in between. In a "
            "linear network with s = h + c, uniform attention over κ states and a normal V, "
            "Theorem 2 bounds the gradient from below by λ^d/κ^(d+1), for an eigenvalue λ > 0.",
            "",
        ]
        if "symbols" in numbers:
            lines += _symbols(numbers["symbols"])
    elif findings.attends:
        lines += [
            "No picture of attention, and no dependency depth: this memory cannot tell what it "
            "attended to.",
            "",
        ]
    return "\n".join(lines)


def _symbols(found: dict[str, Any]) -> list[str]:
    """The lines about the symbols' states of a model of copy."""
    columns = [found[name] for name in ("recalled", "attention", "alone", "without")]
    return [
        "## What the symbols' states are good for",
        "",
        "Once the state of the last symbol has entered the relevant set, states are taken out of "
        "it, and the model goes on as ever: right answers, all ten together, if one symbol's state "
        "alone is left there, and if it alone is taken out. (Later states take the free places, "
        "those in the short-term buffer stay, and a sequence whose set lacks the state counts as "
        f"it is.) Without any of them it is {100 * found['none']:.1f}%; guessing gives 12.5%. "
        "Attention is the mean weight over the delay.",
        "",
        "| symbol | recalled | attention | right with its state alone | right without it |",
        "|---|---|---|---|---|",
        *(
            f"| {symbol} | {100 * recalled:.1f}% | {attention:.3f} | {100 * alone:.1f}% "
            f"| {100 * without:.1f}% |"
            for symbol, (recalled, attention, alone, without) in enumerate(
                zip(*columns, strict=True), start=1
            )
        ),
        "",
    ]
