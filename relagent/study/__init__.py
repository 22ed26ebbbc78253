"""Studies: many runs, each done once and kept as one file, and a page made of those files.

- :mod:`~relagent.study.task`: what a run is to everything here; :mod:`~relagent.study.work`: what
  doing one takes.
- :mod:`~relagent.study.transfer`: the study of Table 4 (agents in larger worlds).
- :mod:`~relagent.study.supervised`: the studies of Table 5 and its kind (sequence models).
- :mod:`~relagent.study.command`: doing a grid, and what its commands share.
- :mod:`~relagent.study.local`: a grid on this machine, a process (:mod:`~relagent.study.child`) for
  each core; :mod:`~relagent.study.cluster`: a grid on a Ray cluster.
- :mod:`~relagent.study.board`: the live table of all runs.
- :mod:`~relagent.study.result_file`, :mod:`~relagent.study.curve`: a finished run's file.
- :mod:`~relagent.study.report`: from result files to a page, with :mod:`~relagent.study.draw` and
  :mod:`~relagent.study.words`.
"""
