"""The operators that a TorchScript file may use: arithmetic on tensors, numbers, lists and texts.

None of them reads or writes a file, prints, starts a thread, changes settings of the process, reads memory
that was not written, or skips the check of an index. An operator that ends in `_` works in place and is
allowed where the one without it is.
"""

# TorchScript's own nodes (namespace `prim`): control flow, containers, attributes, types.
_PRIM = """
    Constant ConstantChunk CreateObject DictConstruct EnumName EnumValue Enter Exit GetAttr If
    ListConstruct ListUnpack Loop ModuleContainerIndex NumToTensor RaiseException Return SetAttr
    StringIndex TupleConstruct TupleIndex TupleSlice TupleUnpack Uninitialized abs data device dtype
    index is_cpu is_cuda is_meta is_mkldnn is_mps is_nested is_quantized is_sparse is_sparse_csr is_xla
    is_xpu isinstance itemsize layout max min name nbytes rangelist requires_grad tolist type
    unchecked_cast unchecked_unwrap_optional
"""
_NUMBERS_AND_CONTAINERS = """
    Bool Complex ComplexImplicit Delete Float FloatImplicit Int IntImplicit ScalarImplicit Size __and__
    __contains__ __derive_index __getitem__ __iand__ __ilshift__ __ior__ __irshift__ __is__ __isnot__
    __ixor__ __lshift__ __not__ __or__ __range_length __round_to_zero_floordiv __rshift__ __xor__
    _infer_size _list_to_tensor _set_item _size_if_not_equal _tensor_to_list _unwrap_optional append bin
    capitalize chr clear copy count degrees dict endswith extend factorial fabs find floordiv format gcd
    get hex insert isalnum isalpha isdecimal isdigit islower isnumeric isspace istitle isupper items
    join keys len list lower lstrip mathremainder modf oct ord partition percentFormat pop popitem
    radians remove replace reverse rfind rindex rpartition rsplit rstrip setdefault slice sort sorted
    splitlines startswith str strip swapcase title update upper values zfill
"""
_ELEMENTWISE = """
    abs absolute acos acosh add addcdiv addcmul alias angle arccos arccosh arcsin arcsinh arctan arctan2
    arctanh asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or
    bitwise_right_shift bitwise_xor ceil celu clamp clamp_max clamp_min clip complex conj conj_physical
    copysign cos cosh deg2rad digamma div divide divmod elu eq erf erfc erfinv exp exp2 expm1 fill
    float_power floor floor_divide fmax fmin fmod frac frexp ge gelu glu greater greater_equal gt
    hardshrink hardsigmoid hardswish hardtanh heaviside hypot i0 imag isclose isfinite isinf isnan
    isneginf isposinf isreal ldexp le leaky_relu lerp less less_equal lgamma log log10 log1p log2
    log_sigmoid logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit lt masked_fill
    masked_scatter maximum minimum mish mul multiply nan_to_num ne neg negative nextafter not_equal
    polar positive pow prelu rad2deg real reciprocal relu relu6 remainder round rrelu rsqrt rsub selu
    sgn sigmoid sign signbit silu sin sinc sinh softplus softshrink sqrt square sub subtract tan tanh
    threshold true_divide trunc fix where xlogy zero
"""
_REDUCTIONS = """
    all allclose amax amin aminmax any argmax argmin argsort bincount bucketize count_nonzero cummax
    cummin cumprod cumsum diff dist equal histc is_nonzero isin kthvalue logcumsumexp logsumexp max mean
    median min mode msort nanmean nanmedian nanquantile nansum norm frobenius_norm linalg_norm
    linalg_vector_norm linalg_matrix_norm nuclear_norm prod quantile searchsorted std std_mean sum topk
    trapezoid trapz unique_consecutive unique_dim _unique _unique2 var var_mean
"""
_SHAPES = """
    _reshape_alias _shape_as_tensor adjoint as_strided atleast_1d atleast_2d atleast_3d block_diag
    broadcast_tensors broadcast_to cartesian_prod cat channel_shuffle chunk column_stack combinations
    concat concatenate contiguous detach diag diag_embed diagonal diagflat dim dsplit dstack
    element_size expand expand_as fill_diagonal_ flatten flip fliplr flipud gather get_device hsplit
    hstack index index_add argwhere broadcast_shapes row_stack index_copy index_fill index_put
    index_reduce index_select is_complex is_contiguous is_floating_point is_same_size is_signed mH mT
    matrix_H masked_select meshgrid moveaxis movedim narrow nonzero nonzero_numpy numel numpy_T permute
    pixel_shuffle pixel_unshuffle ravel repeat repeat_interleave reshape reshape_as resolve_conj
    resolve_neg roll rot90 scatter scatter_add scatter_reduce select select_scatter size slice_scatter
    split split_with_sizes squeeze stack storage_offset stride sum_to_size swapaxes swapdims t take
    take_along_dim tensor_split tile transpose tril triu unbind unflatten unfold unsafe_chunk
    unsafe_split unsafe_split_with_sizes unsqueeze vander view view_as view_as_complex view_as_real
    vsplit vstack
"""
_MAKING = """
    _cast_Byte _cast_Char _cast_Double _cast_Float _cast_Half _cast_Int _cast_Long _cast_Short
    _local_scalar_dense _to_copy arange as_tensor bernoulli clone cpu cuda eye full full_like item
    lift_fresh linspace logspace multinomial new_full new_ones new_zeros normal normal_functional
    one_hot ones ones_like promote_types rand rand_like randint randint_like randn randn_like randperm
    range result_type scalar_tensor tensor to tril_indices triu_indices type_as uniform zeros zeros_like
    bartlett_window blackman_window hamming_window hann_window kaiser_window
"""
_LINEAR_ALGEBRA = """
    addbmm addmm addmv addr baddbmm bilinear bmm cdist chain_matmul cosine_similarity cross det dot
    einsum inner inverse kron linear linalg_cross linalg_det linalg_inv linalg_matmul linalg_multi_dot
    linalg_qr linalg_cholesky linalg_eigh linalg_pinv linalg_solve linalg_solve_triangular linalg_svd
    linalg_vecdot vdot ger matmul matrix_exp matrix_power mm mv outer pairwise_distance tensordot trace
    _weight_norm fft_fft fft_ifft fft_fft2 fft_ifft2 fft_fftn fft_ifftn fft_fftshift fft_ifftshift
    fft_rfft fft_irfft fft_rfft2 fft_irfft2 fft_rfftn fft_irfftn special_entr special_erf special_erfc
    special_expit special_expm1 special_log1p special_log_softmax special_logit special_logsumexp
    special_round special_softmax special_xlogy
"""
_NETWORKS = """
    __interpolate __upsample __upsample_bilinear __upsample_nearest _adaptive_avg_pool2d
    _adaptive_avg_pool3d _convolution _convolution_mode _log_softmax _native_multi_head_attention
    _pad_circular _pad_enum _safe_softmax _scaled_dot_product_attention_math _softmax
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    affine_grid_generator alpha_dropout binary_cross_entropy binary_cross_entropy_with_logits
    exponential fractional_max_pool2d fractional_max_pool3d huber_loss kl_div istft stft avg_pool1d
    avg_pool2d avg_pool3d batch_norm col2im constant_pad_nd conv1d conv2d conv3d conv_tbc
    conv_transpose1d conv_transpose2d conv_transpose3d convolution cosine_embedding_loss
    cross_entropy_loss dropout embedding feature_alpha_dropout feature_dropout grid_sampler
    grid_sampler_2d grid_sampler_3d group_norm gru gru_cell im2col instance_norm layer_norm log_softmax
    lstm lstm_cell max_pool1d max_pool2d max_pool1d_with_indices max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices max_unpool2d max_unpool3d nll_loss_nd mse_loss l1_loss native_batch_norm
    native_group_norm native_layer_norm pad pad_sequence reflection_pad1d reflection_pad2d
    reflection_pad3d replication_pad1d replication_pad2d replication_pad3d rms_norm
    scaled_dot_product_attention smooth_l1_loss softmax upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
"""
_STATE = """
    _assert_async _assert_tensor_metadata _get_tracing_state has_torch_function data device
    is_autocast_cpu_enabled is_autocast_enabled is_grad_enabled is_leaf is_scripting requires_grad_
    set_grad_enabled warn
"""  # what torch.nn's scripted code asks and `torch.no_grad` sets; a warning is text for the user

ALLOWED_PRIM = frozenset(_PRIM.split())
ALLOWED_ATEN = frozenset(
    " ".join(
        (
            *(_NUMBERS_AND_CONTAINERS, _ELEMENTWISE, _REDUCTIONS, _SHAPES),
            *(_MAKING, _LINEAR_ALGEBRA, _NETWORKS, _STATE),
        )
    ).split()
)
# What TorchScript's text may call by a name of its own, without `torch.` or `ops.` before it.
_CALLS = """
    abs all annotate any bin bool chr complex dict divmod enumerate float getattr hasattr hex int isinstance
    len list max min oct ord pow range rangelist round slice sorted str sum tuple unchecked_cast
    uninitialized zip
"""
ALLOWED_CALLS = frozenset(_CALLS.split())


def is_allowed(operator: str) -> bool:
    """Whether a TorchScript file may use an operator, given as `aten::NAME` or `prim::NAME`."""
    namespace, _, name = operator.partition("::")
    allowed = {"aten": ALLOWED_ATEN, "prim": ALLOWED_PRIM}.get(namespace, frozenset())
    return name in allowed or (namespace == "aten" and name.endswith("_") and name[:-1] in allowed)
