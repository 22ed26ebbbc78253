"""The study behind ``results/table4``: agents with a memory, in larger worlds than their own.

- :mod:`~relagent.study.transfer.protocol`: one settings file for each protocol, shared by all
  memories.
- :mod:`~relagent.study.transfer.task`: the cells of the grid and their order.
- :mod:`~relagent.study.transfer.run`: one cell: train, play, write one result file.
- :mod:`~relagent.study.transfer.results`: that file.
- :mod:`~relagent.study.transfer.aggregate`: interquartile mean, performance profile, probability
  of improvement.
- :mod:`~relagent.study.transfer.report`: tables, figures and the page that explains them.
- :mod:`~relagent.study.transfer.watch`: an episode as a film, with what the memory looks at.
"""
