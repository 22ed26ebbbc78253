"""The study behind ``results/table4``: agents with a memory, in larger worlds than their own.

- :mod:`~relagent.study.transfer.command`: its commands.
- :mod:`~relagent.study.transfer.protocol`: one settings file for each protocol, shared by all
  memories.
- :mod:`~relagent.study.transfer.task`: the cells of the grid and their order.
- :mod:`~relagent.study.transfer.run`: one cell: train, play, write one result file.
- :mod:`~relagent.study.transfer.results`: that file; :mod:`~relagent.study.transfer.keep`: the
  policy beside it.
- :mod:`~relagent.study.transfer.aggregate`: interquartile mean, performance profile, probability
  of improvement.
- :mod:`~relagent.study.transfer.untold`: the most that an agent can earn that is not told its goal.
- :mod:`~relagent.study.transfer.view`, :mod:`~relagent.study.transfer.tables`,
  :mod:`~relagent.study.transfer.figures`, :mod:`~relagent.study.transfer.page`,
  :mod:`~relagent.study.transfer.report`: the page made of all files.
- :mod:`~relagent.study.transfer.episode`, :mod:`~relagent.study.transfer.watch`: an episode as a
  film, with what the memory looks at.
"""
