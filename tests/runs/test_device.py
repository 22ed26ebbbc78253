from __future__ import annotations

import pytest
import torch

from relagent.runs.device import DeviceError, computing_device


def test_only_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(computing_device(name)) for name in ("auto", "cpu", "cuda", "cuda:1")] == [
        *("cuda", "cpu", "cuda", "cuda:1")
    ]
    with pytest.raises(DeviceError, match="no cuda:7 here: choose cuda, or cuda:0 to cuda:1"):
        computing_device("cuda:7")
    for name in ("tpu", "meta", "cuda:x"):
        with pytest.raises(DeviceError, match="unknown device"):
            computing_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no CUDA device"):
        computing_device("cuda:0")
    assert computing_device("auto") == torch.device("cpu")
