"""Compilation, in one place: how asgrad turns a plain function into machine code.

Every kernel is compiled for one explicit signature, when it is first needed, and cached on disk.
Kernels that another takes as an argument (a method's rule, a problem's gradient, ...) are passed as
first-class functions: that one then compiles once for all of them. No fast-math anywhere, so a
kernel gives the same bits wherever it is called from, however many lanes stand beside each other.
"""

from __future__ import annotations

import inspect
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import NumbaError
from numba.core.registry import CPUDispatcher
from numba.core.sigutils import normalize_signature
from numba.experimental.function_type import FunctionModel
from numba.extending import (
    NativeValue,
    intrinsic,
    overload,
    register_jitable,
    register_model,
    unbox,
)

from asgrad.errors import AsgradError, KindError, n_axes, shown
from asgrad.files import locked

__all__ = [
    "Bound",
    "BoundType",
    "HasKernel",
    "add_scaled",
    "aligned",
    "compiled",
    "copy_columns",
    "entry_point",
    "exp_nonpositive",
    "inlined",
    "is_compiled",
    "is_finite",
    "make_ready",
    "multiply",
    "piece",
    "prefetch",
    "set_zero",
]


# Without Numba's reference counting (_nrt): a kernel borrows its arrays and allocates none. The
# counting is atomic, and cost the event loop four fifths of its time.
_OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}


def compiled(signature: Any) -> Callable[[Callable], Kernel]:
    """Make a kernel of a function, for `signature` (or a list of them), without the GIL.

    The function may not allocate: what it needs is passed in.
    """
    signatures = signature if isinstance(signature, list) else [signature]
    return lambda function: Kernel(function, tuple(signatures))


class Kernel(CPUDispatcher):  # type: ignore[misc]
    """A function that is compiled for its signatures, or loaded, once it is first needed.

    A run needs few of the kernels that stand in the modules which it imports. To Numba this is a
    function whose compilation is over; it asks here before it looks for machine code.
    """

    def __init__(self, function: Callable, signatures: tuple[Any, ...]):
        super().__init__(function, targetoptions={"nopython": True, **_OPTIONS})
        self._can_compile = False
        self._signatures = signatures
        self._maker = CPUDispatcher(function, targetoptions=self.targetoptions)
        _keep(self._maker)

    def make(self) -> None:
        """Compile it, or load it, unless that has been done; from any thread."""
        if len(self.overloads) == len(self._signatures):
            return
        with global_compiler_lock:  # another thread may be at it
            for signature in self._signatures[len(self.overloads) :]:
                self._maker.compile(signature)
                self.add_overload(next(reversed(self._maker.overloads.values())))

    def _search_new_conversions(self, *args: Any, **kws: Any) -> bool:
        """Say whether the arguments of a call fit, when none that is known does."""
        self.make()
        found: bool = super()._search_new_conversions(*args, **kws)
        return found

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Return what a call in compiled code comes to."""
        self.make()
        return super().get_call_template(args, kws)

    def get_compile_result(self, sig: Any) -> Any:
        """Return the machine code for one of the signatures."""
        self.make()
        return super().get_compile_result(sig)

    def _reduce_states(self) -> dict[str, Any]:
        """Return what another process needs, for pickling."""
        return {"function": self.py_func, "signatures": self._signatures}

    @classmethod
    def _rebuild(cls, function: Callable, signatures: tuple[Any, ...]) -> Kernel:
        """Return the same in another process."""
        return cls(function, signatures)


class _Cache(FunctionCache):  # type: ignore[misc]
    """Numba's cache on disk, but what it cannot read or write costs time and nothing else.

    Numba reads the index, gives the machine code the next free name, and writes both, as if nobody
    else did: of two processes that compile one function for different types at once, one may find
    the other's code under its own entry, ever after. So one writes after the other; and where there
    are no locks, code for other types is none.
    """

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return what is kept; None if it is damaged, or may not be read."""
        try:
            found = super().load_overload(signature, context)
            wanted = normalize_signature(signature)[0]
            if found is not None and tuple(found.signature.args) != tuple(wanted):
                self.flush()
                return None
        except Exception:  # a damaged file may raise anything
            return None
        return found

    def save_overload(self, signature: Any, made: Any) -> None:
        """Keep what was made; what is damaged makes way, and on a full disk nothing is kept."""
        with locked(Path(self.cache_path)):
            try:
                super().save_overload(signature, made)
            except Exception:
                with suppress(Exception):
                    self.flush()
                    super().save_overload(signature, made)


