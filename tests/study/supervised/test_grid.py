from __future__ import annotations

import random

import pytest

from relagent.study.supervised.grid import (
    GRIDS,
    PAPER_COPY,
    TRANSFER_DELAYS,
    GridError,
    chosen_cells,
    sequences,
)
from relagent.study.supervised.task import SupervisedTask, in_order
from relagent.tasks.defaults import TASKS, default_config


def test_every_task_has_a_grid_of_known_memories() -> None:
    assert set(GRIDS) == set(TASKS)
    for study, grid in GRIDS.items():
        assert len(set(grid.cells)) == len(grid.cells)
        for T, memory in grid.cells:
            config = default_config(study, memory, **({} if T is None else {"T": T}))
            assert config.memory == memory


def test_the_grid_of_copy_is_that_of_table_5_where_it_tells_most() -> None:
    cells = GRIDS["copy"].cells
    short = {*PAPER_COPY, "goru", "mem"}
    assert {m for T, m in cells if T == 100} == short
    assert {m for T, m in cells if T == 1000} == {"lstm", "orth-rnn", "exp-rnn", "rel-rnn", "rel"}
    assert [m for T, m in cells if T == 2000] == ["rel-rnn", "rel"]


def test_cells_are_chosen_by_memories_and_delays() -> None:
    assert chosen_cells("copy", None, None) == GRIDS["copy"].cells
    assert chosen_cells("copy", ["rel"], None) == [
        (T, "rel") for T in (100, 200, 300, 500, 1000, 2000)
    ]
    assert chosen_cells("copy", None, [2000]) == [(2000, "rel-rnn"), (2000, "rel")]
    # Both: all of their pairs, also those that the grid has not.
    assert chosen_cells("copy", ["gru", "sab"], [7, 2000, 7]) == [
        (7, "gru"),
        (7, "sab"),
        (2000, "gru"),
        (2000, "sab"),
    ]
    assert chosen_cells("mnist", ["gru", "lstm"], None) == [(None, "gru"), (None, "lstm")]
    with pytest.raises(GridError, match="delay 50 is not in the default grid of copy: say --mem"):
        chosen_cells("copy", None, [50])
    with pytest.raises(GridError, match="memory gru is not in the default grid of copy: say --T"):
        chosen_cells("copy", ["gru"], None)


def test_the_order_is_seed_then_delay_then_what_tells_most() -> None:
    tasks = [
        SupervisedTask(default_config("copy", memory, T=T, seed=seed))
        for T, memory in GRIDS["copy"].cells
        for seed in range(2)
    ]
    random.Random(0).shuffle(tasks)
    names = [task.name for task in in_order(tasks)]
    assert names[:3] == ["T100-rel-rnn-s0", "T100-rel-s0", "T100-lstm-s0"]
    assert names[9:12] == ["T200-rel-rnn-s0", "T200-rel-s0", "T200-lstm-s0"]
    half = len(tasks) // 2
    assert names[half - 2 : half + 1] == ["T2000-rel-rnn-s0", "T2000-rel-s0", "T100-rel-rnn-s1"]


def test_attention_to_everything_is_scored_on_fewer_sequences_of_long_delays() -> None:
    assert {sequences("rel-rnn", T) for T in TRANSFER_DELAYS} == {(10, 100)}
    numbers = [sequences("mem-rnn", T) for T in TRANSFER_DELAYS]
    assert numbers == [(10, 100), (10, 100), (10, 100), (2, 100), (1, 20)]


def test_settings_are_for_memories_that_take_them() -> None:
    grid = GRIDS["mnist"]
    assert "orthogonal_learning_rate" in grid.settings
    for _, memory in grid.cells:
        config = default_config("mnist", memory, **grid.settings_of(memory, {"batch_size": 8}))
        assert (config.orthogonal_learning_rate is not None) == (memory == "exp-rnn")
        assert config.batch_size == 8
        for name in set(grid.settings) - {"orthogonal_learning_rate", "batch_size"}:
            assert getattr(config, name) == grid.settings[name]


def test_a_setting_reaches_the_memories_that_have_it() -> None:
    grid = GRIDS["copy"]
    assert grid.settings_of("rel", {"nu": 5, "seed": 1}) == {"nu": 5, "seed": 1}
    assert grid.settings_of("lstm", {"nu": 5, "seed": 1}) == {"seed": 1}


def test_another_form_of_a_task_keeps_the_defaults() -> None:
    grid = GRIDS["mnist"]
    assert grid.settings_of("rel", {"permuted": True})["learning_rate"] == 2e-3
    assert grid.settings_of("rel", {"group": 1}) == {"group": 1}
    assert "hidden_size" not in grid.settings_of("goru", {})  # 100 is no power of 2
