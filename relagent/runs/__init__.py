"""What a training run is on disk and on the command line, whatever it trains.

- :mod:`~relagent.runs.config`: settings as a frozen dataclass; the command line made from it.
- :mod:`~relagent.runs.directory`: the folder of a run: settings, provenance, metrics, checkpoints.
- :mod:`~relagent.runs.packing`: any nested state as named tensors plus JSON, and back.
- :mod:`~relagent.runs.checkpoint`: one file a checkpoint; :mod:`~relagent.runs.files`: files that
  are there whole or not at all.
- :mod:`~relagent.runs.random_states`: every global random stream, taken and put back.
- :mod:`~relagent.runs.resuming`: what going on with a run may change.
- :mod:`~relagent.runs.provenance`: versions and commit; :mod:`~relagent.runs.machine`: the machine
  in words; :mod:`~relagent.runs.device`: what it computes on; :mod:`~relagent.runs.allocator`:
  memory that is kept between updates.
- :mod:`~relagent.runs.progress`: how far training is.
- :mod:`~relagent.runs.cli`: one-line errors, exit codes and a graceful stop.
"""