def _keep(dispatcher: Any) -> None:
    """Have what Numba compiles for a function kept on disk, if it can be."""
    with suppress(RuntimeError):  # there is no folder that a cache could be in
        dispatcher._cache = _Cache(dispatcher.py_func)


def _check_compiler() -> None:
    """Refuse to run where compilation is off: kernels are handed around as machine code."""
    if numba.config.DISABLE_JIT:
        raise AsgradError(
            "NUMBA_DISABLE_JIT: must be 0 or unset, since asgrad hands its kernels around as "
            f"machine code, got {numba.config.DISABLE_JIT}."
        )


def _choose_cache() -> None:
    """See to it that Numba can keep machine code somewhere, though all its own places be closed.

    Those are NUMBA_CACHE_DIR, __pycache__ beside each source, and the user's cache folder.
    """
    said = os.environ.get("NUMBA_CACHE_DIR")
    if said and _is_writable([Path(said)]):
        return
    sources = {path.parent for path in Path(__file__).parent.rglob("*.py")}
    if _is_writable(folder / "__pycache__" for folder in sources):
        return
    users = Path(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "numba")
    if users.is_absolute() and _is_writable([users]):  # "~" stays where nobody knows the home
        return
    mine = _private_folder()
    if mine is not None:
        os.environ["NUMBA_CACHE_DIR"] = str(mine)  # for processes that are started here, too
        numba.config.reload_config()


def _is_writable(folders: Iterable[Path]) -> bool:
    """Say whether a file can be put into each of these folders, which are made where they lack."""
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _private_folder() -> Path | None:
    """Return a folder for temporary files that only this user can write to, if there is one.

    Its name can be guessed, and whoever writes into a cache has his code run: one that is a link,
    somebody else's, or open to others is left alone.
    """
    try:
        folder = Path(tempfile.gettempdir(), f"asgrad-numba-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except (OSError, AttributeError):  # nothing can be written; no user ids on Windows
        return None
    closed = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) & 0o077 == 0
    return folder if closed and found.st_uid == os.getuid() and _is_writable([folder]) else None


_check_compiler()
_choose_cache()


class Bound(int):
    """The address of a compiled function, for a parameter of `BoundType`; it keeps it alive."""

    def __new__(cls, function: Any, signature: Any) -> Bound:
        """Compile `function` for `signature`, unless that has been done.

        Raises
        ------
        AsgradError
            If it cannot be compiled: it may be a user's.
        """
        try:
            result = function.get_compile_result(signature)
        except (NumbaError, TypeError) as error:
            lines = [line.strip(" -:.") for line in str(error).splitlines()]
            why = next((line for line in lines if line and not line.startswith("Failed in")), "")
            raise AsgradError(
                f"{function.py_func.__qualname__}: a kernel must take {len(signature.args)} "
                f"arguments, be what Numba can compile, and allocate nothing: {why}."
            ) from error
        name = result.fndesc.llvm_func_name
        bound = super().__new__(cls, result.library.get_pointer_to_function(name))
        bound.function = function
        return bound

    function: Any


class BoundType(types.FunctionType):  # type: ignore[misc]
    """The type of a parameter that takes a `Bound`, a first-class function in compiled code.

    For Numba's own such type every call looks the address up in Python, which takes 6 to 30 µs.
    """


register_model(BoundType)(FunctionModel)


@unbox(BoundType)
def _address(kind, number, c):
    """Read the address, which is called without the wrapper that calls from C would need."""
    function = cgutils.create_struct_proxy(kind)(c.context, c.builder)
    function.jit_addr = c.pyapi.long_as_voidptr(number)
    return NativeValue(function._getvalue())


def inlined(function: Callable) -> Inlined:
    """Compile a helper that only other kernels call; LLVM inlines it there, whatever its size.

    A call would pass every array as seven numbers, which cost the event loop a fifth of its time.
    """
    return Inlined(function)


