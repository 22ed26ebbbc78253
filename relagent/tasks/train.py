"""The one training loop of all supervised tasks: settings in, a run directory out.

An interrupted and resumed run equals the uninterrupted one bit for bit on a CPU: a batch is a
function of the seed and the update's number, and a checkpoint holds everything else. (One that goes
on with a larger budget keeps, in its metrics, the evaluation at which the smaller one ended.)
"""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from relagent.errors import RelagentError
from relagent.memories import AnyState, detach_state, make_state
from relagent.runs.allocator import keep_freed_memory
from relagent.runs.checkpoint import save_file
from relagent.runs.config import names_of, to_json
from relagent.runs.device import computing_device
from relagent.runs.directory import RunDirectory, default_run_path
from relagent.runs.files import write_atomically
from relagent.runs.packing import pack
from relagent.runs.progress import TrainingProgress
from relagent.runs.provenance import provenance
from relagent.runs.random_states import random_states, restore_random_states, seed_everything
from relagent.runs.resuming import (
    ResumeError,
    changed_options,
    config_for_resume,
    deciding_settings,
    read_checkpoint,
)
from relagent.tasks.base import Batch, Score, Task, count_correct, cross_entropy
from relagent.tasks.config import DatasetConfig, GeneratedConfig, TaskConfig
from relagent.tasks.evaluate import evaluate
from relagent.tasks.model import (
    SequenceModel,
    orthogonality_error,
    parameter_groups,
)
from relagent.tasks.record import Clock, Tally, score_row
from relagent.tasks.run import check_data, make_model, peak_memory, read_task_config

RMSPROP_ALPHA = 0.99


class DivergenceError(RelagentError):
    """A loss or a gradient, in training or in an evaluation, that is no finite number.

    Args:
        update: the update that was not taken, or after which the weights had no finite loss.
        found: what is no finite number, and where to see it.
    """

    def __init__(self, update: int, found: str) -> None:
        self.update = update
        super().__init__(
            f"training diverged at update {update:,}: {found}; try a smaller --learning-rate"
        )


def train(
    config: TaskConfig, path: Path | None = None, stop: Callable[[], bool] | None = None
) -> bool:
    """Train from the beginning.

    Args:
        config: what to learn, and how.
        path: the run directory to make; by default one under ``runs/``, named after the settings.
        stop: polled between updates; true saves and ends.

    Returns:
        Whether training went to its end (it may have been asked to stop).

    Raises:
        DivergenceError: a loss or a gradient is no longer finite. The run is saved as it was
            before the next step, and its result says so.
        RelagentError: something else that the user can mend; one line says what.
    """
    training = Training(config)
    where = provenance(device=str(training.device), backend=None)
    delay = f"-T{config.T}" if isinstance(config, GeneratedConfig) else ""
    path = path or default_run_path(f"{config.task}{delay}", config.memory, config.seed)
    with RunDirectory.create(path, config, where) as run:
        return training.run(run, stop or (lambda: False))


def resume(
    path: Path, changes: dict[str, Any] | None = None, stop: Callable[[], bool] | None = None
) -> bool:
    """Go on with a run from its newest usable checkpoint.

    Args:
        path: the run directory.
        changes: new values of settings that decide how long and where to train; all else stays.
        stop: see :func:`train`.

    Returns:
        Whether training went to its end.

    Raises:
        ResumeError: another setting differs from the run's.
        RelagentError: see :func:`train`.
    """
    run_config = read_task_config(RunDirectory.open(path))
    config = config_for_resume(run_config, changes or {})
    training = Training(config)
    where = provenance(device=str(training.device), backend=None)
    with RunDirectory.open_for_resume(path) as run:
        if not run.saved:
            run.rewind(0, where)
            return training.run(run, stop or (lambda: False))
        state, checkpoint = read_checkpoint(run, run_config)
        if checkpoint.step > training.total:
            (budget,) = names_of(type(config), "budget")
            raise ResumeError(
                f"{path} has done {checkpoint.step:,} updates, more than the {training.total:,} "
                f"of --{budget} {getattr(config, budget)}: give a larger --{budget}"
            )
        check_data(training.task, state)
        training.restore(state, checkpoint.step)
        run.rewind(checkpoint.step, where)
        (run.path / "result.json").unlink(missing_ok=True)  # of an end that is none any more
        return training.run(run, stop or (lambda: False))


