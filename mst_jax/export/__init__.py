"""Policies that ship: files that act without jax, each form of them from one list of operations."""

from mst_jax.export.check import TOLERANCE, largest_difference
from mst_jax.export.compiled import CompiledPolicy, compiling
from mst_jax.export.forms import FORMS, form_of, require_known, require_place, write_policy
from mst_jax.export.loading import load_exported
from mst_jax.export.play_policy import Policy
from mst_jax.export.policy_file import DTYPES, UNITS, PolicyFile, policy_file

__all__ = [
    "DTYPES",
    "FORMS",
    "TOLERANCE",
    "UNITS",
    "CompiledPolicy",
    "Policy",
    "PolicyFile",
    "compiling",
    "form_of",
    "largest_difference",
    "load_exported",
    "policy_file",
    "require_known",
    "require_place",
    "write_policy",
]
