"""Rotary embedding, and the two things that follow it: queries in the form that attention reads, keys and values into
their page of the cache.

Rotation is NeoX style over the first 2 * half dims of a head (HF rotate_half): a' = a cos - b sin, b' = b cos + a
sin, where b lies `half` dims after a; the rest of the head passes through. cos and sin come with LongRoPE's mscale
already in them.

Before q and k become int8, each head goes through a Walsh-Hadamard transform (orthogonal up to a factor, so q . k is
unchanged up to that factor, `mix_factor`). It spreads an outlier among a head's dims over all of them, so that it no
longer sets the step of the 127 others: the KL that int8 q and k cost on the demo model falls from 0.0013 to 0.0003, for
seven stages of adds a token. V needs no transform: rounding it costs a KL of 0.00005.
"""

from __future__ import annotations

from phi4mini.kernels.kv import PAGE, KVLayout, query_names
from phi4mini.kernels.lang.kernel import F32, I8, I32, LANES, Kernel, V, kernel, vec


@kernel(
    "qkv:f32[rows:stride, units * head_dim] stride:int cos:f32[rows, half] sin:f32[rows, half] rows:i64[1] "
    "pages:i64[rows] slots:i64[rows] pool:u8[] page_stride:int "
    "q:query[rows, heads * head_dim] q_scale:f32[rows, heads] q_start:i32[rows, heads]",
    query_names,
)
def rope_append(k: Kernel, kind: str, heads: int, kv_heads: int, head_dim: int, half: int) -> None:
    """qkv f32 (rows, (heads + 2 kv_heads) * head_dim), `stride` bytes from row to row, rotated in place; cos, sin f32
    (rows, half).

    pages i64 (rows,) page number and slots i64 (rows,) token in page, where each row's K and V go; pool the layer's
    part of page 0, page_stride bytes from page to page. q s8 or f32 (rows, heads, head_dim); int8 only: q_scale f32 and
    q_start i32 = -128 * sum(q), both (rows, heads).
    """
    layout = KVLayout(kind, head_dim, kv_heads)
    units = heads + 2 * kv_heads
    # An item is one head of one row, so that a single row is shared among threads too.
    first, end = k.share(k.load(k.rows) * units)
    for item in k.span(first, end):
        row, unit = item // units, item % units
        x = k.qkv[row, unit * head_dim]
        with k.when(unit < heads + kv_heads):
            _rotate(k, x, k.cos[row], k.sin[row], half)
        with k.when(unit < heads):
            _put_query(k, x, row * heads + unit, kind, head_dim)
        with k.when(unit >= heads):
            page = k.pool.at(k.load(k.pages[row]) * k.page_stride)
            slot = k.load(k.slots[row])
            with k.when(unit < heads + kv_heads):
                _put_key(k, x, page.at((unit - heads) * layout.head_bytes), slot, layout)
            with k.when(unit >= heads + kv_heads):
                _put_value(k, x, page.at((unit - heads - kv_heads) * layout.head_bytes), slot, layout)


def _rotate(k: Kernel, x: V, cos: V, sin: V, half: int) -> None:
    for at in range(0, half, LANES):
        lanes = min(LANES, half - at)
        a, b = k.load_float(x.at(at * 4), lanes), k.load_float(x.at((at + half) * 4), lanes)
        c, s = k.load_float(cos.at(at * 4), lanes), k.load_float(sin.at(at * 4), lanes)
        k.store(x.at(at * 4), a * c - b * s)
        k.store(x.at((at + half) * 4), b * c + a * s)


def mix_width(head_dim: int) -> int:
    """Dims that are transformed together: the largest power of two that divides the head."""
    return head_dim & -head_dim


def mix_factor(kind: str, head_dim: int) -> float:
    """What q . k of transformed heads must be multiplied by."""
    return 1.0 / mix_width(head_dim) if kind == "int8" else 1.0


