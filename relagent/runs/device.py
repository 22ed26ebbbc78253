"""The device that a run computes on."""

from __future__ import annotations

import torch

from relagent.errors import RelagentError


class DeviceError(RelagentError):
    """A device that is not there."""


def computing_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is CUDA where there is one.

    Raises:
        DeviceError: no such kind of device, or none here, or none of that number.
    """
    there = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:  # no name of a device at all
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise DeviceError(f"unknown device {name!r}: choose auto, cpu or cuda")
    if name.startswith("cuda") and not there:
        raise DeviceError("no CUDA device is to be had here: choose --device cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise DeviceError(f"there is no {name} here: choose cuda, or cuda:0 to cuda:{last}")
    return device
