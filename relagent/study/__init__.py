"""The study behind ``results/table4``: many runs, their report, and a film of what a memory does.

- :mod:`~relagent.study.protocol`: one settings file for each protocol, shared by all memories.
- :mod:`~relagent.study.tasks`: the cells of the grid and their order.
- :mod:`~relagent.study.execute`: one cell: train, play, write one result file.
- :mod:`~relagent.study.results`: that file.
- :mod:`~relagent.study.local`: the grid on this machine, a process for each core.
- :mod:`~relagent.study.cluster`: the grid on a Ray cluster.
- :mod:`~relagent.study.aggregate`: interquartile mean, performance profile, probability of
  improvement.
- :mod:`~relagent.study.report`: tables, figures and the page that explains them.
- :mod:`~relagent.study.watch`: an episode as a film, with what the memory looks at.
"""
