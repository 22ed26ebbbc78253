"""The GPU kernels are the definitions: in Triton's interpreter, and on a GPU where there is one."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

from relagent.memories import MEMORIES, Memory, kernels, make_memory
from relagent.memories.kernels import records, unroll
from tests.memories.equality import (
    DTYPES,
    KERNELS,
    assert_same,
    check_reset,
    everything,
    problem,
    shaken,
    spread_out,
)
from tests.memories.races import Races

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = find_spec("triton") is not None

interpreted = pytest.mark.skipif(
    not INTERPRETING,
    reason="test_the_kernels_in_tritons_interpreter runs it, with TRITON_INTERPRET=1",
)
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")
compiled = pytest.mark.skipif(INTERPRETING, reason="this is the interpreter")
on_a_gpu = pytest.mark.skipif(
    INTERPRETING or not HAS_TRITON or not torch.cuda.is_available(),
    reason="no GPU that torch and triton can use",
)


class Case(NamedTuple):
    """A memory."""

    name: str
    options: dict[str, Any]

    def make(self, n: int) -> Memory[Any]:
        torch.manual_seed(0)
        n = 2 ** (n.bit_length() - 1) if self.name == "goru" else n
        return shaken(make_memory(self.name, 3, n, **self.options))


CASES = [
    Case("rel", {"nu": 1, "rho": 0}),
    Case("rel", {"nu": 2, "rho": 1, "combine": "mean"}),
    Case("rel", {"nu": 3, "rho": 2}),
    Case("rel-rnn", {"nu": 1, "rho": 0, "nonlinearity": "relu", "combine": "mean"}),
    Case("rel-rnn", {"nu": 2, "rho": 1, "nonlinearity": "modrelu"}),
    Case("rel-rnn", {"nu": 3, "rho": 2, "nonlinearity": "tanh"}),
    Case("mem", {}),
    Case("mem-rnn", {"nonlinearity": "modrelu", "combine": "mean"}),
    Case("lstm", {}),
    Case("gru", {}),
    Case("goru", {}),
    Case("rnn", {"nonlinearity": "tanh"}),
    Case("exp-rnn", {"nonlinearity": "modrelu"}),
]
over_cases = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "-".join(map(str, (case.name, *case.options.values())))
)


@pytest.fixture
def triton_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the CPU go through the GPU's kernels, interpreted."""
    from relagent.memories.kernels import cuda

    monkeypatch.setattr(kernels, "_modules", {})
    monkeypatch.setattr(kernels, "_registered", {})
    unroll.register_all("cpu", cuda.Triton())


def compare(
    memory: Memory[Any], steps: int, rows: int, before: int, chance: float = 0.2, **tolerance: float
) -> None:
    x, state, starts = problem(memory, steps, rows, before, chance)
    with kernels.disable():
        definition = everything(memory, x, state, starts)
    assert kernels.select(type(memory), x) is not None
    assert_same(everything(memory, x, state, starts), definition, **tolerance)


# ---------------------------------------------------------------- interpreted


