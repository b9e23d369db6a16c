"""From a manifest's environment to its class. Owns the names and the errors; does not own any environment."""

import importlib
import traceback
from collections.abc import Callable
from typing import Any

from asyncppo.api.training import EnvironmentSpec, EnvironmentType
from asyncppo.errors import UserError
from asyncppo_runtime.environments.interface import Environment

BUILTIN = {
    EnvironmentType.GUESS_NUMBER: "asyncppo_runtime.environments.guess_number:GuessNumber",
    EnvironmentType.REASONING_GYM: "asyncppo_runtime.environments.reasoning_gym_adapter:ReasoningGym",
}


def environment_class(spec: EnvironmentSpec) -> type[Any]:
    """The class behind `spec`. Raises UserError when `entrypoint` names nothing usable."""
    entrypoint = BUILTIN.get(spec.type) or spec.entrypoint
    if entrypoint is None:
        raise UserError("spec.environment.entrypoint: a Custom environment needs module:Class")
    module_name, _, class_name = entrypoint.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"spec.environment.entrypoint: {module_name} cannot be imported ({error}); install it where the rollouts run"
        ) from error
    except (
        Exception
    ) as error:  # whatever the user's module raises while it is imported; starting again would raise it again
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"spec.environment.entrypoint: {module_name} fails while it is imported ({type(error).__name__}: {error}, at "
            f"{where.filename}:{where.lineno}); correct the module"
        ) from error
    kind = getattr(module, class_name, None)
    if not isinstance(kind, type):
        raise UserError(f"spec.environment.entrypoint: {module_name} has no class {class_name}")
    missing = [method for method in ("reset", "step", "close") if not callable(getattr(kind, method, None))]
    if missing:
        raise UserError(f"spec.environment.entrypoint: {entrypoint} lacks the method(s) {', '.join(missing)}")
    return kind


def environment_factory(spec: EnvironmentSpec) -> Callable[[], Environment]:
    """Makes a new environment per episode. Tries once, so that bad parameters show at start: raises UserError."""
    kind = environment_class(spec)

    def make() -> Environment:
        environment: Environment = kind(**spec.parameters)
        return environment

    try:
        make()
    except (TypeError, ValueError) as error:
        raise UserError(f"spec.environment.parameters: {kind.__name__} refuses them: {error}") from error
    return make
