"""Results do not depend on threads; many callers, forked and spawned children get them too."""

import sys
import threading
import types

import numba
import numpy as np
import pytest
from numba.np.ufunc.parallel import NUM_THREADS

import fastcnn as fc
from fastcnn import threads
from fastcnn_kernels import recall, table
from fastcnn_kernels.numba_support import threaded

# Large enough for each op to pass the threshold below which a call stays on one thread. Processes of their own run
# few ops, Numba's those with the least to compile, because Numba compiles anew in each.
SCRIPT = """
import numpy as np
import fastcnn as fc

def cases(dtype):
    rng = np.random.default_rng(0)
    array = lambda *shape: rng.standard_normal(shape).astype(dtype)
    x, w, b, dy = array(5, 8, 33, 31), array(12, 4, 3, 3), array(12), array(5, 12, 17, 16)
    options = dict(stride=2, padding=1, groups=2)
    back = lambda mask: fc.conv2d_backward(dy, x, w, output_mask=mask, **options)
    a, m, bias = array(530, 70), array(190, 70), array(190)
    rows, wide, long = array(3, 5, 70), array(530, 190), array(190, 900)
    bias_dy = array(5, 24, 100, 100)
    return {
        "conv2d": lambda: fc.conv2d(x, w, b, **options),
        "conv2d_grad_input": lambda: back((True, False, False))[0],
        "conv2d_grad_weight": lambda: back((False, True, False))[1],
        "conv2d_grad_bias": lambda: fc.conv2d_backward(
            bias_dy, bias_dy, np.ones((24, 1, 1, 1), dtype), groups=24, output_mask=(False, False, True))[2],
        "matmul": lambda: fc.matmul(a, m.T),
        "matmul_batch": lambda: fc.matmul(np.stack([a, a]), np.stack([m.T, m.T])),
        "matmul_columns": lambda: fc.matmul(wide[:100], wide.T),
        "matmul_stream": lambda: fc.matmul(wide[:9], long),
        "linear": lambda: fc.linear(np.repeat(rows, 30, axis=0), m, bias),
        "linear_outer": lambda: fc.linear(long[:40], long, bias),
        "linear_dots": lambda: fc.linear(long[:4], long, bias),
        "linear_backward": lambda: fc.linear_backward(wide, a, m, output_mask=(True, True, False))[1],
    }

def results(dtype="float32", names=None):
    return {name: case() for name, case in cases(dtype).items() if names is None or name in names}

def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)
"""
FIRST = {"numpy": "conv2d", "cython": "conv2d", "numba": "matmul_stream"}
space: dict = {}
exec(SCRIPT, space)


@pytest.mark.parametrize("backend", table.BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bitwise_equal_for_any_number_of_threads(backend, dtype):
    with fc.use_backend(backend):
        expected = None
        for number in (1, 2, 3, 4, 8):
            fc.set_num_threads(number)
            got = space["results"](dtype)
            expected = expected or got
            for name, value in got.items():
                np.testing.assert_array_equal(value, expected[name], err_msg=f"{name}, {number} threads")


@pytest.mark.parametrize("backend", table.BACKENDS)
def test_every_case_passes_the_threshold(backend, monkeypatch):
    seen = []
    monkeypatch.setattr(threads, "acquire", lambda work, least: seen.append((work, least)) or 1)
    recall.forget()
    with fc.use_backend(backend):
        space["results"]()
    assert len(seen) == 13  # one of the twelve has two steps
    assert all(work >= least for work, least in seen)


@pytest.fixture
def numbers(rows, monkeypatch):
    """Thread counts a fake conv2d kernel was called with."""
    seen = []
    module = types.ModuleType("fake_kernels")

    def conv2d(*, x, num_threads, **_):
        seen.append(num_threads)
        if np.isnan(x).any():
            raise ArithmeticError

    module.conv2d = conv2d
    monkeypatch.setitem(sys.modules, "fake_kernels", module)
    rows.insert(0, table.Kernel("fake", "conv2d", "numpy", "fake_kernels", "conv2d"))
    return seen


SMALL = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
LARGE = np.ones((1, 16, 64, 64), np.float32), np.ones((16, 16, 3, 3), np.float32)


def test_small_work_stays_on_one_thread(numbers):
    fc.set_num_threads(7)
    fc.conv2d(*SMALL)
    fc.conv2d(*LARGE)
    assert numbers == [1, 7]


def test_recalled_calls_take_turns(numbers, monkeypatch):
    x, weight = LARGE
    fc.set_num_threads(3)
    fc.conv2d(x, weight)
    monkeypatch.setattr(threads, "acquire", None)  # which only the first call goes through
    fc.conv2d(x, weight)
    with threads.busy:
        fc.conv2d(x, weight)
    with pytest.raises(ArithmeticError):
        fc.conv2d(np.full_like(x, np.nan), weight)
    assert not threads.busy.locked()
    fc.conv2d(x, weight)
    assert numbers == [3, 3, 1, 3, 3]
    assert not threads.busy.locked()


def test_second_caller_gets_one_thread(numbers):
    fc.set_num_threads(2)
    assert threads.acquire(10**9, 0) == 2
    try:
        fc.conv2d(*LARGE)
    finally:
        threads.release()
    fc.conv2d(*LARGE)
    assert numbers == [1, 2]


def test_threads_are_released_after_an_error(rows, numbers):
    fc.set_num_threads(2)
    rows.insert(0, table.Kernel("broken", "conv2d", "numpy", "fake_kernels", "missing"))
    fc.dispatch.forget()
    with pytest.raises(AttributeError, match="missing"):
        fc.conv2d(*LARGE)
    del rows[0]
    fc.dispatch.forget()
    fc.conv2d(*LARGE)
    assert numbers == [2]


def test_numbas_own_number_of_threads_is_left_alone():
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        fc.set_num_threads(2)
        fc.conv2d(*LARGE, backend="numba")
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)


