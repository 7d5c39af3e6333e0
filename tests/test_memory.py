"""Memory is handed out again once nobody holds it, and not before."""

import copy
import gc
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastcnn as fc
from fastcnn_kernels import memory, recycled

LARGE = (4, recycled.SMALLEST_BLOCK // 4)


@pytest.fixture(autouse=True)
def fresh():
    fc.clear_cache()
    yield
    fc.set_memory_limit(recycled.DEFAULT_LIMIT)


def address(array):
    return array.__array_interface__["data"][0]


def test_is_an_ordinary_array():
    array = memory.empty(LARGE, np.float32)
    assert type(array) is np.ndarray
    assert (array.shape, array.dtype) == (LARGE, np.float32)
    assert array.flags.c_contiguous
    assert array.flags.aligned
    assert array.flags.writeable


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array,
        lambda array: array[1:, ::2],
        lambda array: array.T,
        lambda array: array.reshape(-1).view(np.int32)[5:],
        lambda array: memoryview(array),
        lambda array: np.asarray(array)[None],
    ],
)
def test_what_a_view_holds_is_not_handed_out(view):
    array = memory.empty(LARGE, np.float32)
    where = address(array)
    held = view(array)
    del array
    assert address(memory.empty(LARGE, np.float32)) != where
    del held
    others = [memory.empty(LARGE, np.float32) for _ in range(2)]
    assert where in map(address, others)


def test_results_are_recycled():
    x, w = np.ones((1, 4, 256, 256), np.float32), np.ones((8, 4, 1, 1), np.float32)
    first = fc.conv2d(x, w)
    where, before = address(first), fc.memory_stats()["reused"]
    kept = fc.conv2d(x, w)
    assert address(kept) != where
    del first
    again = fc.conv2d(x, w)
    assert address(again) == where
    assert fc.memory_stats()["reused"] > before
    np.testing.assert_array_equal(again, kept)


def test_limit_and_clear_cache():
    fc.set_memory_limit(3 * recycled.SMALLEST_BLOCK)
    arrays = [memory.empty(recycled.SMALLEST_BLOCK, np.uint8) for _ in range(5)]
    assert fc.memory_stats()["leased_bytes"] >= 5 * recycled.SMALLEST_BLOCK
    del arrays
    stats = fc.memory_stats()
    assert stats["kept_bytes"] == stats["limit_bytes"] == 3 * recycled.SMALLEST_BLOCK
    held = memory.empty(recycled.SMALLEST_BLOCK, np.uint8)
    held[:] = 7
    fc.clear_cache()
    assert fc.memory_stats()["kept_bytes"] == 0
    assert (held == 7).all()


def test_sizes_not_used_for_long_give_way():
    block = recycled.SMALLEST_BLOCK
    fc.set_memory_limit(4 * block)
    old = [memory.empty(block, np.uint8) for _ in range(4)]
    del old
    before = fc.memory_stats()["reused"]
    for _ in range(3):
        memory.empty(2 * block, np.uint8)
    stats = fc.memory_stats()
    assert stats["reused"] == before + 2
    assert stats["kept_bytes"] == 4 * block
    memory.empty(5 * block, np.uint8)  # more than fits: nothing gives way
    assert fc.memory_stats()["kept_bytes"] == 4 * block


def test_limit_of_zero_turns_the_reuse_off():
    fc.set_memory_limit(0)
    before = fc.memory_stats()
    memory.empty(LARGE, np.float32)
    assert fc.memory_stats() == before


def test_lowering_the_limit_frees_what_is_kept():
    memory.empty(LARGE, np.float32)
    assert fc.memory_stats()["kept_bytes"] > 0
    fc.set_memory_limit(1)
    assert fc.memory_stats()["kept_bytes"] == 0


def test_clear_cache_forgets_plans():
    fc.conv2d(np.ones((1, 1, 5, 5)), np.ones((1, 1, 3, 3)), backend="cython")
    assert fc.memory_stats()["plans"] > 0
    fc.clear_cache()
    assert fc.memory_stats()["plans"] == 0


