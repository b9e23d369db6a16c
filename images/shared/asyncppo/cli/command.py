"""What the command modules share. Owns the type of what they register with; owns no behaviour."""

import argparse
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
else:
    # At run time argparse's class takes no type parameters.
    Subparsers = argparse._SubParsersAction