def test_more_workers_than_numba_has_threads_all_do_their_share():
    @threaded
    def mark(done, worker, workers):
        done[worker] = workers

    done = np.zeros(NUM_THREADS + 3)
    mark(len(done), done)
    np.testing.assert_array_equal(done, len(done))


def test_set_and_get():
    fc.set_num_threads(np.int8(3))
    assert fc.get_num_threads() == 3
    fc.set_num_threads(1024)
    assert fc.get_num_threads() == 1024


def test_default_is_the_usable_cpus(python):
    script = """
import os
import fastcnn as fc
print(fc.get_num_threads() == len(os.sched_getaffinity(0)))
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
fc.threads._default.cache_clear()
print(fc.get_num_threads())
"""
    assert python(script, env={"FASTCNN_NUM_THREADS": ""}).split() == ["True", "1"]


def test_environment_variable_sets_the_number(python):
    env = {"FASTCNN_NUM_THREADS": "5"}
    show = "print(fc.get_num_threads())"
    script = f"import fastcnn as fc; {show}; fc.set_num_threads(2); {show}"
    assert python(script, env=env).split() == ["5", "2"]


@pytest.mark.parametrize("value", ["0", "-1", "x", "2.5", "1000000000", "1e3"])
def test_bad_environment_variable_is_named(python, value):
    script = """
import fastcnn as fc
try:
    fc.get_num_threads()
except ValueError as error:
    print(error)
"""
    text = python(script, env={"FASTCNN_NUM_THREADS": value}).strip()
    assert text == (f"environment variable FASTCNN_NUM_THREADS: got {value!r}, expected an integer from 1 to 1024")


CHILD = (
    SCRIPT
    + """
import multiprocessing, sys

def child(queue, backend, parent_results):
    with fc.use_backend(backend):
        equal = [same(results(names=[FIRST]), parent_results) for _ in range(3)]
        queue.put((fc.get_num_threads(), equal, results(names=["conv2d_grad_bias"])))

if __name__ == "__main__":
    method, backend = {method!r}, {backend!r}
    context = multiprocessing.get_context(method)
    fc.set_num_threads(2)
    with fc.use_backend(backend):
        before = results(names=[FIRST])
        queue = context.Queue()
        for _ in range(2 if method == "fork" else 1):
            process = context.Process(target=child, args=(queue, backend, before))
            process.start()
            number, equal, new = queue.get(timeout=200)
            process.join(60)
            assert process.exitcode == 0, process.exitcode
            assert all(equal), equal
            assert number == 1 or method != "fork", number
        assert same(results(names=[FIRST, "conv2d_grad_bias"]), before | new)  # the child was first to run the latter
    print("done", fc.get_num_threads())
"""
)


@pytest.mark.parametrize("backend", table.BACKENDS)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_child_process_after_parallel_use(python, method, backend):
    script = CHILD.replace("{method!r}", repr(method)).replace("{backend!r}", repr(backend))
    script = script.replace("FIRST", repr(FIRST[backend]))
    assert python(script).split() == ["done", "2"]


def test_forked_child_of_an_unused_parent_keeps_its_threads(python):
    script = """
import os
import fastcnn as fc
fc.set_num_threads(2)
pid = os.fork()
if pid == 0:
    os._exit(fc.get_num_threads())
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert python(script).strip() == "2"


def test_fork_while_another_thread_is_in_a_kernel_leaves_the_child_its_lock(python):
    script = """
import os, threading
import fastcnn as fc
from fastcnn import threads
fc.set_num_threads(2)
threads.busy.acquire()
pid = os.fork()
if pid == 0:
    os._exit(threads.acquire(10**9, 0))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert python(script).strip() == "2"


MANY = (
    SCRIPT
    + """
import threading
fc.set_backend("BACKEND")
fc.set_num_threads(2)
answers, start = [], threading.Barrier(16)

def caller():
    start.wait()
    answers.extend(results(names=[FIRST]) for _ in range(4))

callers = [threading.Thread(target=caller) for _ in range(16)]
for each in callers:
    each.start()
for each in callers:
    each.join()
expected = results(names=[FIRST])
print(sum(same(each, expected) for each in answers), "right of", len(answers))
"""
)
LAYERS = [(backend, layer) for backend in table.BACKENDS for layer in ("workqueue", "omp")]
LAYERS = [(backend, layer) for backend, layer in LAYERS if backend == "numba" or layer == "omp"]


@pytest.mark.parametrize(("backend", "layer"), LAYERS)
def test_sixteen_python_threads_at_once_from_the_first_call(python, backend, layer):
    script = MANY.replace("BACKEND", backend).replace("FIRST", repr(FIRST[backend]))
    assert python(script, env={"NUMBA_THREADING_LAYER": layer}).strip() == "64 right of 64"


def test_callers_share_one_process_wide_number():
    fc.set_num_threads(3)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(fc.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [3]
