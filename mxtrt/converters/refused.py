"""Operators that no attribute makes convertible, each with its reason."""

from __future__ import annotations

from ..registry import refuses

refuses(
    "draws random numbers; an engine cannot draw those of MXNet's generators",
    "_image_random_brightness",
    "_image_random_color_jitter",
    "_image_random_contrast",
    "_image_random_flip_left_right",
    "_image_random_flip_top_bottom",
    "_image_random_hue",
    "_image_random_lighting",
    "_image_random_saturation",
    "_npi_bernoulli",
    "_npi_choice",
    "_npi_exponential",
    "_npi_gamma",
    "_npi_gumbel",
    "_npi_logistic",
    "_npi_multinomial",
    "_npi_normal",
    "_npi_normal_n",
    "_npi_pareto",
    "_npi_powerd",
    "_npi_rayleigh",
    "_npi_uniform",
    "_npi_uniform_n",
    "_npi_weibull",
    "_random_exponential",
    "_random_exponential_like",
    "_random_gamma",
    "_random_gamma_like",
    "_random_generalized_negative_binomial",
    "_random_generalized_negative_binomial_like",
    "_random_negative_binomial",
    "_random_negative_binomial_like",
    "_random_normal",
    "_random_normal_like",
    "_random_poisson",
    "_random_poisson_like",
    "_random_randint",
    "_random_uniform",
    "_random_uniform_like",
    "_sample_exponential",
    "_sample_gamma",
    "_sample_generalized_negative_binomial",
    "_sample_multinomial",
    "_sample_negative_binomial",
    "_sample_normal",
    "_sample_poisson",
    "_sample_uniform",
    "_sample_unique_zipfian",
    "_shuffle",
)

refuses(
    "works on sparse arrays, which engines do not have",
    "_contrib_dgl_adjacency",
    "_contrib_dgl_csr_neighbor_non_uniform_sample",
    "_contrib_dgl_csr_neighbor_uniform_sample",
    "_contrib_dgl_graph_compact",
    "_contrib_dgl_subgraph",
    "_contrib_edge_id",
    "_contrib_getnnz",
    "_sparse_retain",
    "_square_sum",
)

refuses("a likelihood for training, computed event by event", "_contrib_hawkesll")

refuses("makes the targets of training from labels", "_contrib_MultiBoxTarget")

refuses(
    "updates weights while a model is trained",
    "_adamw_update",
    "_contrib_group_adagrad_update",
    "_mp_adamw_update",
    "_multi_adamw_update",
    "_multi_lamb_update",
    "_multi_mp_adamw_update",
    "_multi_mp_lamb_update",
    "_sparse_adagrad_update",
    "adam_update",
    "ftml_update",
    "ftrl_update",
    "lamb_update_phase1",
    "lamb_update_phase2",
    "mp_lamb_update_phase1",
    "mp_lamb_update_phase2",
    "mp_nag_mom_update",
    "mp_sgd_mom_update",
    "mp_sgd_update",
    "multi_lars",
    "multi_mp_sgd_mom_update",
    "multi_mp_sgd_update",
    "multi_sgd_mom_update",
    "multi_sgd_update",
    "nag_mom_update",
    "preloaded_multi_mp_sgd_mom_update",
    "preloaded_multi_mp_sgd_update",
    "preloaded_multi_sgd_mom_update",
    "preloaded_multi_sgd_update",
    "reset_arrays",
    "rmsprop_update",
    "rmspropalex_update",
    "sgd_mom_update",
    "sgd_update",
    "signsgd_update",
    "signum_update",
)

refuses(
    "reads image files or changes images outside of a model, with OpenCV",
    "_cvcopyMakeBorder",
    "_cvimdecode",
    "_cvimread",
    "_cvimresize",
    "_imdecode",
)

refuses(
    "calls Python code that MXNet keeps in this process",
    "_CustomFunction",
    "_NDArray",
    "_Native",
)

refuses(
    "serves MXNet's own executors and NDArrays; it is no node of a saved symbol",
    "_CachedOp",
    "_CachedOpThreadSafe",
    "_CrossDeviceCopy",
    "_NoGradient",
    "_zeros_without_dtype",
)

refuses("raises an error where its input is not true; engines cannot", "_npx_constraint_check")

refuses("asks whether two arrays of MXNet's share their memory", "_npi_share_memory")

refuses("MXNet computes it on its own GPUs only", "_contrib_count_sketch")

refuses(
    "changes NDArrays in place; it is no node of a symbol",
    "_copyto",
    "_onehot_encode",
    "_set_value",
    "fill_element_0index",
)
