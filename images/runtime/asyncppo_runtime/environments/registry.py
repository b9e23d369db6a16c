"""From a manifest's environment to its class. Owns the names and the errors; does not own any environment.

Whatever the user's code raises here, an exit included, it would raise again at the next start: all of it is bad input (UserError).
"""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from asyncppo.api.training import EnvironmentSpec, EnvironmentType
from asyncppo.errors import UserError
from asyncppo.programs import IMPORTS_VARIABLE
from asyncppo_runtime.environments.interface import Environment

BUILTIN = {
    EnvironmentType.GUESS_NUMBER: "asyncppo_runtime.environments.guess_number:GuessNumber",
    EnvironmentType.REASONING_GYM: "asyncppo_runtime.environments.reasoning_gym_adapter:ReasoningGym",
}
METHODS = ("reset", "step", "close")


def environment_class(spec: EnvironmentSpec) -> type[Any]:
    """The class behind `spec`. Raises UserError when `entrypoint` names nothing usable.

    A Custom environment may lie beside its manifest: the folders the runner names, then the working directory, are added behind
    everything else, so that a `types.py` there hides nobody's.
    """
    entrypoint = BUILTIN.get(spec.type) or spec.entrypoint
    if entrypoint is None:
        raise UserError("spec.environment.entrypoint: a Custom environment needs module:Class")
    if spec.type is EnvironmentType.CUSTOM:
        _add_folders()
    module_name, _, class_name = entrypoint.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"spec.environment.entrypoint: {module_name} cannot be imported ({error}); install it where the rollouts run"
        ) from error
    except BaseException as error:
        raise UserError(
            f"spec.environment.entrypoint: {module_name} fails while it is imported ({where(error)}); correct the module"
        ) from error
    kind = getattr(module, class_name, None)
    if not isinstance(kind, type):
        raise UserError(
            f"spec.environment.entrypoint: {module_name} ({getattr(module, '__file__', 'built in')}) has no class {class_name}"
        )
    missing = [method for method in METHODS if not callable(getattr(kind, method, None))]
    if missing:
        raise UserError(f"spec.environment.entrypoint: {entrypoint} lacks the method(s) {', '.join(missing)}")
    plain = [method for method in METHODS if not _is_coroutine(getattr(kind, method))]
    if plain:
        raise UserError(
            f"spec.environment.entrypoint: {entrypoint} must define {', '.join(plain)} with `async def` (and without `yield`); "
            "put blocking work into `await asyncio.to_thread(…)`"
        )
    return kind


def environment_factory(spec: EnvironmentSpec) -> Callable[[], Environment]:
    """Makes a new environment per episode. Makes the first at once, so that what the constructor refuses shows at start: raises
    UserError. The first episode gets that one: it is the trial of everything else."""
    kind = environment_class(spec)
    try:
        first: list[Environment] = [kind(**spec.parameters)]
    except (TypeError, ValueError) as error:
        raise UserError(f"spec.environment.parameters: {kind.__name__} refuses them: {error}") from error
    except BaseException as error:
        raise UserError(
            f"spec.environment: {kind.__name__} cannot be made ({where(error)}); it must work where the rollouts run"
        ) from error

    def make() -> Environment:
        if first:
            return first.pop()
        environment: Environment = kind(**spec.parameters)
        return environment

    return make


def where(error: BaseException) -> str:
    """An exception of the user's code: its kind, its text and the line it was raised at."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}, at {last.filename}:{last.lineno}"


def _is_coroutine(method: Any) -> bool:
    """Whether calling it gives a coroutine: an `async def`, also one under decorators that say what they wrap, or an object whose
    `__call__` is one."""
    method = inspect.unwrap(method)
    return inspect.iscoroutinefunction(method) or inspect.iscoroutinefunction(type(method).__dict__.get("__call__"))


def _add_folders() -> None:
    for folder in (*os.environ.get(IMPORTS_VARIABLE, "").split(os.pathsep), os.getcwd()):
        if folder and folder not in sys.path:
            sys.path.append(folder)
