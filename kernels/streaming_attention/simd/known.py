"""Numbers that code is compiled for: the number is in the Numba type, so that loops over it become straight code.

Unlike a literal, it stays known through calls of jitted functions.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_constant
from numba.extending import intrinsic, models, register_model, typeof_impl


@dataclass(frozen=True)
class Known:
    """An integer without data; global constants of modules, which jitted code refers to."""

    value: int


class KnownType(types.Opaque):
    """Numba type of a :class:`Known`."""

    def __init__(self, value: int):
        self.value = value
        super().__init__(name=f"Known({value})")


register_model(KnownType)(models.OpaqueModel)


@typeof_impl.register(Known)
def _typeof(known, _context):
    return KnownType(known.value)


@lower_constant(KnownType)
def _constant(context, _builder, _typ, _value):
    return context.get_dummy_value()


def known_value(kind: types.Type) -> int | None:
    """The number that a Numba type holds, of a :class:`Known` or a literal; None where it has none."""
    return kind.value if isinstance(kind, KnownType) else getattr(kind, "literal_value", None)


@intrinsic
def value_of(typingctx, number):
    """The integer, whether it is a :class:`Known` or not; a constant to the compiler if it is."""

    def codegen(_context, _builder, _signature, args):
        return ir.IntType(64)(number.value) if isinstance(number, KnownType) else args[0]

    return types.int64(number), codegen


@intrinsic
def is_known(typingctx, number):
    """Whether it is a :class:`Known`; a constant to the compiler."""

    def codegen(_context, _builder, _signature, _args):
        return ir.IntType(1)(isinstance(number, KnownType))

    return types.boolean(number), codegen
