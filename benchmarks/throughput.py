"""Training steps per second, end to end, against peers, in one run on one machine.

    python benchmarks/throughput.py                 # relagent against sb3-contrib's RecurrentPPO
    python benchmarks/throughput.py --peers sb3 torch-ac definition --rounds 5

Every measurement is a process of its own; systems take turns, so that a machine whose speed drifts
slows all of them. A peer's environments and threads are those at which it is fastest (as many
rounds of shorter measurements find them), with OpenMP's settings as they come. Compilation and the
first two updates are not counted. torch-ac is an optional package (``pip install torch-ac``).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

ENV = "MiniGrid-DoorKey-5x5-v0"
HIDDEN = 64
SECONDS = 20.0


@dataclass(frozen=True)
class Setting:
    """One thing to measure."""

    system: str
    n_envs: int
    backend: str = "envpool"
    n_epochs: int = 4
    threads: int = 1
    memory: str = "rel"

    def __str__(self) -> str:
        """Name it for the table."""
        what = f"{self.system}, {self.memory}" if self.system in _OURS else self.system
        return (
            f"{what}: {self.n_envs} envs, {self.backend}, {self.n_epochs} epochs, "
            f"{self.threads} threads"
        )


_OURS = ("relagent", "definition")

CANDIDATES = {
    # As it comes: its default settings and the Python worlds that its users have.
    "sb3": [
        Setting("sb3", n_envs, "minigrid", n_epochs=10, threads=threads)
        for n_envs in (8, 16, 32)
        for threads in (1, 2)
    ],
    # With our epochs, minibatches and simulator, one LSTM for both, and as many parameters in all.
    "sb3-matched": [
        Setting("sb3", n_envs, "envpool", n_epochs=4, threads=threads)
        for n_envs in (16, 64)
        for threads in (1, 2)
    ],
    "torch-ac": [
        Setting("torch-ac", n_envs, "minigrid", threads=threads)
        for n_envs in (8, 16)
        for threads in (1, 2)
    ],
    "definition": [Setting("definition", 64)],
}


def _make_envs(setting: Setting) -> Any:
    from relagent.envs import make_vec_env

    return make_vec_env(
        ENV,
        setting.n_envs,
        seed=0,
        backend="envpool" if setting.backend == "envpool" else "minigrid",
        parts=("image", "direction", "previous_action"),
    )


def _sb3_style(model: Any, seconds: float) -> float:
    """Warm up for two updates, then count steps for at least this long, and three updates."""
    from stable_baselines3.common.logger import Logger

    model.set_logger(Logger(None, []))
    per_update = model.n_steps * model.n_envs
    model.learn(2 * per_update)
    begin, steps = time.perf_counter(), model.num_timesteps
    least = steps + 3 * per_update
    while time.perf_counter() - begin < seconds or model.num_timesteps < least:
        model.learn(per_update, reset_num_timesteps=False)
    return float((model.num_timesteps - steps) / (time.perf_counter() - begin))


def measure_relagent(setting: Setting, seconds: float) -> float:
    """``MemoryPPO``'s defaults."""
    from relagent.memories import kernels
    from relagent.rl import MemoryPPO

    model = MemoryPPO(
        "MemoryPolicy",
        _make_envs(setting),
        seed=0,
        n_epochs=setting.n_epochs,
        policy_kwargs={"memory": setting.memory, "hidden_size": HIDDEN},
    )
    if setting.system == "definition":
        with kernels.disable():
            return _sb3_style(model, seconds)
    return _sb3_style(model, seconds)


def measure_sb3(setting: Setting, seconds: float) -> float:
    """sb3-contrib's RecurrentPPO with an LSTM of the same size and its own encoder."""
    from sb3_contrib import RecurrentPPO

    options: dict[str, Any] = {"lstm_hidden_size": HIDDEN}
    if setting.backend == "envpool":  # matched
        options |= {"shared_lstm": True, "enable_critic_lstm": False, "net_arch": []}
    model = RecurrentPPO(
        "MultiInputLstmPolicy",
        _make_envs(setting),
        seed=0,
        n_epochs=setting.n_epochs,
        batch_size=512 if setting.backend == "envpool" else 128,
        policy_kwargs=options,
    )
    return _sb3_style(model, seconds)