class Inlined(CPUDispatcher):  # type: ignore[misc]
    """A helper, compiled for whatever types it is called with; once for Python, once for kernels.

    For kernels it is made without what only Python needs, which took most of the time, and for an
    argument's type alone, where Numba would make it anew for every constant. It is not kept: the
    machine code of the kernel is.
    """

    def __init__(self, function: Callable):
        options = {"nopython": True, "forceinline": True, **_OPTIONS}
        super().__init__(function, targetoptions=options)
        _keep(self)
        bare = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        self._bare = CPUDispatcher(function, targetoptions={**options, **bare})

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Return what a call in compiled code comes to."""
        _, args = self._compiler.fold_argument_types(args, kws)
        return self._bare.get_call_template([types.unliteral(kind) for kind in args], {})

    def get_overload(self, sig: Any) -> Any:
        """Return what such a call calls."""
        return self._bare.get_overload(sig)

    def _reduce_states(self) -> dict[str, Any]:
        """Return what another process needs, for pickling."""
        return {"function": self.py_func}

    @classmethod
    def _rebuild(cls, function: Callable) -> Inlined:
        """Return the same in another process."""
        return cls(function)


def entry_point(function: Any, signature: Any) -> Callable[..., Any]:
    """Return a compiled function's bare entry point for one signature.

    Without Numba's dispatch by type, which takes some 10 µs for a named tuple of arrays, a call
    takes 1 µs; its arguments must be of the very types that stand in the signature.
    """
    if not is_compiled(function):  # a helper that is inlined elsewhere
        function.compile(signature)
    entry: Callable[..., Any] = function.get_compile_result(signature).entry_point
    return entry


def piece(function: Callable) -> Any:
    """Let compiled code inline `function`, as `inlined` does, but leave it plain Python elsewhere.

    For the pieces of a kernel whose source also runs as plain Python: they may call what is passed
    to them, which need not be compiled then.
    """
    return register_jitable(forceinline=True, **_OPTIONS)(function)


def is_compiled(function: Any) -> bool:
    """Say whether `function` is a kernel, or what Numba has compiled for explicit types."""
    return isinstance(function, Kernel) or bool(getattr(function, "signatures", ()))


def make_ready(*functions: Any) -> None:
    """Have kernels compiled now, before a clock is looked at, and errors in them raised as such."""
    for function in functions:
        if isinstance(function, Kernel):
            function.make()


def aligned(size: int, dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised array that begins with a cache line.

    What fills a line, such as a job's slot or a worker's record, would cost two misses astride two.
    """
    line = 64
    raw = np.empty(size * dtype.itemsize + line, np.uint8)
    offset = -raw.ctypes.data % line
    return raw[offset : offset + size * dtype.itemsize].view(dtype)


def prefetch(array: np.ndarray, index: int) -> None:
    """Ask for the cache line where array[index] begins, without waiting; nothing in plain Python.

    `index` must be >= 0 and may lie outside of the array.
    """


@intrinsic
def _prefetch_line(typing, array, index):
    """Emit LLVM's prefetch of array[index], for reading, into all levels of the cache."""

    def emit(context, builder, signature, args):
        view = context.make_array(array)(context, builder, args[0])
        place = cgutils.get_item_pointer(context, builder, array, view, args[1:])
        pointer, number = cgutils.voidptr_t, cgutils.int32_t
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        read, everywhere, data = (number(value) for value in (0, 3, 1))
        builder.call(function, [builder.bitcast(place, pointer), read, everywhere, data])
        return context.get_dummy_value()

    return types.none(array, types.int64), emit


@overload(prefetch)
def _prefetch(array, index):
    """Give compiled code the instruction."""
    return lambda array, index: _prefetch_line(array, index)


