"""The supervised study: memories on copy, denoise, sequential MNIST and PTB.

- :mod:`~relagent.study.supervised.command`: its commands.
- :mod:`~relagent.study.supervised.grid`: which memories and delays, and the paper's numbers.
- :mod:`~relagent.study.supervised.task`: one cell: what it is called, and when it is done.
- :mod:`~relagent.study.supervised.run`: train it, score it at other delays, write one file.
- :mod:`~relagent.study.supervised.result`: that file.
- :mod:`~relagent.study.supervised.view`, :mod:`~relagent.study.supervised.tables`,
  :mod:`~relagent.study.supervised.figures`, :mod:`~relagent.study.supervised.page`,
  :mod:`~relagent.study.supervised.report`: the page made of all files.
- :mod:`~relagent.study.supervised.peak`: peak memory against the delay.
"""
