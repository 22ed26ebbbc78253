"""What the README tells a reader to type works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.in_process import run_script

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks("python"):
        code = block.replace("n_envs=64", "n_envs=2").replace("500_000", "256")
        assert code != block or "learn" not in block, "the example would train for long"
        exec(compile(code, "README.md", "exec"), names)
    names["model"].learn(256)
    assert names["action"].shape == (2,)
    loaded = names["MemoryPPO"].load("agent")
    again, _ = loaded.predict(names["obs"], None, names["start"], deterministic=True)
    assert again.shape == (2,)


def test_a_world_of_one_s_own_is_trained_in_and_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_module.py").write_text(
        "import gymnasium as gym\n"
        "for name, delay in (('MyWorld-v0', 5), ('MyLargerWorld-v0', 9)):\n"
        "    kwargs = {'delay': delay}\n"
        "    gym.register(name, 'relagent.envs:Cue', max_episode_steps=20, kwargs=kwargs)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (commands,) = (block for block in blocks("sh") if "my_module:MyWorld-v0" in block)
    for line in commands.splitlines():
        python, script, *arguments = line.split()
        assert python == "python"
        arguments += {
            "train_rl.py": ["--steps", "500"],
            "evaluate_transfer.py": ["--episodes", "4"],
        }[script]
        assert run_script(monkeypatch, script, *arguments) == 0
    said = capsys.readouterr().out
    assert "my_module:MyLargerWorld-v0" in said
    assert "time limit" not in said


@pytest.mark.parametrize("script", ["train_rl.py", "evaluate_transfer.py"])
def test_the_flags_of_the_commands_exist(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    used = set(re.findall(rf"{script}[^\n`]*", README))
    flags = {flag for line in used for flag in re.findall(r"--[a-z-]+", line)}
    assert run_script(monkeypatch, script, "--help") == 0
    assert used and flags <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))


def test_the_files_that_it_names_exist() -> None:
    for link in re.findall(r"\]\((?!http)([^)]+)\)", README):
        path, _, anchor = link.partition("#")
        assert (ROOT / path).exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), flags=re.MULTILINE)
            # As GitHub names them: without punctuation.
            names = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
            assert anchor in [name.replace(" ", "-") for name in names], link
    assert (ROOT / ".ci" / "run").exists()