@inlined
def exp_nonpositive(x):
    """Return exp(x) for x <= 0 to within 4e-16 relative, in a form that LLVM can vectorise.

    Cody-Waite reduction to |r| <= ln(2)/2 and the Taylor polynomial of degree 12; the power of two
    is built in the exponent bits. Below -708 the result is exp(-708) (about 3e-308), NaN stays NaN.
    """
    x = max(x, -708.0)
    shifted = x * 1.4426950408889634 + 6755399441055744.0  # 1.5 * 2**52: rounds to an integer
    k = shifted - 6755399441055744.0
    r = (x - k * 6.93145751953125e-1) - k * 1.42860682030941723212e-6
    p = 2.08767569878681e-09  # 1/12!
    p = p * r + 2.505210838544172e-08
    p = p * r + 2.755731922398589e-07
    p = p * r + 2.7557319223985893e-06
    p = p * r + 2.48015873015873e-05
    p = p * r + 1.984126984126984e-04
    p = p * r + 1.388888888888889e-03
    p = p * r + 8.333333333333333e-03
    p = p * r + 4.1666666666666664e-02
    p = p * r + 1.6666666666666666e-01
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    bits = (np.float64(shifted).view(np.int64) + np.int64(1023)) << np.int64(52)
    return p * np.int64(bits).view(np.float64)


@inlined
def _is_uniform(scale):
    """Say whether all lanes have the same scale."""
    same = True
    for lane in range(1, scale.size):
        same = same and scale[lane] == scale[0]
    return same


@inlined
def add_scaled(out, scale, v):
    """out[:, lane] += scale[lane] * v[:, lane], in place."""
    if _is_uniform(scale):  # one contiguous run, which LLVM vectorises
        flat_out, flat_v = out.reshape(out.size), v.reshape(v.size)
        for i in range(flat_v.size):
            flat_out[i] += scale[0] * flat_v[i]
    else:
        for i in range(v.shape[0]):
            for lane in range(v.shape[1]):
                out[i, lane] += scale[lane] * v[i, lane]


@inlined
def multiply(out, scale):
    """out[:, lane] *= scale[lane], in place."""
    if not _is_uniform(scale):
        for i in range(out.shape[0]):
            for lane in range(out.shape[1]):
                out[i, lane] *= scale[lane]
    elif scale[0] != 1:
        flat = out.reshape(out.size)
        for i in range(flat.size):
            flat[i] *= scale[0]


@inlined
def set_zero(out):
    """out = 0, in place."""
    flat = out.reshape(out.size)
    for i in range(flat.size):
        flat[i] = 0


@inlined
def copy_columns(out, first, x):
    """Copy `x` into the columns of `out` from `first` on."""
    for i in range(x.shape[0]):
        for lane in range(x.shape[1]):
            out[i, first + lane] = x[i, lane]


@compiled([types.boolean(types.Array(kind, 2, "C")) for kind in (types.float64, types.float32)])
def is_finite(values):
    """Say whether no number is NaN or infinite; float of shape (dim, lanes)."""
    flat = values.reshape(values.size)
    found = 0
    for i in range(flat.size):
        found |= flat[i] - flat[i] != 0
    return found == 0


class HasKernel:
    """What a kernel belongs to, such as a part of a recipe; a subclass gives it as `kernel`.

    One that is a plain function is made to be compiled when it is first called.
    """

    kernel: ClassVar[Callable]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        found = vars(cls).get("kernel")
        function = getattr(found, "__func__", found)  # of a static method
        if inspect.isfunction(function):
            cls.kernel = inlined(function)

    def check_kernel(self) -> None:
        """Refuse what was given no kernel."""
        n_blocks = getattr(self, "n_blocks", len)
        if not callable(n_blocks):
            raise KindError(f"{type(self).__name__}: n_blocks must be a method, got {n_blocks!r}.")
        if not callable(getattr(self, "kernel", None)):
            raise AsgradError(
                f"{type(self).__name__}: kernel must be a function, got none; its parameters stand "
                "in the base.py of its package."
            )

    def numbers(self, found: Any) -> np.ndarray:
        """Return what the kernel reads, as it reads it; `found` is what `parameters` returned."""
        try:
            numbers = np.ascontiguousarray(found, np.float64)
        except (TypeError, ValueError):
            numbers = None
        if numbers is None or n_axes(found) != 1:
            raise KindError(
                f"{type(self).__name__}: parameters() must return a row of numbers, "
                f"got {shown(found)}."
            )
        return numbers if numbers.size else np.zeros(1)  # a kernel may need none
