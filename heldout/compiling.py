"""Functions that numba compiles when they are first called.

    @compiling.later
    def total(values):
        ...

To import numba takes a third of a second, which a program that prints its help or finds nothing to do need not wait
for; so numba is imported at the first call. What has been compiled is kept beside the source, or in the user's cache
folder, for the next process. A decorated function may call others that are decorated too, by a name of its own module,
but not itself. Where they are from another module (`ones = run_words.ones`), its source is part of the name under which
the caller is kept: numba itself looks at the caller's file alone, and would go on with what had changed elsewhere.
"""

from collections.abc import Callable
import functools
import hashlib
import pathlib
import pickle
import types
from typing import Any

# Of reading and writing what is kept; the functions themselves touch no files.
_CACHE_ERRORS = (OSError, EOFError, pickle.UnpicklingError)


class Later:
    """A function in waiting for its compiler. It releases the interpreter's lock: threads run it side by side.

    Attributes:
        py_func: the function as it was written, which computes the same, slowly.
    """

    def __init__(self, py_func: types.FunctionType) -> None:
        self.py_func = py_func
        functools.update_wrapper(self, py_func)

    def __call__(self, *arguments: Any) -> Any:
        """Calls the compiled function."""
        try:
            return self.compiled(*arguments)
        except _CACHE_ERRORS:  # before anything was computed: the disk is full, or what was kept is damaged
            self._do_without_cache()
            return self.compiled(*arguments)

    @functools.cached_property
    def compiled(self) -> Callable[..., Any]:
        """Numba's function, which compiles for each new combination of argument types."""
        try:
            return self._compile(cache=True)
        except RuntimeError:  # there is no folder to keep it in
            return self._compile(cache=False)

    def _compile(self, *, cache: bool) -> Callable[..., Any]:
        import numba  # see the head of the module

        function = types.FunctionType(
            self.py_func.__code__, self._globals(), self.py_func.__name__, self.py_func.__defaults__
        )
        function.__qualname__ = self.py_func.__qualname__ + self._digest_of_others()
        function.__module__ = self.py_func.__module__
        return numba.njit(nogil=True, cache=cache)(function)

    def _do_without_cache(self) -> None:
        for function in self._called().values():
            function._do_without_cache()
        self.__dict__["compiled"] = self._compile(cache=False)

    def _called(self) -> dict[str, "Later"]:
        """The decorated functions that this one calls, by the name that its module has for them."""
        seen = self.py_func.__globals__
        return {name: seen[name] for name in self.py_func.__code__.co_names if isinstance(seen.get(name), Later)}

    def _digest_of_others(self) -> str:
        """Of the source files of other modules that this function calls into; empty where there are none."""
        digests = [hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest() for path in sorted(self._other_files())]
        return "".join(f"_{digest[:16]}" for digest in digests)

    def _other_files(self) -> set[str]:
        """The files of the functions that this one calls, and of those that they call, but its own."""
        found = set[str]()
        for function in self._called().values():
            found |= {function.py_func.__code__.co_filename} | function._other_files()
        return found - {self.py_func.__code__.co_filename}

    def _globals(self) -> dict[str, Any]:
        """What the function sees of its module, with compiled functions in place of those in waiting."""
        called = {name: function.compiled for name, function in self._called().items()}
        return {**self.py_func.__globals__, **called}


def later(function: Callable[..., Any]) -> Later:
    """Decorates a function of numbers and arrays that numba can compile."""
    assert isinstance(function, types.FunctionType)
    return Later(function)
