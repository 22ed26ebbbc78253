"""How gradients travel through a memory: measurement, and the theory of Kerg et al. 2020.

* :mod:`~relagent.analysis.gradients` measures them, for any memory.
* :mod:`~relagent.analysis.report` makes a page of any run: ``python -m relagent.analysis RUN``.
* :mod:`~relagent.analysis.decomposition` takes them apart by the number of recurrent factors.
* :mod:`~relagent.analysis.uniform` has the sums for uniform attention, exactly, and
  :mod:`~relagent.analysis.decay` what they tend to: Theorem 1.
* :mod:`~relagent.analysis.sparse` has the dependency depth, and Theorem 2.

Equation numbers are those of the appendix; ``docs/appendix_misprints.md`` lists where it had to be
corrected, and why.
"""