@needs_triton
@compiled
def test_the_kernels_in_tritons_interpreter() -> None:
    """Triton has to know before it is imported that it interprets: in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    env = {**os.environ, "TRITON_INTERPRET": "1", "RELAGENT_KERNELS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= len(CASES), done.stdout


@interpreted
@over_cases
def test_an_interpreted_kernel_equals_the_definition(triton_on_the_cpu: None, case: Case) -> None:
    compare(case.make(16), steps=8, rows=5, before=4, values=1e-5, gradients=1e-4)


@interpreted
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "modrelu"])
def test_what_is_not_a_number_is_passed_on(triton_on_the_cpu: None, nonlinearity: str) -> None:
    memory = Case("rel-rnn", {"nonlinearity": nonlinearity}).make(16)
    x = torch.full((1, 2, 3), torch.nan)
    y, _ = memory.unroll(x, memory.initial_state(2))
    assert y.isnan().all()


@interpreted
def test_keys_that_are_known_change_nothing(triton_on_the_cpu: None) -> None:
    memory = Case("mem", {}).make(16)
    x, states = torch.randn(5, 2, 3), [memory.initial_state(2)] * 2
    starts = torch.tensor([[0, 0], [0, 0], [0, 1], [0, 0], [1, 0]]).bool()
    known: dict[Any, Any] = {}
    for t in range(len(x)):
        with torch.no_grad():
            y, states[0] = memory.unroll(x[t : t + 1], states[0], starts[t : t + 1])
            with kernels.constant_weights(known):
                found, states[1] = memory.unroll(x[t : t + 1], states[1], starts[t : t + 1])
        torch.testing.assert_close(found, y)
    assert known


@interpreted
@pytest.mark.parametrize("name", ["rel", "mem-rnn"])
def test_several_blocks_of_everything(triton_on_the_cpu: None, name: str) -> None:
    """Columns, slots and rows that do not fit into one block, and a width that has to grow."""
    from relagent.memories.kernels import cuda

    options = {"nu": 3, "rho": 2} if name == "rel" else {}
    assert cuda.COLUMNS < 40 and cuda.SLOTS < 5 and cuda.ROWS < 17
    memory = Case(name, options).make(40).double()
    compare(memory, steps=3, rows=17, before=5, values=1e-10, gradients=1e-10)


@interpreted
@pytest.mark.parametrize("silent", ["energies", "all"])
def test_ties_are_broken_as_in_the_definition(triton_on_the_cpu: None, silent: str) -> None:
    """Uniform attention gives equal scores, again and again."""
    memory = Case("rel", {"nu": 2, "rho": 3}).make(16)
    with torch.no_grad():
        if silent == "energies":
            memory.attention.energy_weight.zero_()  # type: ignore[operator]  # a module
        else:
            for parameter in memory.parameters():
                parameter.zero_()
    x, state, starts = problem(memory, steps=12, rows=5, before=0, chance=0.1)
    with torch.no_grad():
        for t in range(len(x)):
            _, after = memory.unroll(x[t : t + 1], state, starts[t : t + 1])
            with kernels.disable():
                _, expected = memory.unroll(x[t : t + 1], state, starts[t : t + 1])
            assert torch.equal(after.ages, expected.ages)
            assert torch.equal(after.scores, expected.scores)
            state = after


@interpreted
@pytest.mark.parametrize("name", ["rel", "mem"])
def test_nothing_before_a_reset_has_any_influence(triton_on_the_cpu: None, name: str) -> None:
    memory = make_memory(name, 3, 16)
    x, state, starts = problem(memory, steps=3, rows=4, before=5, chance=0.0)
    check_reset(memory, x, state, starts, torch.nan)


@interpreted
def test_parameters_may_lie_in_memory_as_they_like(triton_on_the_cpu: None) -> None:
    memory = make_memory("rel-rnn", 3, 4, nu=2, rho=1, nonlinearity="modrelu").double()
    spread_out(memory)
    compare(memory, steps=6, rows=3, before=2)


@interpreted
def test_a_second_backward_pass_repeats_the_first(triton_on_the_cpu: None) -> None:
    memory = make_memory("rel", 3, 16)
    x, state, starts = problem(memory, steps=4, rows=3, before=4, chance=0.1)
    loss = memory.unroll(x, state, starts)[0].square().sum()
    parameters = list(memory.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    second = torch.autograd.grad(loss, parameters, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@interpreted
@pytest.mark.parametrize(("name", "n"), [("rel", 40), ("mem-rnn", 40), ("lstm", 16), ("goru", 16)])
def test_no_thread_touches_what_another_writes(
    triton_on_the_cpu: None, monkeypatch: pytest.MonkeyPatch, name: str, n: int
) -> None:
    options: dict[str, Any] = {"nonlinearity": "modrelu"} if name.endswith("rnn") else {}
    options |= {"nu": 3, "rho": 2} if name.startswith("rel") else {}
    memory = Case(name, options).make(n)
    x, state, starts = problem(memory, steps=2, rows=17, before=5, chance=0.2)
    races = Races(monkeypatch)
    loss = memory.unroll(x, state, starts)[0].square().sum()
    races.owner.clear()  # a kernel begins when the one before it has ended
    torch.autograd.backward(loss)
    assert races.barriers > 10


# ---------------------------------------------------------------- compiled


@needs_triton
@compiled
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("remember", "cell", "n", "number", "capability"),
    [
        (records.RELEVANCY, records.LSTM, 64, "fp32", 90),
        (records.FULL, records.MODRELU, 32, "fp64", 75),
    ],
    ids=["rel-fp32-sm90", "mem-rnn-fp64-sm75"],
)
def test_a_kernel_compiles_for_a_gpu(
    direction: str, remember: int, cell: int, n: int, number: str, capability: int
) -> None:
    """To machine code: what the interpreter takes, the compiler may still refuse."""
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from relagent.memories.kernels import cuda, triton_recurrent

    vector = f"*{number}"
    types = {
        "given": triton_recurrent.Given("*u8", "*i32", "*i32", vector),
        "weights": triton_recurrent.Matrices(*[vector] * 4),
        "scratch": triton_recurrent.Scratch(vector, vector),
        "trail": records.Trail(*(vector,) * 5, "*i32", "*i32", vector),
        "gradients": records.Gradients(*[vector] * 7),
        **dict.fromkeys(["scores", "energies", "y", "d_y"], vector),
        **dict.fromkeys(["T", "B", "L", "WIDTH"], "i32"),
    }
    kernel = getattr(triton_recurrent, direction)
    constants = cuda.constants(records.Plan(remember, cell, True, 2), n, incoming=5)
    source = ASTSource(
        fn=kernel,
        signature={name: types.get(name, "constexpr") for name in kernel.arg_names},
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
    )
    target = GPUTarget("cuda", capability, 32)
    binary = compile(source, target=target, options=cuda.OPTIONS)
    assert len(binary.asm["cubin"]) > 0
    assert binary.metadata.shared <= 48 * 1024  # what every GPU gives to a program
    assert binary.asm["ttgir"].count(".barrier") >= 7
    assert "ld.global.nc" not in binary.asm["ptx"]  # through a cache that sees no writes


@needs_triton
@compiled
@pytest.mark.parametrize(
    ("remember", "cell", "steps", "widest"),
    [
        (records.PLAIN, records.LSTM, 8, 316),
        (records.PLAIN, records.TANH, 8, 632),
        (records.PLAIN, records.GORU, 1, 0),
        (records.FULL, records.LSTM, 1, 1024),
        (records.RELEVANCY, records.LSTM, 1, 465),
        (records.RELEVANCY, records.TANH, 8, 658),
    ],
)
def test_wide_memories_are_left_to_the_definition(
    remember: int, cell: int, steps: int, widest: int
) -> None:
    from relagent.memories.kernels import cuda

    plan = records.Plan(remember, cell, False, 0)
    paying = [n for n in range(1, 1025) if cuda.Triton().pays(plan, steps, n)]
    assert paying == list(range(1, widest + 1))


# ---------------------------------------------------------------- on a GPU


@on_a_gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "rows"), [(16, 5), (100, 70)])
@over_cases
def test_a_kernel_equals_the_definition_on_a_gpu(
    case: Case, n: int, rows: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    memory = case.make(n).to("cuda", dtype)
    for steps, before, chance in [(1, 0, 0.0), (1, 9, 0.5), (40, 0, 0.05), (40, 30, 0.05)]:
        compare(memory, steps, rows, before, chance)


# ---------------------------------------------------------------- dispatch


def somewhere(device: str) -> Any:
    """Stands for a tensor on a device that this machine may not have."""
    return SimpleNamespace(device=torch.device(device))


@needs_triton
@compiled
def test_a_gpu_gets_the_kernels_that_are_written_for_it() -> None:
    from relagent.memories.kernels import cuda

    for name, memory in MEMORIES.items():
        chosen: Any = kernels.select(memory, somewhere("cuda"))
        assert (chosen is not None) == (name in KERNELS)
        if chosen is not None:
            chosen = inspect.unwrap(
                chosen
            )  # torch.compile may have to be kept from looking into it
            assert chosen.func is unroll.UNROLLS[memory]
            assert isinstance(chosen.args[0], cuda.Triton)
        assert kernels.select(memory, somewhere("meta")) is None
        with kernels.disable():
            assert kernels.select(memory, somewhere("cuda")) is None


@compiled
@pytest.mark.parametrize(
    "obstacle",
    [
        "sys.modules['triton'] = None",
        "torch.cuda.is_available = lambda: True; torch.version.hip = '7'",
        "torch.cuda.is_available = lambda: True; os.environ['CUDA_VISIBLE_DEVICES'] = ''",
    ],
    ids=["no triton", "another maker's GPU", "a GPU that does not work"],
)
def test_where_triton_cannot_work_the_definition_runs(obstacle: str) -> None:
    code = (
        f"import os, sys, types, torch; {obstacle}\n"
        "import relagent.memories as m\n"
        "somewhere = types.SimpleNamespace(device=torch.device('cuda'))\n"
        "assert m.kernels.select(m.RelLSTM, somewhere) is None\n"
        "assert m.kernels.select(m.RelLSTM, torch.zeros(1)) is not None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
