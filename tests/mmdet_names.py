"""Names and shapes in mmdet 3's Mask2Former checkpoints, independent of the conversion under test."""

from collections.abc import Iterator, Sequence

Shapes = dict[str, tuple[int, ...]]
OFFICIAL = {
    "embed": 96,
    "depths": (2, 2, 18, 2),
    "heads": (3, 6, 12, 24),
    "hidden": 256,
    "hidden_heads": 8,
    "pixel_layers": 6,
    "pixel_inner": 1024,
    "query_layers": 9,
    "query_inner": 2048,
    "queries": 100,
    "classes": 80,
}
WINDOW = 7


def linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def inner(name: str, size: int, inner_size: int) -> Shapes:
    return linear(f"{name}.layers.0.0", inner_size, size) | linear(f"{name}.layers.1", size, inner_size)


def conv(name: str, out: int, into: int, kernel: int) -> Shapes:
    return {f"{name}.conv.weight": (out, into, kernel, kernel)} | norm(f"{name}.gn", out)


def swin(embed: int, depths: Sequence[int], heads: Sequence[int]) -> Iterator[Shapes]:
    patch = {"backbone.patch_embed.projection.weight": (embed, 3, 4, 4)}
    yield patch | {"backbone.patch_embed.projection.bias": (embed,)}
    yield norm("backbone.patch_embed.norm", embed)
    for stage, (depth, number) in enumerate(zip(depths, heads, strict=True)):
        size, base = embed << stage, f"backbone.stages.{stage}"
        for block in (f"{base}.blocks.{i}" for i in range(depth)):
            table = f"{block}.attn.w_msa.relative_position"
            yield {f"{table}_bias_table": ((2 * WINDOW - 1) ** 2, number)}
            yield {f"{table}_index": (WINDOW**2, WINDOW**2)}
            yield linear(f"{block}.attn.w_msa.qkv", 3 * size, size)
            yield linear(f"{block}.attn.w_msa.proj", size, size)
            yield norm(f"{block}.norm1", size) | norm(f"{block}.norm2", size)
            yield inner(f"{block}.ffn", size, 4 * size)
        if stage < len(depths) - 1:
            yield norm(f"{base}.downsample.norm", 4 * size)
            yield {f"{base}.downsample.reduction.weight": (2 * size, 4 * size)}
        yield norm(f"backbone.norm{stage}", size)


def pixel_decoder(
    base: str, embed: int, hidden: int, heads: int, layers: int, inner_size: int
) -> Iterator[Shapes]:
    for level, size in enumerate((8 * embed, 4 * embed, 2 * embed)):
        name = f"{base}.input_convs.{level}"
        yield conv(name, hidden, size, 1) | {f"{name}.conv.bias": (hidden,)}
    for layer in (f"{base}.encoder.layers.{i}" for i in range(layers)):
        yield linear(f"{layer}.self_attn.sampling_offsets", heads * 3 * 4 * 2, hidden)
        yield linear(f"{layer}.self_attn.attention_weights", heads * 3 * 4, hidden)
        yield linear(f"{layer}.self_attn.value_proj", hidden, hidden)
        yield linear(f"{layer}.self_attn.output_proj", hidden, hidden)
        yield inner(f"{layer}.ffn", hidden, inner_size)
        yield norm(f"{layer}.norms.0", hidden) | norm(f"{layer}.norms.1", hidden)
    yield {f"{base}.level_encoding.weight": (3, hidden)}
    yield conv(f"{base}.lateral_convs.0", hidden, embed, 1) | conv(
        f"{base}.output_convs.0", hidden, hidden, 3
    )
    yield {f"{base}.mask_feature.weight": (hidden, hidden, 1, 1), f"{base}.mask_feature.bias": (hidden,)}


def query_decoder(base: str, hidden: int, layers: int, inner_size: int) -> Iterator[Shapes]:
    for layer in (f"{base}.layers.{i}" for i in range(layers)):
        for attention in (f"{layer}.self_attn.attn", f"{layer}.cross_attn.attn"):
            yield {f"{attention}.in_proj_weight": (3 * hidden, hidden)}
            yield {f"{attention}.in_proj_bias": (3 * hidden,)}
            yield linear(f"{attention}.out_proj", hidden, hidden)
        yield inner(f"{layer}.ffn", hidden, inner_size)
        for number in range(3):
            yield norm(f"{layer}.norms.{number}", hidden)
    yield norm(f"{base}.post_norm", hidden)


def mmdet_shapes(
    *,
    embed: int,
    depths: Sequence[int],
    heads: Sequence[int],
    hidden: int,
    hidden_heads: int,
    pixel_layers: int,
    pixel_inner: int,
    query_layers: int,
    query_inner: int,
    queries: int,
    classes: int,
) -> Shapes:
    """Shape of every tensor by mmdet 3's name."""
    head = "panoptic_head"
    parts = [
        *swin(embed, depths, heads),
        *pixel_decoder(f"{head}.pixel_decoder", embed, hidden, hidden_heads, pixel_layers, pixel_inner),
        *query_decoder(f"{head}.transformer_decoder", hidden, query_layers, query_inner),
        {f"{head}.query_embed.weight": (queries, hidden), f"{head}.query_feat.weight": (queries, hidden)},
        {f"{head}.level_embed.weight": (3, hidden)},
        linear(f"{head}.cls_embed", classes + 1, hidden),
        *(linear(f"{head}.mask_embed.{number}", hidden, hidden) for number in (0, 2, 4)),
    ]
    return {name: shape for part in parts for name, shape in part.items()}


def mmdet2_name(name: str) -> str:
    """A tensor's name in mmdet 2, given that of mmdet 3."""
    if "pixel_decoder.encoder" in name:
        return name.replace(".self_attn.", ".attentions.0.").replace(".ffn.", ".ffns.0.")
    if "transformer_decoder.layers" in name:
        name = name.replace(".cross_attn.", ".attentions.0.").replace(".self_attn.", ".attentions.1.")
        return name.replace(".ffn.", ".ffns.0.")
    return name
