"""Copies to a GPU and back, with functions of this machine in place of the driver's."""

from __future__ import annotations

import ctypes
import os
import threading

import numpy as np
import pytest

from mxtrt._transfer import Transfer

KIB = 1 << 10
SIZES = [
    0, 1, 63, 4 * KIB + 1, 256 * KIB - 1, 256 * KIB, 600 * KIB + 7, 1024 * KIB, 1500 * KIB + 3,
    5000 * KIB + 13,
]  # fmt: skip


class Driver:
    """Remembers what is copied to the device; copies and launches return `status`."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []
        self.launched: list[int] = []
        self.pinned: list[range] = []  # addresses of arrays
        self.status = {"to_device": 0, "to_host": 0, "launch": 0, "synchronize": 0}
        word, pointer, number = ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t
        self.functions = [
            ctypes.CFUNCTYPE(ctypes.c_int, word, pointer, number, pointer)(self.to_device),
            ctypes.CFUNCTYPE(ctypes.c_int, pointer, word, number, pointer)(self.to_host),
            ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer)(self.launch),
            ctypes.CFUNCTYPE(ctypes.c_int, pointer)(lambda stream: self.status["synchronize"]),
            ctypes.CFUNCTYPE(ctypes.c_int, pointer, ctypes.c_int, word)(self.attribute),
        ]
        self.addresses = [ctypes.cast(f, ctypes.c_void_p).value for f in self.functions]

    def to_device(self, device: int, host: int, nbytes: int, stream: int) -> int:
        self.sent.append((device, nbytes))
        ctypes.memmove(device, host, nbytes)
        return self.status["to_device"]

    def to_host(self, host: int, device: int, nbytes: int, stream: int) -> int:
        ctypes.memmove(host, device, nbytes)
        return self.status["to_host"]

    def attribute(self, value: int, attribute: int, address: int) -> int:
        assert attribute == 2
        if not any(address in addresses for addresses in self.pinned):
            return 1  # what the driver says of memory that it does not know
        ctypes.c_uint.from_address(value).value = 1
        return 0

    def launch(self, graph: int, stream: int) -> int:
        self.launched.append(graph)
        return self.status["launch"]


class Tensor:
    """An array of bytes, its pinned memory and its place on the device."""

    def __init__(self, nbytes: int, seed: int = 0) -> None:
        self.array = np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8)
        self.pinned, self.device = np.zeros(nbytes, np.uint8), np.zeros(nbytes, np.uint8)
        self.place = self.pinned.ctypes.data, self.device.ctypes.data, nbytes
        self.address = self.array.ctypes.data


def transfer(driver: Driver, inputs, outputs) -> Transfer:
    """Return a transfer; the driver, whose functions it calls by address, has to live as long."""
    places = [tensor.place for tensor in inputs], [tensor.place for tensor in outputs]
    return Transfer(driver.addresses, 7, *places)


@pytest.mark.parametrize("sizes", [[size] for size in SIZES] + [SIZES])
def test_all_bytes_arrive_in_order(sizes):
    driver, tensors = Driver(), [Tensor(size, size) for size in sizes]
    copies = transfer(driver, tensors, [])
    for _ in range(3):
        driver.sent.clear()
        for tensor in tensors:
            tensor.device[:] = 0
        assert copies.upload([tensor.address for tensor in tensors]) == 0
        for tensor in tensors:
            np.testing.assert_array_equal(tensor.device, tensor.array)
    for tensor in tensors:
        at = tensor.device.ctypes.data
        for address, nbytes in driver.sent:
            if at <= address < tensor.device.ctypes.data + tensor.array.size:
                assert address == at
                at += nbytes
        assert at == tensor.device.ctypes.data + tensor.array.size


def test_large_arrays_past_the_caches():
    tensor = Tensor((20 << 20) + 5)
    driver = Driver()
    copies = transfer(driver, [tensor], [tensor])
    assert copies.upload([tensor.address]) == 0
    np.testing.assert_array_equal(tensor.device, tensor.array)
    tensor.device[:] = tensor.device[::-1].copy()
    assert copies.download([tensor.address]) == 0
    np.testing.assert_array_equal(tensor.array, tensor.device)


def test_what_is_in_pinned_memory_already():
    driver, tensor = Driver(), Tensor(1000)
    tensor.pinned[:] = 9
    copies = transfer(driver, [tensor], [tensor])
    assert copies.upload([0]) == 0
    assert (tensor.device == 9).all()
    tensor.device[:] = 8
    before = tensor.array.copy()
    assert copies.download([0]) == 0
    assert (tensor.pinned == 8).all()
    np.testing.assert_array_equal(tensor.array, before)


def test_arrays_in_pinned_memory_are_not_copied_there():
    driver, x, y = Driver(), Tensor(600 * KIB), Tensor(400 * KIB, 1)
    for tensor in (x, y):
        driver.pinned.append(range(tensor.address, tensor.address + tensor.array.nbytes))
    y.device[:] = 5
    assert transfer(driver, [x], [y]).replay([x.address], 1, [y.address]) == 0
    np.testing.assert_array_equal(x.device, x.array)
    assert driver.sent == [(x.device.ctypes.data, 600 * KIB)]
    assert (y.array == 5).all()
    assert not x.pinned.any()
    assert not y.pinned.any()


@pytest.mark.parametrize("part", [slice(None, -1), slice(1, None)])
def test_arrays_of_which_a_part_is_pinned(part):
    driver, x = Driver(), Tensor(600 * KIB)
    driver.pinned.append(range(x.address, x.address + x.array.nbytes)[part])
    copies = transfer(driver, [x], [x])
    assert copies.upload([x.address]) == 0
    np.testing.assert_array_equal(x.pinned, x.array)
    assert copies.download([x.address]) == 0
    np.testing.assert_array_equal(x.array, x.device)


def test_a_graph_is_launched_in_between():
    driver, x, y = Driver(), Tensor(300 * KIB), Tensor(400 * KIB, 1)
    y.device[:] = 5
    assert transfer(driver, [x], [y]).replay([x.address], 1234, [y.address]) == 0
    np.testing.assert_array_equal(x.device, x.array)
    assert (y.array == 5).all()
    assert driver.launched == [1234]


@pytest.mark.parametrize("where", ["to_device", "to_host", "launch", "synchronize"])
@pytest.mark.parametrize("nbytes", [100, 600 * KIB, 3000 * KIB])
def test_errors_are_returned(where, nbytes):
    driver, tensor = Driver(), Tensor(nbytes)
    before = tensor.array.copy()
    copies = transfer(driver, [tensor], [tensor])
    driver.status[where] = 700
    assert copies.replay([tensor.address], 1, [tensor.address]) == 700
    np.testing.assert_array_equal(tensor.array, before)
    driver.status[where] = 0
    assert copies.replay([tensor.address], 1, [tensor.address]) == 0


def test_a_wrong_number_of_arrays():
    with pytest.raises(ValueError, match="2 arrays were given where 1 are expected"):
        transfer(Driver(), [Tensor(1)], []).upload([0, 0])


def test_threads_copy_at_once():
    wrong = []

    def work(seed: int) -> None:
        tensor, driver = Tensor(1500 * KIB + seed, seed), Driver()
        copies = transfer(driver, [tensor], [])
        for _ in range(20):
            tensor.device[:] = 0
            copies.upload([tensor.address])
            if not np.array_equal(tensor.device, tensor.array):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_after_a_fork():
    tensor, driver = Tensor(2000 * KIB), Driver()
    copies = transfer(driver, [tensor], [])
    copies.upload([tensor.address])
    child = os.fork()
    if child == 0:
        tensor.device[:] = 0
        failed = copies.upload([tensor.address]) or not np.array_equal(tensor.device, tensor.array)
        os._exit(int(bool(failed)))
    assert os.waitpid(child, 0)[1] == 0
