"""Exact statements about a process: small problems by enumeration."""

from mdmjax.analysis.bounds import all_masks, chain_bound, continuous_bound, discrete_bound, masked_losses
from mdmjax.analysis.sampler_laws import (
    ancestral_law,
    confidence_law,
    first_hitting_law,
    left_to_right_law,
    random_count_law,
    total_variation,
)
from mdmjax.analysis.tables import TableDenoiser, all_states, random_table, table_denoiser, true_conditionals

__all__ = [
    "TableDenoiser",
    "all_masks",
    "all_states",
    "ancestral_law",
    "chain_bound",
    "confidence_law",
    "continuous_bound",
    "discrete_bound",
    "first_hitting_law",
    "left_to_right_law",
    "masked_losses",
    "random_count_law",
    "random_table",
    "table_denoiser",
    "total_variation",
    "true_conditionals",
]