def measure_torch_ac(setting: Setting, seconds: float) -> float:
    """torch-ac's PPO with an LSTM cell of the same size, one process an environment."""
    import gymnasium as gym
    import minigrid  # noqa: F401  # registers the worlds
    import numpy as np
    import torch
    import torch_ac
    from torch import nn
    from torch.distributions import Categorical

    class Model(nn.Module, torch_ac.RecurrentACModel):  # type: ignore[misc]  # it has no types
        memory_size = 2 * HIDDEN

        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(7 * 7 * 3, HIDDEN), nn.ReLU())
            self.cell = nn.LSTMCell(HIDDEN, HIDDEN)
            self.actor = nn.Linear(HIDDEN, 7)
            self.critic = nn.Linear(HIDDEN, 1)

        def forward(self, obs: Any, memory: Any) -> tuple[Categorical, Any, Any]:
            h, c = self.cell(self.encoder(obs.image), memory.chunk(2, dim=1))
            return (
                Categorical(logits=self.actor(h)),
                self.critic(h).squeeze(1),
                torch.cat([h, c], dim=1),
            )

    def preprocess(obss: list[Any], device: Any = None) -> Any:
        images = np.stack([obs["image"] for obs in obss])
        return torch_ac.DictList({"image": torch.as_tensor(images, dtype=torch.float32)})

    algorithm = torch_ac.PPOAlgo(
        [gym.make(ENV) for _ in range(setting.n_envs)],
        Model(),
        device="cpu",
        num_frames_per_proc=128,
        recurrence=4,
        preprocess_obss=preprocess,
    )

    def update() -> int:
        experiences, logs = algorithm.collect_experiences()
        algorithm.update_parameters(experiences)
        return int(logs["num_frames"])

    update()
    update()
    begin, steps = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        steps += update()
    return steps / (time.perf_counter() - begin)


MEASURES: dict[str, Callable[[Setting, float], float]] = {
    "relagent": measure_relagent,
    "definition": measure_relagent,
    "sb3": measure_sb3,
    "torch-ac": measure_torch_ac,
}


def run_in_process(setting: Setting, seconds: float) -> float:
    """Measure in a process of its own."""
    words = [sys.executable, __file__, "--measure", json.dumps(vars(setting)), str(seconds)]
    # A policy of ours would reach the peers; measured itself, relagent sets it before torch comes.
    plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(words, capture_output=True, text=True, env=plain)
    if done.returncode:
        from relagent.errors import RelagentError

        print(done.stderr, file=sys.stderr)
        raise RelagentError(f"{setting} failed, its error stands above")
    return float(done.stdout.split()[-1])


def in_turn(settings: list[Setting], rounds: int, seconds: float) -> dict[Setting, list[float]]:
    """Measure each setting once a round."""
    measured: dict[Setting, list[float]] = {setting: [] for setting in settings}
    for _ in range(rounds):
        for setting in settings:
            measured[setting].append(run_in_process(setting, seconds))
    return measured


def main() -> int:
    """Read the command line and measure."""
    # Here alone: what measures a peer must not have imported relagent before torch.
    from relagent.memories import MEMORIES
    from relagent.runs.cli import ArgumentParser, count

    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="*", choices=list(CANDIDATES), default=["sb3"])
    parser.add_argument("--memories", nargs="+", choices=list(MEMORIES), default=["rel"])
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    arguments = parser.parse_args()
    if "torch-ac" in arguments.peers and find_spec("torch_ac") is None:
        parser.error("torch-ac is not installed: pip install torch-ac, or leave it out of --peers")

    from relagent.runs.machine import machine_words
    from relagent.runs.provenance import provenance

    packages = ", ".join(f"{name} {which}" for name, which in provenance()["versions"].items())
    print(f"{packages}, {machine_words()}", flush=True)
    settings = [Setting("relagent", 64, memory=memory) for memory in arguments.memories]
    for peer in arguments.peers:
        rates = in_turn(CANDIDATES[peer], arguments.rounds, arguments.seconds / 2)
        medians = {setting: statistics.median(found) for setting, found in rates.items()}
        for setting, rate in medians.items():
            print(f"  candidate {setting}: {rate:,.0f} steps/s", flush=True)
        settings.append(max(medians, key=lambda s: medians[s]))

    measured = in_turn(settings, arguments.rounds, arguments.seconds)
    ours = measured[settings[0]]
    print(f"\n{ENV}, hidden size {HIDDEN}, {arguments.rounds} rounds in turn, medians")
    print(f"{'system':<50} {'steps/s':>9}  {'relagent is faster by':>22}")
    for setting in settings:
        rates_ = measured[setting]
        ratios = [a / b for a, b in zip(ours, rates_, strict=True)]
        print(
            f"{setting!s:<50} {statistics.median(rates_):>9,.0f}  "
            f"{statistics.median(ratios):>6.1f}x  ({min(ratios):.1f} to {max(ratios):.1f})"
        )
    return 0


def measure_here(setting: Setting, seconds: float) -> None:
    """Measure in this process, and print the steps per second."""
    if setting.system in _OURS:
        import relagent  # noqa: F401  # first: it tells OpenMP not to spin
    import torch

    torch.set_num_threads(setting.threads)
    print(MEASURES[setting.system](setting, seconds))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure_here(Setting(**json.loads(sys.argv[2])), float(sys.argv[3]))
        sys.exit()
    from relagent.runs.cli import main_guard

    sys.exit(main_guard(main))