def _mix(k: Kernel, values: list[V], width: int) -> list[V]:
    """Unnormalised Walsh-Hadamard transform of each `width` consecutive dims: butterflies between vectors first, then
    inside them. Inside, fma with -1 or 1 is an exact product and one rounded sum, as the others are.
    """
    stride = width // 2 // LANES
    while stride:
        pairs = [(i, i + stride) for i in range(len(values)) if not i & stride]
        values = list(values)
        for i, j in pairs:
            values[i], values[j] = values[i] + values[j], values[i] - values[j]
        stride //= 2
    for bit in (8, 4, 2, 1):
        sign = k.const(vec(F32), [-1.0 if lane & bit else 1.0 for lane in range(LANES)])
        values = [k.fma(v, sign, v.lanes([lane ^ bit for lane in range(LANES)])) for v in values]
    return values


def _quantized(k: Kernel, x: V, head_dim: int, mixed: bool) -> tuple[list[V], V]:
    """A head's numbers as i32 vectors of -127 .. 127, and their scale. NaN in a head gives a scale of NaN, never a
    quiet wrong number.
    """
    values = [k.load_float(x.at(d * 4)) for d in range(0, head_dim, LANES)]
    if mixed:
        values = _mix(k, values, mix_width(head_dim))
    peak = k.magnitude(values)
    inverse = k.select(peak > 0.0, k.like(127.0, peak) / peak, 0.0)
    return [k.to_int(v * inverse) for v in values], peak * (1.0 / 127.0)


def _put_query(k: Kernel, x: V, index: V, kind: str, head_dim: int) -> None:
    if kind == "f32":
        for d in range(0, head_dim, LANES):
            k.store(k.q.at((index * head_dim + d) * 4), k.load_float(x.at(d * 4)))
        return
    values, scale = _quantized(k, x, head_dim, mixed=True)
    total = values[0]
    for v in values[1:]:
        total = total + v
    for i, v in enumerate(values):
        k.store(k.q.at(index * head_dim + i * LANES), k.narrow(v, I8))
    k.store(k.q_scale.at(index * 4), scale)
    k.store(k.q_start.at(index * 4), k.sum(total) * -128)


def _put_key(k: Kernel, x: V, head: V, slot: V, layout: KVLayout) -> None:
    """K of a token: a column of its group of 16 tokens, so that attention reads 16 tokens' scores as one vector. Plus
    128, because dot4 takes an unsigned left side; q_start takes it back.
    """
    dim = layout.head_dim
    group = head.at(slot // LANES * (LANES * dim * layout.width))
    if layout.kind == "f32":
        for d in k.span(0, dim):
            k.store(group.at((d * LANES + slot % LANES) * 4), k.load(x.at(d * 4), F32))
        return
    values, scale = _quantized(k, x, dim, mixed=True)
    for i, v in enumerate(values):
        quads = k.narrow(v + 128, I8).bits(vec(I32, 4))
        for j in range(4):
            k.store(group.at((slot % LANES + (4 * i + j) * LANES) * 4), quads.lane(j))
    k.store(head.at(slot * 4 + layout.scale_offset), scale)


def _put_value(k: Kernel, x: V, head: V, slot: V, layout: KVLayout) -> None:
    """V of a token: one byte in four of its group's lines, because dot4 sums over four tokens there. Scattered stores,
    once a token, buy whole lines for every later read.
    """
    dim = layout.head_dim
    to = head.at(layout.v_offset)
    if layout.kind == "f32":
        for d in range(0, dim, LANES):
            k.store(to.at((slot * dim + d) * 4), k.load_float(x.at(d * 4)))
        return
    values, scale = _quantized(k, x, dim, mixed=False)
    group = to.at(slot // 4 * (4 * dim) + slot % 4)
    for i, v in enumerate(values):
        narrow = k.narrow(v, I8)
        for j in range(LANES):
            k.store(group.at((i * LANES + j) * 4), narrow.lane(j))
    k.store(head.at(slot * 4 + (layout.scale_offset + PAGE * 4)), scale)
