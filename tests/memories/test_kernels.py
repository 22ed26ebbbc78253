"""The CPU kernels are the definitions: same values, same gradients, same remembered states."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relagent.memories import Memory, RelLSTM, kernels, make_memory, map_state
from relagent.memories.kernels import native, unroll
from tests.memories.equality import (
    ATTENTIVE,
    DTYPES,
    KERNELS,
    assert_same,
    check_reset,
    everything,
    memories,
    only_by_kernels,
    problem,
    spread_out,
)

pytestmark = pytest.mark.usefixtures("two_threads_for_any_work")


def kernel_is_used(memory: Memory[Any], x: Tensor) -> bool:
    return kernels.select(type(memory), x) is not None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_kernel_equals_the_definition(data: st.DataObject, dtype: torch.dtype) -> None:
    memory = data.draw(memories(dtype))
    x, state, starts = problem(
        memory,
        steps=data.draw(st.integers(1, 12)),
        rows=data.draw(st.integers(1, 9)),
        before=data.draw(st.integers(0, 10)),
        chance=data.draw(st.sampled_from([0.0, 0.15, 0.6, 1.0])),
    )
    assert kernel_is_used(memory, x)
    with kernels.disable():
        definition = everything(memory, x, state, starts)
    with only_by_kernels():
        found = everything(memory, x, state, starts)
    assert_same(found, definition)


@pytest.mark.parametrize("name", KERNELS)
def test_a_wide_memory_and_many_rows(name: str) -> None:
    torch.manual_seed(0)
    memory = make_memory(name, 20, 128).double()
    x, state, starts = problem(memory, steps=12, rows=37, before=12, chance=0.05)
    with kernels.disable():
        definition = everything(memory, x, state, starts)
    with only_by_kernels():
        found = everything(memory, x, state, starts)
    assert_same(found, definition)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("silent", ["energies", "inputs", "all"])
@pytest.mark.parametrize("rho", [1, 3])
def test_ties_are_broken_as_in_the_definition(dtype: torch.dtype, silent: str, rho: int) -> None:
    """Uniform attention gives equal scores, again and again."""
    torch.manual_seed(0)
    memory = make_memory("rel", 2, 16, nu=2, rho=rho).to(dtype)
    with torch.no_grad():
        if silent == "energies":
            memory.attention.energy_weight.zero_()  # type: ignore[operator]  # a module
        if silent == "all":
            for parameter in memory.parameters():
                parameter.zero_()
    x, state, starts = problem(memory, steps=30, rows=5, before=0, chance=0.1)
    x = torch.zeros_like(x) if silent == "inputs" else x
    with torch.no_grad():
        for t in range(len(x)):
            _, after = memory.unroll(x[t : t + 1], state, starts[t : t + 1])
            with kernels.disable():
                _, expected = memory.unroll(x[t : t + 1], state, starts[t : t + 1])
            assert torch.equal(after.ages, expected.ages)
            if silent != "inputs":
                assert torch.equal(after.scores, expected.scores)
            state = after


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ATTENTIVE)
@pytest.mark.parametrize("parameter", ["query_weight", "key_weight", "both"])
def test_energies_of_any_size(name: str, parameter: str, dtype: torch.dtype) -> None:
    """Where e^(2 W_a s) or e^(2 U_a h) has no digits left, and where their product is 1 again."""
    torch.manual_seed(0)
    memory = make_memory(name, 3, 16).to(dtype)
    attention: Any = memory.attention
    with torch.no_grad():
        for weight in (attention.query_weight, attention.key_weight):
            if parameter == "both":  # s - h is small, and so is q + k
                weight.copy_(400 * torch.eye(16, dtype=dtype))
        if parameter == "both":
            attention.key_weight.neg_()
        else:
            getattr(attention, parameter).mul_(torch.logspace(-2, 3, 16, dtype=dtype)[:, None])
    x, state, starts = problem(memory, steps=6, rows=5, before=5, chance=0.1)
    with kernels.disable():
        definition = everything(memory, x, state, starts)
    with only_by_kernels():
        found = everything(memory, x, state, starts)
    if dtype == torch.float64:
        assert_same(found, definition)
    else:  # a sum of numbers in the hundreds has few digits, by definition
        assert_same(found, definition, values=2e-3, gradients=5e-2)


@pytest.mark.parametrize("name", KERNELS)
def test_parameters_may_lie_in_memory_as_they_like(name: str) -> None:
    memory = make_memory(name, 3, 4).double()
    spread_out(memory)
    x, state, starts = problem(memory, 6, 3, 2, 0.2)
    with kernels.disable():
        definition = everything(memory, x, state, starts)
    with only_by_kernels():
        found = everything(memory, x, state, starts)
    assert_same(found, definition)


@pytest.mark.parametrize("poison", [float("nan"), 1e10])
@pytest.mark.parametrize("name", KERNELS)
def test_nothing_before_a_reset_has_any_influence(name: str, poison: float) -> None:
    torch.manual_seed(0)
    memory = make_memory(name, 3, 16).double()
    x, state, starts = problem(memory, steps=6, rows=4, before=8, chance=0.0)
    check_reset(memory, x, state, starts, poison)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_step_has_the_same_bits_alone_and_in_a_batch(
    data: st.DataObject, dtype: torch.dtype
) -> None:
    """Neither T, nor B, nor threads, nor what is kept for a gradient may change a value."""
    memory = data.draw(memories(dtype))
    rows = data.draw(st.integers(1, 9))
    x, state, starts = problem(memory, steps=7, rows=rows, before=6, chance=0.1)
    y, after = memory.unroll(x, state, starts)
    with torch.no_grad():
        torch.set_num_threads(1)
        some = torch.arange(0, rows, 2)
        one, stepped = map_state(lambda t: t[some], state), []
        for x_t, starts_t in zip(x[:, some], starts[:, some], strict=True):
            y_t, one = memory.unroll(x_t[None], one, starts_t[None])
            stepped.append(y_t[0])
        torch.set_num_threads(2)
    assert torch.equal(torch.stack(stepped), y[:, some])
    for found, expected in zip(one[:2], after[:2], strict=True):
        assert torch.equal(found, expected[some])
    if hasattr(after, "ages"):
        for found, expected in zip(one, after, strict=True):
            assert torch.equal(found, expected[some])


@pytest.mark.parametrize("name", ["mem", "rel"])
def test_what_is_kept_for_the_gradient_grows_linearly_in_time(name: str) -> None:
    memory = make_memory(name, 2, 16)

    def kept(steps: int) -> int:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            memory.unroll(torch.randn(steps, 2, 2), memory.initial_state(2))
        return sum(sizes)

    short, long, longer = kept(50), kept(100), kept(150)
    assert longer - long == long - short


def test_where_the_kernel_does_not_apply_the_definition_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from relagent.memories.kernels import recurrent

    def unexpected(*_: Any) -> None:
        raise AssertionError("the kernel ran")

    monkeypatch.setattr(recurrent, "forward", unexpected)
    rounded = make_memory("rel", 2, 8).to(torch.bfloat16)
    y, _ = rounded.unroll(torch.randn(3, 2, 2, dtype=torch.bfloat16), rounded.initial_state(2))
    assert y.dtype == torch.bfloat16

    seen: list[int] = []
    for name in ("lstm", "rel", "mem"):
        memory = make_memory(name, 2, 8)
        memory.cell.register_forward_hook(lambda *_: seen.append(1))
        memory.unroll(torch.randn(3, 2, 2), memory.initial_state(2))
    assert len(seen) == 9
    with torch.nn.modules.module.register_module_forward_hook(lambda *_: seen.append(1)):
        memory = make_memory("lstm", 2, 8)
        memory.unroll(torch.randn(3, 2, 2), memory.initial_state(2))
    assert len(seen) == 12

    memory = make_memory("rel", 2, 8)
    with kernels.disable():
        memory.unroll(torch.randn(3, 2, 2), memory.initial_state(2))
    with pytest.raises(AssertionError, match="the kernel ran"):
        memory.unroll(torch.randn(3, 2, 2), memory.initial_state(2))


def test_numba_is_imported_when_a_kernel_is_first_needed() -> None:
    code = (
        "import sys, torch, relagent.memories as m; assert 'numba' not in sys.modules\n"
        "memory = m.make_memory('gru', 2, 3)\n"
        "m.kernels.select(type(memory), torch.zeros(1)); assert 'numba' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_a_compiler_the_definition_runs() -> None:
    code = (
        "import sys, torch; sys.modules['numba'] = None\n"
        "import relagent.memories as m\n"
        "memory = m.make_memory('rel', 2, 3)\n"
        "memory.unroll(torch.zeros(2, 1, 2), memory.initial_state(1))\n"
        "from relagent.rl.lookup import lookup_max\n"
        "lookup_max([torch.ones(3, 2)], [torch.zeros(2, 4, dtype=torch.int64)])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_a_writable_folder_kernels_are_compiled_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def njit(function: Any, cache: bool = False, **_: Any) -> Any:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return function

    monkeypatch.setattr(native, "_njit", njit)
    assert native.entry(len) is len
    assert asked == [True, False]


def test_compiling_is_announced_once(capsys: pytest.CaptureFixture[str]) -> None:
    announcement = native._Announcement()

    def compiled(module: str) -> Any:
        function = SimpleNamespace(py_func=SimpleNamespace(__module__=module))
        return SimpleNamespace(data={"dispatcher": function})

    announcement.on_start(compiled("somebody.else"))
    assert capsys.readouterr().err == ""
    announcement.on_start(compiled("relagent.memories.kernels.recurrent"))
    announcement.on_start(compiled("relagent.memories.kernels.recurrent"))
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_kernels_run_on_two_threads_after_a_fork() -> None:
    """Only the kernel: torch's own parallel functions do not survive one."""
    memory, x = make_memory("rel", 3, 16), torch.randn(20, 8, 3)
    state, starts = memory.initial_state(8), torch.zeros(20, 8, dtype=torch.bool)

    def same_as(expected: Tensor) -> bool:
        with torch.no_grad():
            return torch.equal(memory.unroll(x, state, starts)[0], expected)

    with torch.no_grad():
        expected = memory.unroll(x, state, starts)[0]
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if same_as(expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert same_as(expected)


def test_kernels_run_on_several_threads_at_once() -> None:
    memory, x = make_memory("rel", 3, 16), torch.randn(20, 8, 3)

    def output(_: int) -> Tensor:
        with torch.no_grad():
            return memory.unroll(x, memory.initial_state(8))[0]

    expected = output(0)
    with ThreadPoolExecutor(4) as threads:
        assert all(torch.equal(y, expected) for y in threads.map(output, range(40)))


@pytest.mark.parametrize("name", ["lstm", "rel", "mem", "rel-rnn"])
@pytest.mark.parametrize("n", [16, 13])
def test_a_promise_of_constant_weights_changes_nothing(name: str, n: int) -> None:
    torch.manual_seed(0)
    memories = [make_memory(name, 5, n).double() for _ in range(2)]
    x = torch.randn(1, 3, 5, dtype=torch.float64)

    def step(memory: Memory[Any]) -> Tensor:
        with torch.no_grad():
            return memory.unroll(x, memory.initial_state(3))[0]

    expected = [step(memory) for memory in memories]
    known: dict[Any, Any] = {}
    for _ in range(2):
        with kernels.constant_weights(known):
            for memory, right in zip(memories, expected, strict=True):
                assert torch.equal(step(memory), right)
    # Weights that were made wider are not kept; full attention keeps its keys too.
    assert len(known) == (0 if n != 16 else 4 if name == "mem" else 2)

    with torch.no_grad():
        for parameter in memories[0].parameters():
            parameter.mul_(1.5)
    assert not torch.equal(step(memories[0]), expected[0])  # the promise has ended


@pytest.mark.parametrize("name", ["mem", "mem-rnn"])
def test_keys_that_are_known_change_nothing(name: str) -> None:
    """Neither over resets of some rows or all, nor where an earlier state is gone on from."""
    torch.manual_seed(0)
    memory = make_memory(name, 3, 16)
    x = torch.randn(12, 4, 3)
    starts = torch.rand(12, 4) < 0.2
    starts[7] = True
    known: dict[Any, Any] = {}

    def step(t: int, state: Any, promised: bool) -> Any:
        given = (x[t : t + 1], state, starts[t : t + 1])
        with torch.no_grad():
            if not promised:
                return memory.unroll(*given)
            with kernels.constant_weights(known):
                return memory.unroll(*given)

    states = [memory.initial_state(4)]
    for t in range(len(x)):
        y, after = step(t, states[t], promised=True)
        expected, expected_after = step(t, states[t], promised=False)
        assert torch.equal(y, expected)
        assert all(map(torch.equal, after, expected_after))
        states.append(after)
    for t in (3, 11):
        assert torch.equal(step(t, states[t], True)[0], step(t, states[t], False)[0])


def test_kernels_stay_off_until_the_last_has_switched_them_on_again() -> None:
    first, second = kernels.disable(), kernels.disable()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not kernels.enabled()
    second.__exit__(None, None, None)
    assert kernels.enabled()


@pytest.mark.parametrize("name", ["goru", "exp-rnn"])
def test_what_a_kernel_would_need_is_not_made_where_it_does_not_pay(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory: Any = make_memory(name, 3, 16)
    backend: Any = SimpleNamespace(pays=lambda plan, steps, n: False)
    made = []
    product = memory.recurrent_matrix

    def counted() -> Any:
        made.append(1)
        return product()

    monkeypatch.setattr(memory, "recurrent_matrix", counted)
    x, state, starts = problem(memory, steps=2, rows=3, before=0, chance=0.2)
    expected, _ = memory.unroll_definition(x, state, starts)
    by_definition = len(made)
    y, _ = unroll.UNROLLS[type(memory)](backend, memory, x, state, starts)
    assert torch.equal(y, expected)
    assert len(made) == 2 * by_definition


def test_two_threads_may_be_the_first_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = {"cpu": kernels._modules.get("cpu", "relagent.memories.kernels.cpu")}

    def overtaken(module: str) -> None:
        waiting.clear()  # by the other thread, between the question and the import

    monkeypatch.setattr(kernels, "_modules", waiting)
    monkeypatch.setattr(kernels, "import_module", overtaken)
    kernels.select(RelLSTM, torch.zeros(1))
    assert waiting == {}