class Training:
    """A model in training.

    Args:
        config: what to learn, and how.
    """

    def __init__(self, config: TaskConfig) -> None:
        self.config = config
        self.device = computing_device(config.device)
        torch.set_num_threads(config.threads)
        keep_freed_memory()
        self.task: Task = config.make_task()
        self.total = config.total_updates(self.task)
        self.interval = config.evaluation_interval(self.task)
        seed_everything(config.seed)
        self.model: SequenceModel = make_model(config, self.task).to(self.device)
        self.optimizer = _make_optimizer(config, self.model)
        self.update = 0
        self.carried: AnyState | None = None  # of the memory, for a batch that continues the last
        self.tally = Tally()
        self.evaluated = 0  # update of the last evaluation
        self.solved: int | None = None
        self.best: dict[str, Any] | None = None

    def run(self, run: RunDirectory, stop: Callable[[], bool]) -> bool:
        """Train to the end, or until asked to stop; see :func:`train`."""
        print(f"run directory: {run.path}", file=sys.stderr, flush=True)
        clock = Clock(run.path / "seconds.json")
        board = SummaryWriter(log_dir=str(run.path / "tensorboard"), purge_step=self.update + 1)

        def log(row: dict[str, float]) -> None:
            run.log_metrics(self.update, row)
            for name, value in row.items():
                board.add_scalar(name, value, self.update)

        def save() -> None:
            run.save_checkpoint(self.update, *pack(self.state()))
            clock.save()

        diverged: DivergenceError | None = None
        try:
            try:
                self._take_steps(run, log, save, stop)
            except DivergenceError as error:
                diverged = error
            save()
            finished = self._finish(run, clock, stop, diverged)
        finally:
            board.close()
        if finished and diverged is not None:
            raise diverged
        return finished

    def _take_steps(
        self,
        run: RunDirectory,
        log: Callable[[dict[str, float]], None],
        save: Callable[[], None],
        stop: Callable[[], bool],
    ) -> None:
        """Step, evaluate, log and save until the task is solved, the budget is used, or a stop."""
        saved, begun = time.monotonic(), self.update
        with TrainingProgress(self.total, self.update, "updates") as progress:
            while True:
                due = self.update % self.interval == 0 or self.update == self.total
                if due and self.update > self.evaluated:
                    score = evaluate(
                        self.model, self.task, "validation", self.config, self.update, stop
                    )
                    if score is not None and not math.isfinite(score.loss):
                        raise DivergenceError(self.update, f"its evaluation's loss is {score.loss}")
                    if score is not None:
                        log(self.evaluation(score))
                        if self.update == begun:  # left by a stop: else a kill would repeat it
                            save()
                if self.update >= self.total or self.solved is not None or stop():
                    break
                if time.monotonic() - saved >= 60 * self.config.checkpoint_minutes:
                    save()
                    saved = time.monotonic()
                self.step(run)
                if self.update % self.config.log_every == 0:
                    row = self.tally.row("train", self.task)
                    row["train/learning_rate"] = self.optimizer.param_groups[0]["lr"]
                    log(row)
                    progress.update(self.update, self.tally.figures())
                    self.tally = Tally()
                else:
                    progress.update(self.update)

    def step(self, run: RunDirectory) -> None:
        """Take one optimiser step.

        Raises:
            DivergenceError: see :func:`train`.
        """
        config = self.config
        batch = self.task.training_batch(self.update, config.batch_size, config.seed)
        batch = batch.to(self.device)
        before = self.carried if batch.continues else None
        logits, after = self.model(batch.x, before)
        loss = cross_entropy(logits, batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
        figures = loss.item(), norm.item()
        if not all(map(math.isfinite, figures)):
            path = self._save_batch(run, batch, before)
            loss_found, norm_found = figures
            raise DivergenceError(
                self.update + 1,
                f"loss {loss_found}, gradient norm {norm_found}; no step was taken, batch and "
                f"weights are in {path}",
            )
        self.optimizer.step()
        self.carried = (
            detach_state(self.model.memory.forget(after)) if self.task.continuous else None
        )
        self.update += 1
        self.tally.add(*figures, *count_correct(logits, batch))

    def evaluation(self, score: Score) -> dict[str, float]:
        """Act on an evaluation, and return its row of metrics."""
        self.evaluated = self.update
        regular = self.update % self.interval == 0  # else the budget ends here, and may yet grow
        if self.task.solvable and score.perfect and regular:
            self.solved = self.update
        merit = self.task.merit(score)
        if self.task.tested and (self.best is None or merit > self.best["merit"]):
            weights = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.best = {"merit": merit, "update": self.update, "model": weights}
        elif isinstance(self.config, DatasetConfig) and self.config.halve_on_stall:
            for group in self.optimizer.param_groups:
                group["lr"] /= 2
        row = score_row("validation", score, self.task)
        orthogonality = orthogonality_error(self.model.memory)
        return row if orthogonality is None else {**row, "memory/orthogonality": orthogonality}

    def state(self) -> dict[str, Any]:
        """Return all that training goes on from, as a tree for a checkpoint."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "carried": None if self.carried is None else tuple(self.carried),
            "tally": vars(self.tally),
            "evaluated": self.evaluated,
            "solved": self.solved,
            "best": self.best,
            "data": self.task.fingerprint,
            "settings": deciding_settings(self.config),
            "random": random_states(),
        }

    def restore(self, state: dict[str, Any], update: int) -> None:
        """Put back what :meth:`state` returned."""
        self.update = update
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["carried"] is not None:
            parts = (part.to(self.device) for part in state["carried"])
            self.carried = make_state(self.model.memory.initial_state(1), parts)
        self.tally = Tally(**state["tally"])
        self.evaluated, self.solved = state["evaluated"], state["solved"]
        self.best = state["best"]
        restore_random_states(state["random"])

    def _save_batch(self, run: RunDirectory, batch: Batch, before: AnyState | None) -> Path:
        """Save what a step was to be taken from."""
        path = run.path / f"diverged-{self.update + 1}.safetensors"
        tree = {
            "batch": batch._asdict(),
            "state": None if before is None else tuple(before),
            "model": self.model.state_dict(),
        }
        save_file(path, *pack(tree))
        return path

    def _finish(
        self,
        run: RunDirectory,
        clock: Clock,
        stop: Callable[[], bool],
        diverged: DivergenceError | None,
    ) -> bool:
        """Test the best weights and write the result; or say how to go on."""
        evaluated = self.evaluated == self.update  # a stop may have come in between
        ended = self.update >= self.total or self.solved is not None
        done = (evaluated and ended) or diverged is not None
        test = None
        if done and self.task.tested and self.best is not None:
            last = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.model.load_state_dict(self.best["model"])
            test = evaluate(self.model, self.task, "test", self.config, self.update, stop)
            self.model.load_state_dict(last)
            done = test is not None
            if test is not None and not math.isfinite(test.loss):
                print("warning: the test loss is no finite number: no score", file=sys.stderr)
                test = None
        if not done:
            print(
                f"stopped after {self.update:,} updates; go on with: python -m relagent.tasks "
                f"{self.config.task} --resume {shlex.quote(str(run.path))}"
                f"{changed_options(run, self.config)}",
                file=sys.stderr,
            )
            return False
        evaluations = [row for row in run.read_metrics() if "validation/loss" in row]
        clock.save()
        result = {
            "config": to_json(self.config),
            "updates": self.update,
            "total": self.total,
            "solved": self.solved,
            "diverged": None if diverged is None else diverged.update,
            "validation": evaluations[-1] if evaluations else None,
            "best_update": None if self.best is None else self.best["update"],
            "test": None if test is None else score_row("test", test, self.task),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "seconds": clock.seconds,
            "peak_memory": peak_memory(self.device),
        }
        content = json.dumps(result, indent=2, allow_nan=False).encode() + b"\n"
        write_atomically(run.path / "result.json", content)
        if diverged is None:
            print(_summary(result), file=sys.stderr)
            print(
                f"next: python -m relagent.analysis {shlex.quote(str(run.path))}", file=sys.stderr
            )
        return True


def _make_optimizer(config: TaskConfig, model: SequenceModel) -> torch.optim.Optimizer:
    groups = parameter_groups(model, config.learning_rate, config.orthogonal_learning_rate)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, alpha=RMSPROP_ALPHA)
    return torch.optim.Adam(groups)


def _summary(result: dict[str, Any]) -> str:
    words = f"{result['updates']:,} updates in {result['seconds']:.0f} s"
    if result["solved"] is not None:
        return f"solved after {words}: every evaluated step is right"
    rows = {**(result["validation"] or {}), **(result["test"] or {})}
    figures = [
        f"{name.replace('/', ' ')} {value:.4f}" for name, value in rows.items() if name != "step"
    ]
    return f"trained for {words}; {', '.join(figures)}"
