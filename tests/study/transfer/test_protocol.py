from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relagent.envs import PAIRS
from relagent.rl.train import TrainConfig
from relagent.study.transfer.protocol import (
    NAMES,
    ProtocolError,
    load_protocol,
    protocol_from_json,
)

from ..conftest import TINY


def test_paper_is_what_is_known_of_the_paper() -> None:
    for pair in PAIRS:
        config = load_protocol("paper").config(pair, "mem", 2)
        assert config.env == pair.train_id
        assert config.parts == ("image",)
        assert (config.n_envs, config.n_steps, config.batch_size, config.n_epochs) == (
            16,
            128,
            256,
            4,
        )
        assert (config.learning_rate, config.ent_coef, config.hidden_size) == (1e-3, 0.01, 64)
        assert (config.nu, config.rho, config.steps) == (5, 5, 5_000_000)
        assert (config.gamma, config.gae_lambda, config.clip_range) == (0.99, 0.95, 0.2)


@pytest.mark.parametrize("name", NAMES)
def test_no_memory_has_settings_of_its_own(name: str) -> None:
    protocol = load_protocol(name)
    for pair in PAIRS:
        configs = {replace(protocol.config(pair, m, 0), memory="rel") for m in protocol.memories}
        assert len(configs) == 1
        assert configs.pop().threads == 1


def test_a_pair_may_differ_and_says_why() -> None:
    data: dict[str, Any] = copy.deepcopy(TINY)
    data["pairs"] = {"memory": {"reason": "Long.", "settings": {"ent_coef": 0.5}}}
    protocol = protocol_from_json("mine", data)
    found = {pair.name: protocol.config(pair, "rel", 0).ent_coef for pair in PAIRS}
    assert found.pop("memory") == 0.5
    assert set(found.values()) == {TrainConfig(env="x").ent_coef}
    assert protocol_from_json("mine", protocol.to_json()) == protocol


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": "3"}, "seeds of protocol 'mine' must be a int"),
        ({"extra": 1}, "must have the keys description, memories"),
        ({"settings": {"memory": "rel"}}, "sets memory: it may set"),
        ({"settings": {"threads": 4}}, "sets threads"),
        ({"settings": {"stepz": 4}}, "sets stepz"),
        ({"settings": {"steps": 0}}, "steps is 0"),
        ({"memories": ["rell"]}, "did you mean rel"),
        ({"pairs": {"lava": {"reason": "", "settings": {}}}}, "names a pair 'lava'"),
        ({"pairs": {"fetch": {"settings": {}}}}, "must have a reason and settings"),
        ({"pairs": {"fetch": {"reason": "", "settings": 5}}}, "must have a reason and settings"),
        ({"seeds": 0}, "at least one seed and one memory"),
        ({"memories": []}, "at least one seed and one memory"),
    ],
)
def test_impossible_protocols_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        protocol_from_json("mine", TINY | change)


def test_files_that_are_no_protocol(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="no protocol 'theirs': choose ours or paper"):
        load_protocol("theirs")
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(ProtocolError, match="it must be a JSON file"):
        load_protocol(str(path))
    path.write_text(json.dumps(TINY))
    assert load_protocol(str(path)).name == "broken"
    with pytest.raises(ProtocolError, match="give the file another name"):
        load_protocol(str(path.rename(tmp_path / "ours.json")))
