"""Golden values of ops from PyTorch, in float64 -> ops.json.

They anchor the float64 evaluation that the conformance suite compares backends with. Each case has
`attributes` and `arrays`; an array is its shape and base64 of little-endian float64 values. Inputs are
float32 values; pictures are [height, width, channels] as in the op table.
"""
import base64
import json
import pathlib

import bitsandbytes  # noqa: F401  (registers its ops)
import torch
import torch.nn.functional as F

torch.manual_seed(11)
torch.set_num_threads(1)
cases = {}


def random(*shape, scale=1.0):
    return (scale * torch.randn(*shape)).float().double()


def packed(tensor):
    values = tensor.detach().double().contiguous()
    data = base64.b64encode(values.numpy().tobytes()).decode()
    return {"shape": list(values.shape), "data": data}


def case(name, attributes=None, **arrays):
    cases[name] = {
        "attributes": attributes or {},
        "arrays": {key: packed(value) for key, value in arrays.items()},
    }


x = torch.cat([random(40, scale=2), torch.tensor([0.0, -0.0, -6, -4.5, -3, -1, 1e-3, 8, 30, -30.0])])
x = x.float().double()
functions = {
    "silu": F.silu,
    "gelu_tanh": lambda v: F.gelu(v, approximate="tanh"),
    "gelu_erf": F.gelu,
    "quick_gelu": lambda v: v * torch.sigmoid(1.702 * v),
    "relu": F.relu,
    "exp": torch.exp,
}
for kind, function in functions.items():
    case(f"unary {kind}", {"kind": kind}, x=x, y=function(x))
case("unary rsqrt", {"kind": "rsqrt"}, x=x.abs() + 0.25, y=torch.rsqrt(x.abs() + 0.25))

x, w, b = random(5, 24, scale=3) + 1, random(24), random(24)
x = x.float().double()
case("norm layer", {"epsilon": 1e-5}, x=x, weight=w, bias=b, y=F.layer_norm(x, (24,), w, b, 1e-5))
case("norm rms", {"epsilon": 1e-6}, x=x, weight=w, y=F.rms_norm(x, (24,), w, 1e-6))
picture = random(4, 6, 24)
grouped = F.group_norm(picture.permute(2, 0, 1)[None], 4, w, b, 1e-6)[0].permute(1, 2, 0)
case("norm group", {"epsilon": 1e-6, "groups": 4}, x=picture, weight=w, bias=b, y=grouped)


def attention(name, queries, keys, heads, d, causal=False, bias=None):
    q, k, v = random(queries, heads * d), random(keys, heads * d), random(keys, heads * d)
    split = [t.reshape(-1, heads, d).transpose(0, 1)[None] for t in (q, k, v)]
    mask = None if bias is None else bias[None]
    scale = 1 / d**0.5
    y = F.scaled_dot_product_attention(*split, attn_mask=mask, is_causal=causal, scale=scale)
    arrays = {} if bias is None else {"bias": bias}
    attributes = {"heads": heads, "scale": scale, "causal": causal}
    case(name, attributes, q=q, k=k, v=v, y=y[0].transpose(0, 1).reshape(queries, heads * d), **arrays)


attention("attention plain", 5, 7, 2, 8)
attention("attention causal", 6, 6, 3, 4, causal=True)
attention("attention with bias", 4, 9, 2, 5, bias=random(2, 4, 9, scale=2))


def convolution(name, height, width, channels, out, kernel, stride, padding, upsample=1):
    x, w, b = random(height, width, channels), random(out, channels, kernel, kernel), random(out)
    planes = x.permute(2, 0, 1)[None]
    if upsample == 2:
        planes = F.interpolate(planes, scale_factor=2.0, mode="nearest")
    top, left, bottom, right = padding
    y = F.conv2d(F.pad(planes, (left, right, top, bottom)), w, b, stride=stride)
    attributes = {"kernel": kernel, "stride": stride, "padding": padding, "upsample": upsample}
    case(name, attributes, x=x, weight=w, bias=b, y=y[0].permute(1, 2, 0))


convolution("conv2d same", 5, 4, 3, 4, 3, 1, [1, 1, 1, 1])
convolution("conv2d downsampling", 6, 7, 3, 2, 3, 2, [0, 0, 1, 1])
convolution("conv2d upsampling", 3, 4, 2, 3, 3, 1, [1, 1, 1, 1], upsample=2)
convolution("conv2d odd padding", 4, 5, 2, 2, 3, 1, [2, 0, 1, 3])


def head_norm_rope():
    """Diffusers' attention: RMS norm of each head, then apply_rotary_emb with interleaved pairs."""
    from diffusers.models.embeddings import apply_rotary_emb, get_1d_rotary_pos_embed

    rows, heads, d = 6, 2, 8
    x, w = random(rows, heads * d), random(d)
    cos, sin = get_1d_rotary_pos_embed(
        d, torch.arange(rows), use_real=True, repeat_interleave_real=True, freqs_dtype=torch.float64
    )
    cos, sin = cos.float().double(), sin.float().double()
    normed = F.rms_norm(x.reshape(rows, heads, d), (d,), w, 1e-6)
    y = apply_rotary_emb(normed.transpose(0, 1)[None].float(), (cos, sin))[0].transpose(0, 1)
    attributes = {"heads": heads, "epsilon": 1e-6}
    case("headNormRope", attributes, x=x, weight=w, cos=cos, sin=sin, y=y.reshape(rows, heads * d))


head_norm_rope()


def llm_int8(name, rows, features, out, threshold, outliers):
    """bitsandbytes' own ops on float16 activations; only the last sums are left in float32."""
    x = random(rows, features)
    for row, column in outliers:
        x[row, column] = 9.5 - row
    x = x.half()
    ops = torch.ops.bitsandbytes
    codes, row_absmax, _ = ops.int8_vectorwise_quant(random(out, features, scale=0.1).half())
    quantized, absmax, columns = bitsandbytes.functional.int8_vectorwise_quant(x.clone(), threshold)
    y, _ = ops.int8_mixed_scaled_mm(x.float(), quantized, codes, absmax, row_absmax, columns)
    arrays = {"x": x, "codes": codes, "rowAbsmax": row_absmax, "y": y}
    case(name, {"threshold": threshold}, **arrays)


llm_int8("llm_int8 without outliers", 5, 32, 6, 6.0, [])
llm_int8("llm_int8 with outliers", 5, 32, 6, 6.0, [(0, 3), (2, 3), (1, 17)])
llm_int8("llm_int8 without a threshold", 4, 20, 3, 0.0, [(1, 4)])

path = pathlib.Path(__file__).parent / "ops.json"
path.write_text(json.dumps(cases, indent=1) + "\n")
