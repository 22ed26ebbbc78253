"""Supervised tasks with long dependencies, for the same memories that agents have.

- :mod:`~relagent.tasks.base`: what a task and a batch are.
- :mod:`~relagent.tasks.copy`, :mod:`~relagent.tasks.denoise`, :mod:`~relagent.tasks.mnist`,
  :mod:`~relagent.tasks.ptb`: one task a file, with its own of the settings in
  :mod:`~relagent.tasks.config`.
- :mod:`~relagent.tasks.data`: where data are and how they are read.
- :mod:`~relagent.tasks.defaults`: the settings of each (task, memory) pair, from the paper.
- :mod:`~relagent.tasks.model`: the model around a memory.
- :mod:`~relagent.tasks.train`: the training loop, with :mod:`~relagent.tasks.evaluate` and
  :mod:`~relagent.tasks.record`; :mod:`~relagent.tasks.run`: what a run is made of.
- :mod:`~relagent.tasks.transfer`: trained at one delay, scored at others.

``python -m relagent.tasks copy --memory rel-rnn --T 1000`` trains.
"""