@pytest.mark.parametrize("nbytes", [1, 7, 8, 1000, 2**18, 2**18 + 1, 2**20 - 1, 123_456_789])
def test_size_classes_waste_an_eighth_at_most(nbytes):
    assert nbytes <= recycled.size_class(nbytes) <= nbytes * 9 / 8 + 1
    assert recycled.size_class(recycled.size_class(nbytes)) == recycled.size_class(nbytes)


@pytest.mark.parametrize(("bad", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError), ("1", TypeError)])
def test_bad_limit(bad, error):
    with pytest.raises(error, match="nbytes: got"):
        fc.set_memory_limit(bad)
    fc.set_memory_limit(np.int64(2**40))
    assert fc.memory_stats()["limit_bytes"] == 2**40


@pytest.mark.parametrize("limit", [0, recycled.DEFAULT_LIMIT])
def test_large_arrays_begin_at_a_cache_line(limit):
    fc.set_memory_limit(limit)
    for size in (recycled.SMALLEST_ALIGNED, recycled.SMALLEST_BLOCK, 3 * recycled.SMALLEST_BLOCK + 4):
        for array in (memory.empty((1, size // 4), np.float32), memory.empty(size // 8, np.float64)):
            assert address(array) % recycled.ALIGNMENT == 0
            assert array.flags.c_contiguous
            array[...] = 1


def test_blocks_given_back_by_the_garbage_collector_while_another_is():
    hold = [[] for _ in range(5000)]  # the interpreter keeps no spare lists: the next one may collect garbage
    first, second = (memory.empty(LARGE, np.float32) for _ in range(2))
    cycle = [first]
    cycle.append(cycle)
    thresholds = gc.get_threshold()
    gc.disable()
    del cycle, first
    gc.set_threshold(1, 1, 1)
    gc.enable()
    try:
        del second
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    before = fc.memory_stats()
    assert before["kept_bytes"] == 2 * recycled.size_class(4 * LARGE[0] * LARGE[1])
    held = [memory.empty(LARGE, np.float32) for _ in range(2)]
    assert fc.memory_stats()["reused"] == before["reused"] + len(held)
    fc.set_memory_limit(0)
    assert len(hold) == 5000


def test_a_lease_is_nobody_elses():
    array = memory.empty(LARGE, np.float32)
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        copy.copy(array.base)
    type(array.base)()
    assert address(memory.empty(LARGE, np.float32)) != address(array)
    assert address(copy.copy(array)) != address(array)


def test_threads_never_share_a_block():
    wrong = []

    def work(mark):
        for _ in range(200):
            array = memory.empty(recycled.SMALLEST_BLOCK, np.uint8)
            array[::4096] = mark
            if not (array[::4096] == mark).all():
                wrong.append(mark)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    stats = fc.memory_stats()
    assert stats["kept_bytes"] <= 8 * recycled.SMALLEST_BLOCK


OUT_OF_MEMORY = """
import resource
import numpy as np
from fastcnn_kernels import memory

MiB = 1 << 20
memory.set_memory_limit(1024 * MiB)
memory.empty(768 * MiB, np.uint8)
assert memory.memory_stats()["kept_bytes"] == 768 * MiB
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
# Room for what malloc reserves when it fails, too: some 64 MiB of addresses.
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * MiB, resource.RLIM_INFINITY))
array = memory.empty(640 * MiB, np.uint8)
assert memory.memory_stats()["kept_bytes"] == 0
held = memory.memory_stats()
try:
    memory.empty(640 * MiB, np.uint8)
except MemoryError:
    assert memory.memory_stats() == held
    print("as it should be")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the size of the process")
def test_failed_allocation_frees_what_is_kept_and_tries_again():
    done = subprocess.run([sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True, check=False)
    assert done.stdout == "as it should be\n", done.stderr
