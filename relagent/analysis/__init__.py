"""How gradients travel through a memory: measurement, and the theory of Kerg et al. 2020.

Of any memory:

- :mod:`~relagent.analysis.gradients`: the gradients of its hidden states.
- :mod:`~relagent.analysis.decomposition`: the same, split by the number of recurrent factors.
- :mod:`~relagent.analysis.measures`: what it attends to, and which gradient attention carries.
- :mod:`~relagent.analysis.peak`: the memory that a pass takes.

Of a trained run, ``python -m relagent.analysis RUN``:

- :mod:`~relagent.analysis.sequences`, :mod:`~relagent.analysis.episode`: the inputs that
  it is examined on.
- :mod:`~relagent.analysis.findings`: the numbers, with :mod:`~relagent.analysis.symbols` on copy.
- :mod:`~relagent.analysis.report`: the page, with the pictures of
  :mod:`~relagent.analysis.draw` and :mod:`~relagent.analysis.attention_map`.

The theory, exactly:

- :mod:`~relagent.analysis.uniform` and, for its limits, :mod:`~relagent.analysis.decay`: Theorem 1.
- :mod:`~relagent.analysis.sparse`: dependency depth, and Theorem 2.

The figures, ``python -m relagent.analysis.figures``:

- :mod:`~relagent.analysis.figures`: one command each.
- :mod:`~relagent.analysis.theorem_figures`: those of the theory;
  :mod:`~relagent.analysis.trained_figures`: those of the models that
  :mod:`~relagent.analysis.trained` trains and :mod:`~relagent.analysis.kept` remembers.

Equation numbers are those of the appendix; ``docs/appendix_misprints.md`` lists where it had to be
corrected, and why.
"""
