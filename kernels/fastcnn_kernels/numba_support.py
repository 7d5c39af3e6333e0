"""How every Numba kernel here is compiled and launched."""

import functools
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import binding, ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.ufunc.parallel import NUM_THREADS

#: How whatever runs without the GIL is compiled: integer division without zero checks.
_plain = functools.partial(njit, nogil=True, error_model="numpy")
#: Compilation of every function that runs inside a kernel. Without Numba's runtime it cannot allocate, which no kernel
#: does, and does not count references: two atomic operations for each array of each call, half the time of small tasks.
compiled = functools.partial(_plain, _nrt=False)


def call_compiled(context, builder, function, argument_types, arguments):
    """Call the machine code of a compiled function, compiled once for these argument types.

    Numba would compile it again into the code of each of its callers. The function returns nothing and raises nothing:
    its status is not asked for. Its machine code lives as long as the dispatcher `function`.
    """
    function.compile(argument_types)
    code = function.overloads[argument_types]
    symbol = f"fastcnn{code.fndesc.mangled_name}"
    # Not a C callback: that would copy the arguments on the stack, in vectors wider than they were stored in.
    address = code.library.get_pointer_to_function(code.fndesc.mangled_name)
    assert address, f"{symbol} has no machine code"
    binding.add_symbol(symbol, address)
    declared = cgutils.get_or_insert_function(
        builder.module, context.call_conv.get_function_type(types.none, argument_types), symbol
    )
    context.call_conv.call_function(builder, declared, types.none, argument_types, arguments)
    return context.get_dummy_value()


@intrinsic
def _enter(typingctx, entry, arguments, worker, workers):
    """Call a C function ``entry(arguments, worker, workers)``, given by its address, with the address `arguments`."""

    def code(context, builder, signature, values):
        address, *rest = values
        entry_type = ir.FunctionType(ir.VoidType(), [value.type for value in rest])
        builder.call(builder.inttoptr(address, entry_type.as_pointer()), rest)
        return context.get_dummy_value()

    return types.none(entry, arguments, types.intp, workers), code


@functools.partial(_plain, parallel=True)
def _on_workers(entry, arguments, workers):
    """Let each worker do its share: the one parallel loop, as to compile another takes more than a second.

    As many threads take part as there are workers, or as Numba has started, to which it holds the limit: nobody asks
    whether this raised. Numba's number for the calling thread is then put back.
    """
    before = numba.get_num_threads()
    numba.set_num_threads(min(workers, NUM_THREADS))
    for worker in prange(workers):
        _enter(entry, arguments, worker, workers)
    numba.set_num_threads(before)


@intrinsic
def _share_out(typingctx, share, workers, arguments):
    """Store the arguments on the stack, and have the workers call `share` with what they load from there."""
    share_types = (*arguments.types, types.intp, types.intp)

    def code(context, builder, signature, values):
        _, number, together = values
        stored = cgutils.alloca_once_value(builder, together)
        entry_type = ir.FunctionType(ir.VoidType(), [number.type] * 3)
        entry = ir.Function(builder.module, entry_type, builder.module.get_unique_name("entry"))
        entry.linkage = "internal"
        inner = ir.IRBuilder(entry.append_basic_block())
        address, *place = entry.args
        loaded = cgutils.unpack_tuple(inner, inner.load(inner.inttoptr(address, stored.type)), len(arguments))
        call_compiled(context, inner, share.dispatcher, share_types, [*loaded, *place])
        inner.ret_void()
        addresses = [builder.ptrtoint(pointer, number.type) for pointer in (entry, stored)]
        return call_compiled(context, builder, _on_workers, (types.intp,) * 3, [*addresses, number])

    return types.none(share, types.intp, arguments), code


def threaded(work: Callable[..., None]) -> Any:
    """Compile ``work(*arguments, worker, workers)``, which does its worker's share, for any number of threads.

    The result is called as ``launch(num_threads, *arguments)``. With one thread it calls the share of worker 0 of 1
    and enters no threading layer: the only safe way in a forked child, and the fast one for small work. Its attribute
    ``share`` is the compiled ``work``, for calls from compiled code.
    """
    share = compiled(work)

    @compiled
    def all_shares(workers, *arguments):
        _share_out(share, workers, arguments)

    @functools.wraps(work)
    def launch(num_threads, *arguments):
        if num_threads == 1:
            share(*arguments, 0, 1)
        else:
            all_shares(num_threads, *arguments)

    launched: Any = launch
    launched.share = share
    return launched


def flat(array):
    """One-dimensional view of a C-contiguous array; a read-only one is copied, as it is another type to Numba."""
    array = array if array.flags.writeable else array.copy()
    return array.ravel()
