"""The figures of the two theorems: computed exactly, without any training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from relagent.analysis import decay, sparse


def theorem1() -> Figure:
    """Uniform attention: ‖ds_T/dh_t‖ against T, and its exponent: measured, corrected, printed."""
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    curves, real, plane = figure.subplots(1, 3)
    t = 2
    times = sorted({int(T) for T in np.geomspace(t, 1e5, 80)})
    tail = [T for T in times if T >= 1e4]
    generator = np.random.default_rng(0)

    def measure(eigenvalue: complex) -> tuple[np.ndarray, float]:
        V = decay.normal_matrix([eigenvalue], generator)
        norms = decay.uniform_jacobian_norms(V, t, times)
        return norms, decay.fit_exponent(tail, norms[-len(tail) :])

    shown: list[complex] = [0.6, 0.5, 0.3, 0.0, -0.5, -0.9, 0.6 + 0.6j]
    measured: dict[complex, float] = {}
    for index, eigenvalue in enumerate(shown):
        norms, measured[eigenvalue] = measure(eigenvalue)
        label = f"λ = {_number(eigenvalue)}:  T^{measured[eigenvalue]:+.3f}"
        curves.loglog(times, norms, color=f"C{index}", label=label)
        scale = abs(decay.leading_term(eigenvalue, t, tail[0])) / tail[0] ** decay.exponent(
            [eigenvalue]
        )
        pair = np.sqrt(2) if np.imag(eigenvalue) else 1
        line = pair * scale * np.array(times, float) ** decay.exponent([eigenvalue])
        curves.loglog(times, line, color=f"C{index}", ls=":", lw=1)
    curves.set(
        xlabel="T",
        ylabel=f"‖ds_T / dh_{t}‖",
        ylim=(1e-8, 1e9),
        title="norm (solid), leading term (dotted),\nfitted exponent for T in 1e4..1e5",
    )
    curves.legend(fontsize=8, loc="upper left", ncols=2)

    grid = np.linspace(-0.98, 0.7, 300)
    real.plot(grid, [decay.exponent([z]) for z in grid], "C0", label="Re λ/(1-λ) - 1, corrected")
    real.plot(
        grid,
        [decay.printed_exponent([z]) for z in grid],
        "C3--",
        label="-min(1, 1 - Re λ), printed",
    )
    points = np.linspace(-0.9, 0.7, 17)
    slopes = [measure(float(z))[1] for z in points]
    real.plot(points, slopes, "ko", ms=4, label="measured")
    real.axhline(-1, color="0.7", lw=0.8)
    real.set(xlabel="real eigenvalue λ", ylabel="exponent of T", title="exponent, real λ")
    real.legend(fontsize=8)

    _draw_exponent_over_disc(figure, plane)
    plane.plot(
        [np.real(z) for z in shown], [np.imag(z) for z in shown], "ko", ms=3, mfc="w", zorder=3
    )
    return figure


def _draw_exponent_over_disc(figure: Figure, axes: Axes) -> None:
    """Colour the open unit disc by the corrected exponent; outline where Ω(1/T) holds."""
    x, y = np.meshgrid(np.linspace(-1, 1, 401), np.linspace(-1, 1, 401))
    z = x + 1j * y
    inside = np.abs(z) < 0.999
    values = np.full(z.shape, np.nan)
    values[inside] = (z[inside] / (1 - z[inside])).real - 1
    norm = TwoSlopeNorm(vmin=-1.5, vcenter=-1, vmax=1)
    image = axes.pcolormesh(x, y, values, cmap="RdBu_r", norm=norm, shading="auto")
    figure.colorbar(image, ax=axes, label="exponent of T", extend="max")
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
    axes.plot(circle.real, circle.imag, "0.4", lw=1)
    axes.plot(0.5 + circle.real / 2, circle.imag / 2, "k", lw=1.5)
    axes.set(
        xlabel="Re λ",
        ylabel="Im λ",
        aspect="equal",
        title="corrected exponent over |λ| < 1;\nΩ(1/T) holds inside the black circle",
    )


def theorem2() -> Figure:
    """Sparse attention: |p(λ)| on chains against κ and d, with the bound λ^d/κ^(d+1)."""
    eigenvalue = 0.5
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    by_kappa, by_depth, printed = figure.subplots(1, 3)
    kappas, depths = [1, 2, 3, 4, 6, 8, 12, 16], range(7)
    p = np.array([[_chain_value(eigenvalue, kappa, d) for d in depths] for kappa in kappas])

    for d in depths:
        slope = decay.fit_exponent(kappas[-4:], p[-4:, d])
        by_kappa.loglog(kappas, p[:, d], f"C{d}o-", ms=4, label=f"d = {d}:  κ^{slope:.2f}")
        bound = [sparse.lower_bound(eigenvalue, kappa, d) for kappa in kappas]
        by_kappa.loglog(kappas, bound, f"C{d}:", lw=1)
    by_kappa.set(
        xlabel="κ",
        ylabel="p(λ) at a late step",
        title=f"λ = {eigenvalue}: p(λ) (solid), bound λ^d/κ^(d+1) (dotted),\n"
        "fitted power for κ in 6..16",
    )
    by_kappa.legend(fontsize=8, loc="lower left")

    for index, kappa in enumerate(kappas[:4] + kappas[5::2]):
        row = kappas.index(kappa)
        by_depth.semilogy(depths, p[row], f"C{index}o-", ms=4, label=f"κ = {kappa}")
        bound = [sparse.lower_bound(eigenvalue, kappa, d) for d in depths]
        by_depth.semilogy(depths, bound, f"C{index}:", lw=1)
    by_depth.set(xlabel="dependency depth d", ylabel="p(λ)", title="the same against d")
    by_depth.legend(fontsize=8, loc="lower left")

    for d in depths:
        printed.loglog(kappas, p[:, d] * np.array(kappas, float) ** d, f"C{d}o-", ms=4)
        corrected = p[:, d] * np.array(kappas, float) ** (d + 1)
        printed.loglog(kappas, corrected, f"C{d}s--", ms=3, mfc="w", lw=0.8)
    printed.set(
        xlabel="κ",
        ylabel="scaled p(λ), colours as on the left",
        title="p·κ^d (dots) falls as 1/κ: the printed rate fails;\np·κ^(d+1) (squares) stays",
    )
    for axes in (by_kappa, printed):
        axes.set_xticks(kappas, labels=map(str, kappas))
        axes.minorticks_off()
    return figure


def _chain_value(eigenvalue: float, kappa: int, depth: int) -> float:
    # A wide gap leaves the attention as the only way: the direct path has decayed as λ^gap.
    pattern, t = sparse.chain_pattern(kappa, depth, steps=kappa + 400, gap=50)
    return sparse.path_polynomials(pattern, t, eigenvalue)[-1]


def _number(z: complex) -> str:
    return f"{np.real(z):g}" if np.imag(z) == 0 else f"{np.real(z):g} ± {abs(np.imag(z)):g}i"


THEOREM_FIGURES: dict[str, Callable[[], Figure]] = {"theorem1": theorem1, "theorem2": theorem2}
"""By the name that the command uses; a new figure is a function and one line."""
