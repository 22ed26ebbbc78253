"""The tools of stable-baselines3 work: callbacks, wrappers, evaluation, loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    CallbackList,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from relagent.envs import ImpairedSightVecEnv, Impairments, make_env
from relagent.memories.full import FullState
from relagent.rl import MemoryPPO
from relagent.rl.callbacks import AttentionCallback
from relagent.rl.encoder import EncoderError

from .recall import Recall
from .worlds import Toy, Watch, every_memory_in, small_model, toys, world


@every_memory_in("box", "grid")
def test_evaluate_policy_with_a_vec_env(memory: str, name: str) -> None:
    model = small_model(world(name), memory)
    returns, lengths = evaluate_policy(
        model, world(name, 3), n_eval_episodes=7, return_episode_rewards=True, warn=False
    )
    assert isinstance(returns, list) and isinstance(lengths, list)
    assert len(returns) == len(lengths) == 7 and min(lengths) >= 1


def test_evaluate_policy_carries_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """From step to step within an episode, in every environment, and empties it between them."""
    blanks = 2
    model = small_model(DummyVecEnv([lambda: Recall(blanks=blanks)] * 3), "mem")
    remembered: list[list[int]] = []
    original = model.policy.predict

    def note(*arguments: Any) -> Any:
        actions, state = original(*arguments)
        assert state is not None
        occupied = FullState(*map(torch.as_tensor, state)).occupied
        remembered.append(occupied.sum(dim=1).tolist())
        return actions, state

    monkeypatch.setattr(model.policy, "predict", note)
    evaluate_policy(model, DummyVecEnv([lambda: Recall(blanks=blanks)] * 3), 6, warn=False)
    assert remembered == 2 * [[n] * 3 for n in range(1, blanks + 3)]


def test_evaluation_callback_and_early_stop(tmp_path: Path) -> None:
    model = small_model(VecMonitor(toys()), "rel")
    threshold = StopTrainingOnRewardThreshold(reward_threshold=-1e6)
    callback = EvalCallback(
        VecMonitor(toys(2)),
        callback_on_new_best=threshold,
        n_eval_episodes=4,
        eval_freq=12,
        log_path=str(tmp_path),
        verbose=0,
    )
    model.learn(100 * 12 * 4, callback=callback)
    assert model.num_timesteps == 12 * 4, "the first evaluation is good enough: training stops"
    with np.load(tmp_path / "evaluations.npz") as results:
        assert results["results"].shape == (1, 4)
        assert callback.best_mean_reward == results["results"].mean()


def test_callbacks_in_a_list_and_without_improvement() -> None:
    model = small_model(VecMonitor(toys()), "lstm")
    steps: list[int] = []
    patience = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1, min_evals=1)
    evaluation = EvalCallback(
        VecMonitor(toys(2)), callback_after_eval=patience, eval_freq=5, verbose=0
    )
    evaluation.best_mean_reward = np.inf
    watch = Watch(step=lambda local: steps.append(len(local["rewards"])))
    model.learn(100 * 12 * 4, callback=CallbackList([watch, evaluation]))
    assert steps == [4] * 15, "three evaluations, 5 steps apart"


def test_stop_after_a_number_of_episodes() -> None:
    model = small_model(VecMonitor(toys()), "gru")
    model.learn(10_000, callback=StopTrainingOnMaxEpisodes(max_episodes=3))  # 3 in each of the 4
    ended = model.num_timesteps
    assert 12 <= ended < 1000
    model.learn(12 * 4, reset_num_timesteps=False)
    assert model.num_timesteps == ended + 12 * 4


def test_normalised_observations_and_rewards() -> None:
    env = VecNormalize(toys(), gamma=0.9)
    model = small_model(env, "rel", double=True, gamma=0.9)
    seen: list[Any] = []

    def keep(local: dict[str, Any]) -> None:
        seen.append((local["observations"].numpy(), local["rewards"].copy()))

    model.learn(5 * 12 * 4, callback=Watch(step=keep))
    assert model.get_vec_normalize_env() is env
    late = np.concatenate([observation for observation, _ in seen[30:]])
    assert abs(late.std() - 1) < 0.15, "raw observations have a deviation of 0.58"
    assert np.abs(env.get_original_reward() - seen[-1][1]).max() > 0

    judge = VecNormalize(VecMonitor(toys(2)), training=False, norm_reward=False)
    model.learn(12 * 4, callback=EvalCallback(judge, eval_freq=6, n_eval_episodes=2, verbose=0))
    judged: Any = judge.obs_rms
    trained: Any = env.obs_rms
    assert np.array_equal(judged.mean, trained.mean), "statistics follow the training's"


def test_monitor_and_frame_stack() -> None:
    env = VecMonitor(VecFrameStack(toys(), n_stack=2))
    model = small_model(env, "rel")
    model.learn(2 * 12 * 4)
    assert model.ep_info_buffer is not None and len(model.ep_info_buffer) > 5
    assert model.policy.features_extractor.features_dim == 6


def test_an_environment_its_id_and_subprocesses() -> None:
    single = MemoryPPO("LstmPolicy", Toy(), n_steps=8, batch_size=8, device="cpu").learn(16)
    named = MemoryPPO("RelLstmPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu")
    assert single.num_timesteps == named.learn(16).num_timesteps == 16
    helper = sb3_make_vec_env("CartPole-v1", n_envs=2, vec_env_cls=SubprocVecEnv)
    try:
        assert small_model(helper, "rel").learn(2 * 12 * 2).num_timesteps == 48
    finally:
        helper.close()


def test_impaired_sight_in_subprocesses() -> None:
    worlds = SubprocVecEnv([lambda: make_env("MiniGrid-Empty-5x5-v0")] * 2)
    env = ImpairedSightVecEnv(worlds, Impairments(1.0, 0.0, 0.0), seed=0)
    try:
        env.reset()
        ends = 0
        for _ in range(101):  # an episode has 100 steps at most
            env.step_async(np.zeros(2, np.int64))
            _, _, dones, infos = env.step_wait()
            ends += dones.sum()
            assert not any("episode" in info for info in infos)
        assert ends == 2
    finally:
        env.close()


def test_evaluation_with_impaired_sight_comes_to_an_end() -> None:
    impaired = ImpairedSightVecEnv(world("grid", 3), Impairments(short_sight=1.0))
    model = small_model(world("grid"))
    returns, lengths = evaluate_policy(
        model, impaired, n_eval_episodes=7, return_episode_rewards=True, warn=False
    )
    assert len(cast("list[float]", returns)) == len(cast("list[int]", lengths)) == 7


def test_pendulum() -> None:
    """Actions in a Box whose limits are not 1, truncated episodes only."""
    env = DummyVecEnv([lambda: gym.make("Pendulum-v1", max_episode_steps=10)] * 2)
    model = small_model(env, "rel", clip_range_vf=0.2)
    model.learn(4 * 12 * 2)
    logged = model.logger.name_to_value
    assert np.isfinite(logged["train/loss"]) and logged["train/std"] == pytest.approx(1, abs=0.1)
    action, _ = model.predict(np.zeros((2, 3), np.float32))
    assert action.shape == (2, 1) and np.abs(action).max() <= 2


def test_loggers_get_the_usual_names(tmp_path: Path) -> None:
    model = small_model(VecMonitor(toys()), "rel", n_epochs=50, target_kl=1e-4, learning_rate=1e-2)
    model.set_logger(configure(str(tmp_path), ["csv", "tensorboard"]))
    model.learn(2 * 12 * 4)
    header, *rows = (tmp_path / "progress.csv").read_text().splitlines()
    names = {
        "rollout/ep_rew_mean",
        "rollout/ep_len_mean",
        "time/fps",
        "train/approx_kl",
        "train/clip_fraction",
        "train/entropy_loss",
        "train/explained_variance",
        "train/gradient_norm",
        "train/learning_rate",
        "train/policy_gradient_loss",
        "train/value_loss",
    }
    assert names <= set(header.split(",")) and rows
    assert list(tmp_path.glob("events.out.tfevents*"))
    assert model._n_updates < 100, "the KL limit stops the epochs early"


def test_a_normalised_view_is_refused() -> None:
    """Its cells are codes: what is left of them as quantities would be other things."""
    model = small_model(VecNormalize(world("grid"), norm_obs_keys=["image"]), "rel")
    with pytest.raises(EncoderError, match="norm_obs=False"):
        model.learn(10)


def test_attention_is_logged_beside_files_that_take_no_pictures(tmp_path: Path) -> None:
    model = small_model(world("grid"), "rel")
    model.set_logger(configure(str(tmp_path), ["csv", "json", "log"]))
    model.learn(3 * 12 * 4, callback=AttentionCallback(1, 1))
    assert "attention" in (tmp_path / "progress.csv").read_text().splitlines()[0]


def test_another_kind_of_adam_may_be_asked_for() -> None:
    model = small_model(toys(), "rel", policy_kwargs={"optimizer_kwargs": {"foreach": True}})
    model.learn(3 * 12 * 4)
