from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relagent.rl.checkpoint import LoadedPolicy, load_policy
from relagent.rl.play import WorldMismatchError, play
from relagent.rl.train import TrainConfig, train
from relagent.runs.files import WriteError
from relagent.study.transfer import watch
from relagent.study.transfer.episode import WatchError, record
from relagent.study.transfer.task import TransferTask
from relagent.study.transfer.watch import HEIGHT, WIDTH, _all_steps, film, frame

WORLD = "MiniGrid-Empty-5x5-v0"


def agent(folder: Path, memory: str) -> LoadedPolicy:
    """An agent that has learned next to nothing, and so plays long episodes."""
    config = TrainConfig(env=WORLD, memory=memory, steps=64, n_envs=2, n_steps=32, hidden_size=8)
    train(config, folder)
    return load_policy(folder)


@pytest.fixture(scope="module")
def rel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agents") / "rel"
    agent(folder, "rel")
    return folder


def test_a_film_has_a_frame_for_each_step(done: TransferTask, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "films" / "a.gif"
    path = film(done.run, None, out, episodes=2, first=1, say=said.append)
    lengths = play(load_policy(done.run).policy, done.pair.train_id, 3).lengths[1:]
    with Image.open(path) as picture:
        assert picture.size == (WIDTH, HEIGHT)
        assert picture.n_frames == lengths.sum()  # type: ignore[attr-defined]  # of GIFs
        picture.seek(0)
        assert picture.info["duration"] > 0
    assert [line.split(":")[0] for line in said] == ["episode 1", "episode 2"]


@pytest.mark.parametrize("greedy", [False, True])
def test_it_is_the_episode_that_was_scored(done: TransferTask, greedy: bool) -> None:
    policy = load_policy(done.run).policy
    world = done.pair.test_id
    scored = play(policy, world, 2, greedy)
    assert scored.successes is not None
    for number in range(2):
        moments = record(policy, world, number, greedy=greedy)
        assert len(moments) == scored.lengths[number]
        assert sum(moment.reward for moment in moments) == scored.rewards[number]
        assert (moments[-1].over == "solved") == scored.successes[number]
        assert all(moment.over == "" for moment in moments[:-1])


def test_what_is_remembered(rel: Path) -> None:
    moments = record(load_policy(rel).policy, WORLD)
    assert len(moments) > 30
    members: set[int] = set()
    for moment in moments:
        assert sum(slot.weight for slot in moment.slots) == pytest.approx(1.0)
        recent = [slot.step for slot in moment.slots if not slot.relevant]
        assert recent == list(range(max(0, moment.step - 4), moment.step + 1))
        now = {slot.step for slot in moment.slots if slot.relevant}
        assert len(now) == min(5, max(0, moment.step - 4))
        # The event says exactly what changed in the relevant set.
        leaver = moment.step - 5
        entered, gone = now - members, members - now
        if leaver < 0:
            assert moment.event == ""
        elif not entered:
            assert moment.event == f"step {leaver} leaves the buffer and is forgotten"
        elif not gone:
            assert moment.event == f"step {leaver} leaves the buffer for the relevant set"
        else:
            assert moment.event == (
                f"step {leaver} takes the place of step {gone.pop()} in the relevant set"
            )
        assert entered <= {leaver}
        members = now


def test_the_views_are_the_agent_s(rel: Path) -> None:
    moments = record(load_policy(rel).policy, WORLD)
    shape = (7 * 32, 7 * 32, 3)
    assert all(moment.view.shape == shape for moment in moments)
    turns = [i for i, moment in enumerate(moments[:-1]) if moment.action == "left"]
    assert turns
    for i in turns:  # whoever turns sees something else, in the same world
        assert not np.array_equal(moments[i].world, moments[i + 1].world)
    kept = {id(moment.view) for moment in moments}
    assert len(kept) == len({moment.view.tobytes() for moment in moments})


def test_more_attention_gets_more_colour(rel: Path) -> None:
    loaded = load_policy(rel)
    moments = record(loaded.policy, WORLD)
    picture = np.asarray(frame(moments, 20, loaded, WORLD, 0))
    orange = (picture == (0xD5, 0x5E, 0x00)).all(axis=2)
    assert orange.sum() > 500
    # Both parts of the memory are drawn: the relevant set left, the buffer right.
    assert orange[360:540, : WIDTH // 2].any()
    assert orange[360:540, WIDTH // 2 :].any()


@pytest.mark.parametrize("memory", ["mem", "lstm", "none"])
def test_other_memories_can_be_watched(tmp_path: Path, memory: str) -> None:
    loaded = agent(tmp_path / memory, memory)
    moments = record(loaded.policy, WORLD)
    if memory == "mem":
        assert [len(moment.slots) for moment in moments] == list(range(1, len(moments) + 1))
        assert moments[7].slots[0].step == 0
        headings = [_all_steps(moment.slots, moment.slots[:10]) for moment in moments[:12]]
        assert set(headings[:10]) == {"memory: all steps of the episode so far"}
        assert headings[10].startswith("memory: all 11 steps of the episode; these")
    else:
        assert all(moment.slots == () for moment in moments)
    assert frame(moments, len(moments) - 1, loaded, WORLD, 0).size == (WIDTH, HEIGHT)


def blank(*_: object) -> Image.Image:
    """Stands for a frame, which takes long to draw."""
    return Image.new("RGB", (8, 8))


def test_a_film_that_was_there_stays_until_the_new_one_is_whole(
    rel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.GIF"
    out.write_bytes(b"an earlier film")
    monkeypatch.setattr(watch, "frame", blank)

    def stopped(*_: object, **__: object) -> None:
        assert out.read_bytes() == b"an earlier film"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", stopped)
        with pytest.raises(KeyboardInterrupt):
            film(rel, out=out)
    assert [path.name for path in tmp_path.iterdir()] == ["a.GIF"]
    assert out.read_bytes() == b"an earlier film"
    assert film(rel, out=out) == out
    with Image.open(out) as picture:
        assert picture.format == "GIF"


def test_a_film_that_cannot_be_written_is_one_line(
    rel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(watch, "frame", blank)
    monkeypatch.setattr(Image.Image, "save", refused)
    with pytest.raises(WriteError, match=r"cannot write .*a\.gif: No such file"):
        film(rel, out=tmp_path / "a.gif")


def test_what_cannot_be_filmed(rel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WatchError, match=r"let it end in \.gif or \.mp4"):
        film(rel, out=tmp_path / "a.avi")
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(WatchError, match="is a folder"):
        film(rel, out=tmp_path / "folder.gif")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(WatchError, match=r"needs ffmpeg.*write a \.gif instead"):
        film(rel, out=tmp_path / "a.mp4")
    with pytest.raises(WorldMismatchError):
        record(load_policy(rel).policy, "CartPole-v1")
